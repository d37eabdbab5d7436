"""What every Lockstep command shares: errors of one line, exit codes, and `--debug`.

Exit codes: 0 done, 1 the job ran and its result is bad (a failed proof), 2 bad input,
130 interrupted, 141 nobody reads the output any more.
"""

import argparse
import errno
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn


class LockstepError(Exception):
    """A failure whose message is meant for the person at the command line.

    The message says what was expected, what came and what to do.
    """

    exit_code = 2


class CommandParser(argparse.ArgumentParser):
    """An argument parser that reports a wrong call as every other error: in one line."""

    def __init__(
        self, *, prog: str, description: str, epilog: str, usage: str | None = None
    ) -> None:
        super().__init__(
            prog=prog,
            usage=usage,
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        # argparse takes "-1,1" for an option, as it is no number; here it is a list of them.
        self._negative_number_matcher = re.compile(r"-[\d.][\d.,eE+-]*$")
        self.add_argument(
            "--debug", action="store_true", help="show the whole traceback of an error"
        )

    def error(self, message: str) -> NoReturn:
        # argparse says "invalid NAME value: TEXT", with the name of the function that reads it.
        message = re.sub(r"invalid (.+) value: (.*)", r"expected \1, got \2", message)
        raise LockstepError(f"{message}; see {self.prog} --help")


def run_command(command: Callable[[list[str]], int | None]) -> NoReturn:
    """Run `command` with this process's arguments, print an error as one line, and exit."""
    arguments = sys.argv[1:]
    try:
        code = command(arguments) or 0
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # who read our output has seen enough, as in `... | head`
        code = 141
    except (LockstepError, OSError, MemoryError) as error:
        if "--debug" in arguments:
            traceback.print_exc()
        else:
            print(f"error: {one_line(error)}", file=sys.stderr)
        code = error.exit_code if isinstance(error, LockstepError) else 2
    _give_up_unwritten_output()
    sys.exit(code)


def _give_up_unwritten_output() -> None:
    """Keep the interpreter from trying again at exit, and from changing the exit code."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def require_extra(extra: str, module: str) -> None:
    """End the process with one line if the packages of an optional extra are not installed."""
    if importlib.util.find_spec(module) is None:
        hint = f"run pip install -e '.[{extra}]' in Lockstep's folder"
        print(f"error: needs more packages: {hint}", file=sys.stderr)
        sys.exit(2)


def printable(text: str) -> str:
    """Line breaks and other control characters as escapes: a name must not look like a line."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def one_line(error: BaseException) -> str:
    """The message of `error` without line breaks; an operating-system error with its file."""
    if isinstance(error, OSError) and error.strerror:
        message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        if error.errno == errno.ENOSPC:
            message += "; free some space, then run the same command again"
    elif isinstance(error, MemoryError):
        message = "out of memory"
    else:
        message = str(error) or type(error).__name__
    return " ".join(message.split())

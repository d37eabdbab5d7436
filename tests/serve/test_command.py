"""What the commands share: one-line errors, exit codes and `--debug`."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

import serve
from serve.command import CommandParser, LockstepError, one_line, run_command

FULL = "No space left on device; free some space, then run the same command again"
SOURCE_ROOT = Path(serve.__file__).parents[1]


class ProofError(LockstepError):
    exit_code = 1


def outcome(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    *arguments: str,
) -> tuple[int, str]:
    """Exit code and standard error of a command that fails with `error`."""

    def command(_: list[str]) -> NoReturn:
        raise error

    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    with pytest.raises(SystemExit) as caught:
        run_command(command)
    assert isinstance(caught.value.code, int)
    return caught.value.code, capsys.readouterr().err


@pytest.mark.parametrize(("result", "code"), [(None, 0), (0, 0), (1, 1), (3, 3)])
def test_the_exit_code_is_the_commands(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    result: int | None,
    code: int,
) -> None:
    seen: list[str] = []

    def command(arguments: list[str]) -> int | None:
        seen.extend(arguments)
        return result

    monkeypatch.setattr(sys, "argv", ["command", "a", "--b"])
    with pytest.raises(SystemExit) as caught:
        run_command(command)
    assert caught.value.code == code
    assert seen == ["a", "--b"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (LockstepError("expected a, got b"), 2, "error: expected a, got b\n"),
        (LockstepError("two\n  lines\r\n"), 2, "error: two lines\n"),
        (LockstepError(), 2, "error: LockstepError\n"),
        (ProofError("1 of 3 differ"), 1, "error: 1 of 3 differ\n"),
        (FileNotFoundError(2, "No such file or directory", "a b"), 2,
         "error: a b: No such file or directory\n"),
        (OSError(28, "No space left on device"), 2, f"error: {FULL}\n"),
        (OSError("something odd"), 2, "error: something odd\n"),
        (MemoryError(), 2, "error: out of memory\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
    ids=repr,
)  # fmt: skip
def test_an_error_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    text: str,
) -> None:
    assert outcome(monkeypatch, capsys, error) == (code, text)


@pytest.mark.parametrize(
    ("error", "code"), [(LockstepError("bad"), 2), (ProofError("bad"), 1), (OSError("bad"), 2)]
)
def test_debug_shows_the_traceback_and_keeps_the_exit_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: int,
) -> None:
    got, text = outcome(monkeypatch, capsys, error, "--debug")
    assert got == code
    assert text.startswith("Traceback (most recent call last):\n")
    assert text.endswith(f"{type(error).__name__}: bad\n")


def test_a_programming_error_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def command(_: list[str]) -> NoReturn:
        raise ZeroDivisionError

    monkeypatch.setattr(sys, "argv", ["command"])
    with pytest.raises(ZeroDivisionError):
        run_command(command)


def test_one_line_of_an_os_error_on_two_files() -> None:
    error = OSError(18, "Invalid cross-device link", "from", None, "to")
    assert one_line(error) == "from: Invalid cross-device link"


@pytest.fixture
def parser() -> CommandParser:
    parser = CommandParser(prog="python -m thing", description="What.", epilog="example:\n  thing")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--count", type=int)
    return parser


@pytest.mark.parametrize("wrong", [["--nope"], ["--count"], ["--count", "x"], ["more"], ["--verb"]])
def test_a_wrong_call_is_an_error_that_points_to_the_help(
    parser: CommandParser, wrong: list[str]
) -> None:
    with pytest.raises(LockstepError, match=r"; see python -m thing --help$") as caught:
        parser.parse_args(wrong)
    assert "\n" not in str(caught.value)
    assert wrong[0].lstrip("-") in str(caught.value)


def test_every_command_has_debug_and_an_example(parser: CommandParser) -> None:
    assert parser.parse_args(["--debug"]).debug is True
    assert parser.parse_args([]).debug is False
    assert "--debug" in parser.format_help()
    assert parser.format_help().endswith("example:\n  thing\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("unbuffered", [False, True])
def test_output_that_cannot_be_written_is_one_error(unbuffered: bool) -> None:
    code = "from serve.command import run_command; run_command(lambda _: print('result'))"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, *(["-u"] if unbuffered else []), "-c", code],
            stdout=full,
            stderr=subprocess.PIPE,
            cwd=SOURCE_ROOT,
            env=environment,
            timeout=60,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == f"error: {FULL}\n".encode()


def test_a_reader_that_leaves_early_is_no_error() -> None:
    """As in `command | head -1`."""
    code = (
        "from serve.command import run_command\n"
        "run_command(lambda arguments: [print('x' * 100) for _ in range(10_000)] and 0)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 141
    assert errors == b""


def test_a_missing_extra_is_one_line() -> None:
    code = "from serve.command import require_extra; require_extra('train', 'no_such_module')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        "error: needs more packages: run pip install -e '.[train]' in Lockstep's folder\n"
    )

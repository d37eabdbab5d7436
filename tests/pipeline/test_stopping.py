"""Signals, as a process gets them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.stopping import Stopped, StopSignals

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_at_once(number: int, code: int) -> None:
    signals = StopSignals()
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as caught, signals.received():
        os.kill(os.getpid(), number)
        time.sleep(5)
    assert caught.value.exit_code == code
    assert str(caught.value) == f"stopped by {signal.Signals(number).name}"
    assert signal.getsignal(number) is before


def test_the_command_that_continues_does_not_begin_anew(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--fresh", "--data", "folder:my photos"]
    Stopped(signal.SIGTERM).say_how_to_continue("pipeline.run", arguments)
    assert capsys.readouterr().err == (
        "stopped by SIGTERM: what is finished is kept; to continue: "
        "python -m pipeline.run --data 'folder:my photos'\n"
    )


def test_a_signal_waits_for_a_good_moment() -> None:
    signals = StopSignals()
    done = []
    with pytest.raises(Stopped), signals.received(), signals.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        done.append("what must not be broken off")
        assert signals.number == signal.SIGTERM
        signals.check()
        done.append("too late")
    assert done == ["what must not be broken off"]


def test_a_signal_within_a_block_that_never_checks_counts_after_it() -> None:
    signals = StopSignals()
    done = []
    with pytest.raises(Stopped), signals.received():
        with signals.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
            done.append("all")
        done.append("too late")
    assert done == ["all"]


def test_a_block_within_a_block_ends_nothing_early() -> None:
    signals = StopSignals()
    done = []
    with pytest.raises(Stopped), signals.received(), signals.deferred():
        with signals.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
        done.append("the outer block")
    assert done == ["the outer block"]


@pytest.mark.parametrize("moment", ["before", "within"])
def test_what_may_be_broken_off_is(moment: str) -> None:
    signals = StopSignals()
    done = []
    with pytest.raises(Stopped), signals.received(), signals.deferred():
        if moment == "before":
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
            done.append("deferred")
        with signals.at_once():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
            done.append("too late")
    assert done == ["deferred"] * (moment == "before")


def test_an_error_within_the_block_is_not_hidden() -> None:
    signals = StopSignals()
    with pytest.raises(ZeroDivisionError), signals.received(), signals.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        raise ZeroDivisionError


def test_no_except_clause_takes_it_for_a_failure() -> None:
    assert not issubclass(Stopped, Exception)


def test_a_second_signal_ends_the_process() -> None:
    code = (
        "import time; from pipeline.stopping import StopSignals\n"
        "signals = StopSignals()\n"
        "with signals.received(), signals.deferred():\n"
        "    print('ready', flush=True)\n"
        "    while True: time.sleep(0.01)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM

"""SIGUSR1 and SIGTERM as notes, and whose they are not."""

import os
import signal
import subprocess
import sys

import pytest

from l2e.errors import Stopped
from l2e.training.signals import SIGNALS, StopSignals


def strike(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_is_noted_and_nothing_else_happens(number: signal.Signals) -> None:
    with StopSignals() as signals:
        assert signals.received is None
        strike(number)
        strike(number)
        assert signals.received is number


def test_handlers_are_put_back_even_after_an_error() -> None:
    seen = []
    before = [signal.signal(number, lambda number, frame: seen.append(number)) for number in SIGNALS]
    try:
        with pytest.raises(ZeroDivisionError), StopSignals():
            raise ZeroDivisionError
        for number in SIGNALS:
            strike(number)
        assert seen == list(SIGNALS)
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)


def test_a_later_run_of_the_process_knows_nothing_of_an_earlier_ones_signal() -> None:
    with StopSignals():
        strike(signal.SIGTERM)
    with StopSignals() as signals:
        assert signals.received is None


def test_where_interruption_is_safe_a_signal_ends_the_work_at_once() -> None:
    with StopSignals() as signals:
        reached = []
        with pytest.raises(Stopped), signals.interrupting():  # noqa: PT012
            strike(signal.SIGUSR1)
            reached.append("the line after")
        assert reached == []
        strike(signal.SIGTERM)  # outside: a note
        with pytest.raises(Stopped), signals.interrupting():
            reached.append("work that should not begin after a signal")
        assert reached == []


def test_a_second_signal_does_not_disturb_the_way_out() -> None:
    with StopSignals() as signals, pytest.raises(Stopped), signals.interrupting():  # noqa: PT012
        try:
            strike(signal.SIGTERM)
        finally:
            strike(signal.SIGTERM)  # would raise in the middle of this clean-up
            left_in_order = True
    assert left_in_order


def test_a_library_that_catches_every_exception_does_not_catch_this_one() -> None:
    with StopSignals() as signals, pytest.raises(Stopped), signals.interrupting():  # noqa: PT012
        try:
            strike(signal.SIGTERM)
        except Exception:
            pytest.fail("an Exception")


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_forked_process_dies_of_these_signals_as_any_other(number: signal.Signals) -> None:
    with StopSignals() as signals:
        child = os.fork()
        if child == 0:
            try:
                strike(number)
            finally:
                os._exit(0)  # only reached when the parent's handler has swallowed the signal
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -number
        assert signals.received is None


def test_a_started_program_dies_of_them_too() -> None:
    with StopSignals() as signals:
        child = subprocess.run([sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"])
        assert child.returncode == -signal.SIGTERM
        assert signals.received is None

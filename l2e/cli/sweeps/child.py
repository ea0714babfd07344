"""Processes that are started one after another, and stopped as one run would be."""

import ctypes
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

from l2e.training.signals import SIGNALS

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PORTS = range(1024, 65536)


class Children:
    """Runs one process at a time. SIGUSR1 and SIGTERM are handed on to it; Ctrl-C it gets from the terminal itself.

    On Linux a child that outlives this process gets SIGTERM, so that it saves and ends: started again, the sweep would
    else train beside it in the same run directory.

    Attributes:
        stopped: the last of these signals, or None.
    """

    def __init__(self) -> None:
        self.stopped: signal.Signals | None = None
        self._running: subprocess.Popen[bytes] | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Children":
        for number in (*SIGNALS, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Run `command` to its end; returns its exit code, below 0 for a signal."""
        self._running = subprocess.Popen(command, env=dict(environment), preexec_fn=_end_with_parent)
        try:
            if self.stopped is not None:  # while it was being started
                self._hand_on(self.stopped)
            return self._running.wait()
        finally:
            self._running = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.stopped = signal.Signals(number)
        self._hand_on(self.stopped)

    def _hand_on(self, number: signal.Signals) -> None:
        if self._running is not None and number in SIGNALS:
            self._running.send_signal(number)


_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _end_with_parent() -> None:
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def reason(code: int, told: str) -> str:
    """Why a process ended, in a few words: what it told, else the signal or the code."""
    if told:
        text = " ".join(told.split())
        return text if len(text) <= 160 else text[:159] + "…"
    if code < 0:
        hint = " (by hand, or for want of memory)" if -code == signal.SIGKILL else ""
        return f"ended by {signal.Signals(-code).name}{hint}"
    return f"exit code {code}, see what it printed"


def of_member(environment: Mapping[str, str], number: int) -> dict[str, str]:
    """The environment of a member's process.

    torchrun's agent holds the store in which ranks find each other for as long as it lives, with the addresses of the
    member before. So each member's first rank opens a store of its own, at a port next to the agent's.
    """
    if environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return dict(environment)
    kept = {key: value for key, value in environment.items() if key != "TORCHELASTIC_USE_AGENT_STORE"}
    port = (int(kept["MASTER_PORT"]) + 1 + number - _PORTS.start) % len(_PORTS) + _PORTS.start
    return kept | {"MASTER_PORT": str(port)}

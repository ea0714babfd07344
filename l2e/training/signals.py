"""SIGUSR1 and SIGTERM: stop soon, with everything saved."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from l2e.errors import Stopped

SIGNALS = (signal.SIGUSR1, signal.SIGTERM)
"""A batch system's warning before the limit (--signal=USR1@...), and its notice of preemption."""


class StopSignals:
    """While this context is open, SIGUSR1 and SIGTERM only leave a note, which is read where stopping is safe.

    A process that is forked meanwhile takes these signals as any other; so does a program that is started.
    What handled them before handles them again afterwards.

    Attributes:
        received: the last such signal, or None.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._interrupts = False
        self._owner = os.getpid()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            # None stands for a handler that was not installed from Python, and cannot be put back from there.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Within it a signal ends the work at once: for what is done by one process and can be done again.

        Raises:
            Stopped: there has been a signal, before or within.
        """
        self._interrupts = True
        try:
            if self.received is not None:
                raise Stopped
            yield
        finally:
            self._interrupts = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.received = signal.Signals(number)
        if self._interrupts:
            self._interrupts = False  # a second signal shall not disturb the way out
            raise Stopped

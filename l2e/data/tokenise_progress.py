"""How tokenising comes along: a live bar on a terminal, a line now and then elsewhere."""

import logging
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from l2e.data.packed_files import Reading

log = logging.getLogger("l2e.data")

_SECONDS = 30.0  # between lines


class TokeniseProgress:
    """Documents, tokens/s, the share that has been read and the time that is left.

    Args:
        reading: how far the sources have been read.
    """

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.documents = 0
        self.tokens = 0
        self._started = self._told = time.perf_counter()
        self._read_before: int | None = None
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("tokenising"),
                BarColumn(bar_width=12),
                TextColumn("{task.fields[numbers]}"),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task("", total=reading.total, numbers="")

    def __enter__(self) -> "TokeniseProgress":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def count(self, tokens: int) -> None:
        """One more document, of so many tokens."""
        if self._read_before is None:  # what was skipped took no time to speak of
            self._read_before = self.reading.done
        self.documents += 1
        self.tokens += tokens
        now = time.perf_counter()
        if self._bar:
            if self.documents % 64 == 0:
                self._bar.update(self._task, completed=self.reading.done, numbers=self.line(now))
        elif now - self._told >= _SECONDS:
            self._told = now
            log.info("%s", self.line(now))

    def line(self, now: float) -> str:
        """The numbers at time `now`, without the time that is left where that is not known."""
        seconds = now - self._started
        parts = [f"{self.documents:,} documents", f"{self.tokens / max(seconds, 1e-9):,.0f} tokens/s"]
        done, total = self.reading.done, self.reading.total
        if total:
            parts.insert(0, f"{min(done / total, 1.0):.0%}")
            new = done - (self._read_before or 0)
            if new > 0 and not self._bar:
                minutes = seconds / new * (total - done) / 60
                parts.append(f"{max(minutes, 0.0):.0f} min left")
        return ", ".join(parts)

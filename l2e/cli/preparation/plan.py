"""What a fetch takes: told, and held against the room on disk, before it begins."""

import logging
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from l2e.errors import UserError

log = logging.getLogger("l2e")

_TELL_EVERY = 10.0  # s between lines of progress


@dataclass(frozen=True, kw_only=True)
class Line:
    """One thing to fetch.

    Args:
        item: what it is.
        size: its bytes; None where they are not known before.
        missing: of them, those that are not here.
        source: where it comes from.
    """

    item: str
    size: int | None
    missing: int | None
    source: str


class Part(Protocol):
    """Something that a run needs."""

    def plan(self) -> list[Line]:
        """What there is to fetch; asks servers for sizes alone."""

    def fetch(self) -> None:
        """Fetch what is missing."""


def table(lines: list[Line]) -> str:
    """The plan, aligned, with its sum."""
    known = [line.missing for line in lines if line.missing is not None]
    size = sum(line.size or 0 for line in lines)
    rows = [
        ("item", "bytes", "to fetch", "from"),
        *((line.item, amount(line.size), amount(line.missing), line.source) for line in lines),
        ("together", amount(size), amount(sum(known)), ""),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip() for row in rows
    )


def check_room(lines: list[Line], folder: Path) -> None:
    """Refuse what the disk has no room for.

    Raises:
        UserError: with both numbers.
    """
    needed = sum(line.missing or 0 for line in lines)
    existing = next(parent for parent in [folder.absolute(), *folder.absolute().parents] if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise UserError(
            f"folder: {amount(needed)} are to be fetched, the disk of {folder} has {amount(free)} free; "
            f"make room or give another folder=..."
        )


def amount(size: int | None) -> str:
    """Bytes for people."""
    if size is None:
        return "unknown"
    for unit, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size} B"


class Progress:
    """Tells every ten seconds, and at the end, how many of the bytes are done; several threads may add."""

    def __init__(self, item: str, total: int) -> None:
        self.item = item
        self.total = total
        self._done = 0
        self._started = self._told = time.monotonic()
        self._lock = threading.Lock()

    def add(self, size: int) -> None:
        """So many bytes more."""
        with self._lock:
            self._done += size
            now = time.monotonic()
            if now - self._told >= _TELL_EVERY or self._done >= self.total:
                self._told = now
                rate = self._done / max(now - self._started, 1e-3)
                left = (self.total - self._done) / max(rate, 1.0)
                log.info(
                    "%s: %s of %s, %s/s, %s left",
                    self.item,
                    amount(self._done),
                    amount(self.total),
                    amount(int(rate)),
                    _time(left),
                )


def _time(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"

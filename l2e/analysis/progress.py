"""A line now and then for what takes long."""

import logging
import time

log = logging.getLogger("l2e.analysis")

_SECONDS = 10.0  # between lines


class ProgressLine:
    """Told how much is done, it says so every ten seconds, with the time that is left at this pace.

    Args:
        title: of the work, the first words of a line.
        unit: what is counted.
    """

    def __init__(self, title: str, unit: str) -> None:
        self.title = title
        self.unit = unit
        self._began = self._told = time.monotonic()

    def __call__(self, done: int, of: int) -> None:
        """So many of so many are done."""
        now = time.monotonic()
        if now - self._told < _SECONDS and done < of:
            return
        self._told = now
        left = (now - self._began) / done * (of - done)
        ending = f", about {left:.0f} s left" if done < of else f" in {now - self._began:.0f} s"
        log.info("%s: %d of %d %s%s", self.title, done, of, self.unit, ending)

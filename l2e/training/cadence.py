"""When a restart point is due."""

import time
from collections.abc import Callable

import torch
import torch.distributed as dist

_LONGEST = 60.0  # seconds between two looks at the clock


class Cadence:
    """Every so many updates, or so many minutes of rank 0's clock; all ranks get the same answer.

    For the clock, rank 0 tells the others whether it is time, and after how many updates it will look again:
    half of the time that is left, by the pace so far. So ten minutes cost about ten messages.

    Args:
        every: updates; 0 does not count them.
        minutes: 0 does not look at the clock.
        device: of the message.
        clock: seconds; tests bring their own.
    """

    def __init__(
        self, every: int, minutes: float, device: torch.device, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.every = every
        self.seconds = 60 * minutes
        self.device = device
        self.clock = clock

    def start(self, step: int) -> None:
        """A restart point was written, or training begins."""
        self._saved = self._looked = self.clock()
        self._looked_at = step
        self._next_look = step + 1

    def due(self, step: int) -> bool:
        """Whether to save after `step` updates; every rank must ask after every update."""
        counted = bool(self.every) and step % self.every == 0
        return (self.seconds > 0 and step >= self._next_look and self._look(step)) or counted

    def _look(self, step: int) -> bool:
        now = self.clock()
        left = self._saved + self.seconds - now
        pace = (now - self._looked) / (step - self._looked_at)
        updates = int(min(left / 2, _LONGEST) / pace) if pace > 0 else 1
        message = torch.tensor([left <= 0, max(1, updates)], dtype=torch.int64, device=self.device)
        dist.broadcast(message, src=0)
        is_time, updates = message.tolist()
        self._looked, self._looked_at, self._next_look = now, step, step + updates
        return bool(is_time)

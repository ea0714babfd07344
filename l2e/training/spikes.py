"""Recognise a spike in the loss."""

import math
import statistics
from collections import deque
from dataclasses import dataclass

CALM = 10
"""Updates at a usual loss after which a spike is over: one that flickers is told once."""

_SIGMA = 1.4826
"""Times the median absolute deviation of normal values is their standard deviation."""

_LEAST = 0.01
"""Least distance from the median, as a share of it: where the loss hardly moves, less is no event."""


@dataclass(kw_only=True)
class SpikeConfig:
    """When a loss is so high that it is worth a line."""

    window: int = 100
    """Updates that say what is usual; none is judged before a fifth of them has been seen."""

    deviations: float = 6.0
    """Standard deviations, estimated robustly, above the window's median; 0 warns of nothing."""

    def __post_init__(self) -> None:
        if self.window < 10:
            raise ValueError(f"window must be at least 10, not {self.window}")
        if self.deviations < 0:
            raise ValueError(f"deviations must be at least 0, not {self.deviations}")


class SpikeDetector:
    """Judge losses one after another against the median and the median absolute deviation of those before.

    A steep fall raises no alarm, because a median lags behind on the high side. Losses of a spike join the window,
    so that a run that stays at a higher level is not judged by the old one for ever.

    Attributes:
        losses: the window, oldest first.
    """

    def __init__(self, config: SpikeConfig) -> None:
        self.config = config
        self.losses: deque[float] = deque(maxlen=config.window)
        self._calm = CALM

    def limit(self) -> float | None:
        """The highest usual loss; None as long as too few have been seen."""
        if not self.config.deviations or len(self.losses) < self.config.window / 5:
            return None
        median = statistics.median(self.losses)
        spread = _SIGMA * statistics.median(abs(loss - median) for loss in self.losses)
        return median + max(self.config.deviations * spread, _LEAST * abs(median))

    def starts_spike(self, loss: float) -> bool:
        """Take the next loss; True for the first of a spike. A loss that is no number is nothing to judge by."""
        if not math.isfinite(loss):
            return False
        limit = self.limit()
        self.losses.append(loss)
        high = limit is not None and loss > limit
        starts = high and self._calm >= CALM
        self._calm = 0 if high else self._calm + 1
        return starts

    def state_dict(self) -> dict[str, object]:
        """The window, and how long the loss has been usual."""
        return {"losses": list(self.losses), "calm": self._calm}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Take over what `state_dict` gave."""
        self.losses.clear()
        self.losses.extend(state["losses"])  # type: ignore[arg-type]
        self._calm = int(state["calm"])  # type: ignore[call-overload]

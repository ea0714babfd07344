"""Settings of `l2e.analysis.dynamics`."""

from dataclasses import dataclass
from typing import Literal

from l2e.errors import require


@dataclass(kw_only=True)
class DynamicsConfig:
    """Figure 12."""

    kind: Literal["dynamics"] = "dynamics"

    tail: float = 0.1
    """Share of the training at its end over which a threshold is averaged for the differences."""

    def __post_init__(self) -> None:
        require(0 < self.tail <= 1, "tail", "in (0, 1]", self.tail)

"""Settings of the Decrease Ratio and the Total Update Ratio."""

from dataclasses import dataclass


@dataclass(kw_only=True)
class UpdateRatioConfig:
    """When it is measured what an update does to the outputs that inhibition selects (M19, M20)."""

    every: int = 0
    """Updates between measurements; 0: none. Each takes two forward passes of `sequences` more on every rank."""

    sequences: int = 4
    """Rows of the update that are measured, on each rank; no more than a micro-batch has."""

    def __post_init__(self) -> None:
        if self.every < 0:
            raise ValueError(f"every must be at least 0, not {self.every}")
        if self.sequences < 1:
            raise ValueError(f"sequences must be at least 1, not {self.sequences}")

"""Settings of what is told of sets of texts."""

from dataclasses import dataclass


@dataclass(kw_only=True)
class StatisticsSettings:
    """Of the table and the histogram."""

    bins: int = 32
    """Of the histogram."""

    def __post_init__(self) -> None:
        if self.bins < 1:
            raise ValueError(f"bins must be at least 1, not {self.bins}")

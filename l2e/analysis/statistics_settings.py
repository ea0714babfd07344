"""Settings of what is told of sets of texts."""

from dataclasses import dataclass

from l2e.errors import require


@dataclass(kw_only=True)
class StatisticsSettings:
    """Of the table and the histogram."""

    bins: int = 32
    """Of the histogram."""

    def __post_init__(self) -> None:
        require(self.bins >= 1, "bins", "at least 1", self.bins)

"""Settings of the profiler."""

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class ProfileConfig:
    """Which updates are profiled, by which processes; the result lies in runs/<name>/profile."""

    steps: list[int] | None = None
    """First and last update, counted from 1 as in metrics.jsonl; null: none. A few are plenty: 5 MB each and more."""

    ranks: list[int] = field(default_factory=lambda: [0])
    """Processes that profile themselves."""

    def __post_init__(self) -> None:
        if self.steps is not None and (len(self.steps) != 2 or not 1 <= self.steps[0] <= self.steps[1]):
            raise ValueError(f"steps must be the first and the last update, from 1 on, or null, not {self.steps}")
        if not self.ranks or min(self.ranks) < 0:
            raise ValueError(f"ranks must be numbers of processes, from 0 on, not {self.ranks}")

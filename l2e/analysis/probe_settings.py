"""Settings of `l2e.analysis.probing`, and of what is drawn of it."""

from dataclasses import dataclass
from typing import Literal

from l2e.errors import require

Solver = Literal["saga", "newton"]


@dataclass(kw_only=True)
class ProbeSettings:
    """Single-neuron probes, and what is drawn of them. The defaults are the published protocol."""

    test_share: float = 0.3
    """Part of the sequences that the probes do not see."""

    split_seed: int = 42
    """Of the split."""

    ranked: int = 30
    """Neurons that are probed per layer and label."""

    solver: Solver = "saga"
    """`saga`: scikit-learn's, as published. `newton`: the exact minimum, 3 to 15 times as fast; F1 differs by 0.002."""

    top: int = 10
    """Neurons whose mean F1 stands for a model (L06, Fig 10)."""

    cut: float = 0.9
    """F1 above which a neuron counts as one of its label (L30)."""

    jobs: int | None = None
    """Threads; null: one per core."""

    compare: str | None = None
    """A CSV like Gurnee's interpretable_neurons/*/*.csv, whose neurons are probed and put beside."""

    compare_dataset: str | None = None
    """Which rows of it: the beginning of their `dataset`; null: what belongs to the feature set's name."""

    def __post_init__(self) -> None:
        require(0 < self.test_share < 1, "test_share", "in (0, 1)", self.test_share)
        require(self.ranked >= 1, "ranked", "at least 1", self.ranked)
        require(self.top >= 1, "top", "at least 1", self.top)
        require(0 <= self.cut < 1, "cut", "in [0, 1)", self.cut)
        require(self.jobs is None or self.jobs >= 1, "jobs", "at least 1 or null", self.jobs)

"""Settings of the toy models' benchmark."""

from dataclasses import dataclass, field
from typing import Literal

import torch

from l2e.analysis.toy.plans import RATES


@dataclass(kw_only=True)
class ToyBenchmarkConfig:
    """The sweep and how much of it is timed."""

    kind: Literal["toy"] = "toy"

    lrs: list[float] = field(default_factory=lambda: list(RATES))
    """Learning rates of the sweep."""

    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])
    """Seeds of the sweep."""

    steps: int = 20
    """Steps of each run in one timing."""

    rounds: int = 5
    """Timings of each way."""

    threads: int | None = None
    """Threads of torch on a CPU; null leaves them as they are."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes the GPU if there is one."""

    def __post_init__(self) -> None:
        for key in ("steps", "rounds", "threads"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ValueError(f"{key} must be at least 1, not {value}")
        if not self.lrs or not self.seeds:
            raise ValueError("lrs and seeds must name at least one run")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device: torch sees no GPU here; take cpu")

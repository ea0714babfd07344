"""Settings of the benchmark of activations."""

from dataclasses import dataclass, field
from typing import Literal

import torch

from l2e.analysis.activation_settings import ActivationSettings


@dataclass(kw_only=True)
class ActivationsBenchmarkConfig:
    """Which model answers to how many made-up sequences, how often."""

    kind: Literal["activations"] = "activations"

    model: str = "pythia-14m"
    """One of the Pythia sizes, or `tiny`."""

    sequences: int = 16
    """Of random tokens; the published Natural Language has 28,084."""

    window: int = 512
    """Tokens of the longest."""

    shortest: int = 256
    """Tokens of the shortest; lengths are drawn evenly from there to the window."""

    rounds: int = 5
    """Timings of each."""

    naive: bool = True
    """Whether the naive way is measured too. It keeps every position of every sequence: 4 x sequences x window x
    layers x width bytes, twice while it concatenates."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes the GPU if there is one."""

    threads: int = 1
    """Threads of torch on a CPU."""

    folder: str | None = None
    """Where the temporary files are made; null: where the system keeps such."""

    activations: ActivationSettings = field(default_factory=lambda: ActivationSettings(memory_mib=64))
    """As in an analysis; `precision` is that of the other ways too."""

    def __post_init__(self) -> None:
        for key in ("sequences", "rounds", "threads"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key} must be at least 1, not {getattr(self, key)}")
        if not 2 <= self.shortest <= self.window:
            raise ValueError(f"shortest must lie in 2 to window, {self.window}, not {self.shortest}")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device: torch sees no GPU here; take cpu")

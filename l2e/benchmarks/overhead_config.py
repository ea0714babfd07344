"""Settings of the overhead benchmark."""

from dataclasses import dataclass, field
from typing import Literal, get_args, get_type_hints

import torch

from l2e.benchmarks.arguments import require_precision, require_whole
from l2e.inhibition import InhibitionConfig, select_blocks
from l2e.models import pythia_size


def all_methods() -> list[str]:
    """Every method that `attach` knows."""
    return list(get_args(get_type_hints(InhibitionConfig)["method"]))


@dataclass(kw_only=True)
class OverheadConfig:
    """What is trained, with which methods, for how long."""

    kind: Literal["overhead"] = "overhead"

    model: str = "pythia-14m"
    """One of the Pythia sizes, or `tiny`."""

    batch_size: int = 8
    """Sequences of a step: one micro-batch."""

    seq_length: int = 512
    """Tokens of a sequence."""

    methods: list[str] = field(default_factory=all_methods)
    """What is held against `none`. `none` itself among them shows the noise: its ratio should be 1."""

    rounds: int = 10
    """Timings of each method."""

    steps: int | None = None
    """Steps of a timing; null: as many as fill a second."""

    untimed_steps: int = 1
    """Steps before each timing, at least 0."""

    precision: Literal["fp32", "bf16"] = "fp32"
    """Of weights, activations and the optimizer."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes the GPU if there is one."""

    threads: int | None = None
    """Threads of torch on a CPU; null leaves them as they are."""

    blocks: str | list[int] = "middle-2"
    """Tapped blocks."""

    weight: float = 1e-11
    """Of the penalty; 0 would leave the penalty out."""

    def __post_init__(self) -> None:
        require_whole(self, ("batch_size", "seq_length", "rounds", "steps", "threads"))
        require_whole(self, ("untimed_steps",), least=0)
        require_precision(self.precision)
        if self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"device must be one of auto, cpu, cuda, not {self.device!r}")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device: torch sees no GPU here; take cpu")
        if not self.weight > 0:
            raise ValueError(f"weight must be above 0, or there is no penalty to time, not {self.weight}")
        select_blocks(pythia_size(self.model).layers, self.blocks)
        self._check_methods()

    def _check_methods(self) -> None:
        if not isinstance(self.methods, list) or not self.methods or len(set(self.methods)) != len(self.methods):
            raise ValueError(f'methods must be a list such as ["none", "l2e"], each once, not {self.methods!r}')
        for method in self.methods:
            if method not in all_methods():
                raise ValueError(f"methods: each must be one of {', '.join(all_methods())}, not {method!r}")

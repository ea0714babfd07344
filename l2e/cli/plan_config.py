"""Settings of scripts/plan.py."""

from dataclasses import dataclass
from typing import Literal

from l2e.cli.pretrain_config import PretrainConfig


@dataclass(kw_only=True)
class PlanConfig(PretrainConfig):
    """The settings of a training run, and of the GPUs that it is to use."""

    gpus: int
    """Ranks of the run, one GPU each."""

    gpus_per_node: int
    """Of the cluster."""

    gpu: Literal["H200", "H100", "A100-80", "A100-40", "L40S", "V100-32"]
    """Peak and memory by name."""

    memory_gib: float | None
    """In place of the named GPU's memory."""

    peak_tflops: float | None
    """In place of the named GPU's peak in the run's precision."""

    mfu: float
    """Share of the peak that is assumed, in (0, 1]."""

    from_run: str | None
    """A run directory whose measured throughput is taken in place of `mfu`."""

    context_gib: float
    """Assumed: CUDA context, NCCL, cuBLAS."""

    fragmentation: float
    """Assumed: share of all else that the allocator cannot use, at least 0."""

    output: str | None
    """Folder for plan.json and plan.md; null writes none."""

    strict: bool
    """End with exit code 2 when something keeps the run from starting."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, lowest in (("gpus", 1), ("gpus_per_node", 1), ("context_gib", 0), ("fragmentation", 0)):
            if getattr(self, key) < lowest:
                raise ValueError(f"{key} must be at least {lowest}, not {getattr(self, key)}")
        if not 0 < self.mfu <= 1:
            raise ValueError(f"mfu must lie in (0, 1], not {self.mfu}")
        for key in ("memory_gib", "peak_tflops"):
            if (value := getattr(self, key)) is not None and value <= 0:
                raise ValueError(f"{key} must be above 0 or null, not {value}")

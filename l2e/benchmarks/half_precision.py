"""What a penalty does in half precision: its strength at the taps, and how much of it rounding takes away.

    python -m l2e.benchmarks.half_precision model=pythia-70m       # needs torch and transformers alone

A model trains on random tokens at its published micro-batch, with the published weight, with the strength held, and
with the strength held and gradients rounded at random.

results, of each, the means over taps after the last update: `strength` (|penalty gradient| / |gradient of the
cross-entropy| at the tap) and `absorbed` (share of the selected outputs whose gradient the precision left unchanged).
"""

import math
import sys
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

import l2e
from l2e.benchmarks.arguments import require_precision, require_whole, run_from_arguments
from l2e.benchmarks.report import device_name, versions
from l2e.benchmarks.training_step import TrainingStep
from l2e.models import pythia_size
from l2e.training.config import TrainingConfig

CASES: dict[str, dict[str, Any]] = {
    "published weight": {"weight": 1e-11},
    "strength 0.01": {"strength": 0.01},
    "strength 0.01, rounded at random": {"strength": 0.01, "stochastic_rounding": True},
}


@dataclass(kw_only=True)
class HalfPrecisionConfig:
    """What is trained for how long."""

    model: str = "pythia-70m"
    micro_batch_size: int | None = None
    """Sequences; null: the published."""

    seq_length: int = 2048
    updates: int = 30
    precision: Literal["fp32", "bf16"] = "bf16"

    def __post_init__(self) -> None:
        require_whole(self, ("micro_batch_size", "seq_length"))
        require_whole(self, ("updates",), least=10)
        require_precision(self.precision)
        pythia_size(self.model)


def run(config: HalfPrecisionConfig) -> dict[str, Any]:
    """Measure; returns the result to be printed."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {
        "benchmark": "half_precision",
        "device": device_name(device),
        "versions": versions("triton"),
        "results": {name: measure(config, settings, device) for name, settings in CASES.items()},
        "settings": asdict(config),
    }


def measure(config: HalfPrecisionConfig, settings: dict[str, Any], device: torch.device) -> dict[str, float | None]:
    """Of one case; null where no tap tells a number."""
    training = TrainingConfig(
        steps=1,
        batch_size=config.micro_batch_size or pythia_size(config.model).micro_batch_size,
        seq_length=config.seq_length,
        lr=1.0,
        precision=config.precision,
    )
    work = TrainingStep(config.model, training, device)
    inhibition = l2e.attach(work.model, late_start=4, warmup=1, **settings)
    work.steps(inhibition, config.updates)
    metrics = inhibition.metrics()
    return {
        name: _mean(value for key, value in metrics.items() if key.endswith(f"/{name}"))
        for name in ("strength", "absorbed")
    }


def _mean(values: Any) -> float | None:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else None


if __name__ == "__main__":
    sys.exit(run_from_arguments(HalfPrecisionConfig, run, sys.argv[1:]))

"""Table 2 of L2E beside a measured step: the paper's times, and what ours would be on as many GPUs."""

from typing import Any

from l2e.models.flops import flops_per_token
from l2e.models.sizes import PYTHIA

SEQUENCES, LENGTH = 1024, 2048
"""Of an update of the paper."""

READINGS = (24, 8)
"""GPUs that worked on a run: the paper names 24 H100s, over which 1024 sequences do not divide; or 8 of them."""

H100_TFLOPS = 989.4
"""Of bf16 or fp16 with fp32 sums; see `l2e.training.device_peak`."""

MILLISECONDS = {
    "70M": {"none": 605.8, "memel": 664.8, "l2e": 626.5},
    "410M": {"none": 2383.1, "memel": 2727.3, "l2e": 2432.2},
    "2.8B": {"none": 11285.1, "memel": 14330.8, "l2e": 11451.7},
}
"""Average time of a step (method.md, Table 2)."""


def label(model: str) -> str:
    """As the paper calls a size: "pythia-2.8b" is "2.8B"."""
    return model.removeprefix("pythia-").upper() if model.startswith("pythia-") else model


def projected(tokens_per_second: float) -> dict[str, float]:
    """Milliseconds of the paper's update on as many GPUs of this speed, none of it spent on communication."""
    return {f"{gpus}_gpus": 1000 * SEQUENCES * LENGTH / (tokens_per_second * gpus) for gpus in READINGS}


def paper_row(model: str) -> dict[str, Any] | None:
    """The paper's times of a size, what a method adds in percent, and the MFU that the baseline stands for.

    Returns:
        None for a size that is not in the table.
    """
    times = MILLISECONDS.get(label(model))
    if times is None:
        return None
    flops = SEQUENCES * LENGTH * flops_per_token(PYTHIA[model], LENGTH)
    return {
        "step_ms": times,
        "overhead_percent": {name: 100 * (ms / times["none"] - 1) for name, ms in times.items() if name != "none"},
        "mfu": {f"{gpus}_gpus": flops / (times["none"] / 1000 * gpus * H100_TFLOPS * 1e12) for gpus in READINGS},
    }

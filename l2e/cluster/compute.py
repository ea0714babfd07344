"""Floating-point operations and time of a run.

time of an update = tokens of an update x FLOPs of a token / (GPUs x peak FLOP/s x MFU)

with the FLOPs of `l2e.models.flops`: matrix products alone, attention whole, recomputation not counted. Checkpoints,
evaluation and waiting in a queue are not in it.
"""

from dataclasses import dataclass

from l2e.cluster.workload import Workload
from l2e.models.flops import flops_per_token


@dataclass(frozen=True, kw_only=True)
class Compute:
    """What a run costs.

    Attributes:
        flops_per_token: of a forward and backward pass.
        flops_per_update: of the global batch.
        flops: of the whole run.
        mfu: share of the peak that the time is computed with.
        seconds_per_update: over all GPUs together.
        tokens_per_second: of all GPUs together.
        hours: of the whole run.
        gpu_hours: hours x GPUs.
    """

    flops_per_token: float
    flops_per_update: float
    flops: float
    mfu: float
    seconds_per_update: float
    tokens_per_second: float
    hours: float
    gpu_hours: float


def compute(work: Workload, *, peak_tflops: float, mfu: float) -> Compute:
    """Time of a run at a share `mfu` of each GPU's peak."""
    each = flops_per_token(work.size, work.training.seq_length)
    update = each * work.tokens_per_update
    seconds = update / (work.gpus * peak_tflops * 1e12 * mfu)
    hours = seconds * work.training.steps / 3600
    return Compute(
        flops_per_token=each,
        flops_per_update=update,
        flops=update * work.training.steps,
        mfu=mfu,
        seconds_per_update=seconds,
        tokens_per_second=work.tokens_per_update / seconds,
        hours=hours,
        gpu_hours=hours * work.gpus,
    )


def implied_mfu(work: Workload, *, seconds_per_update: float, peak_tflops: float) -> float:
    """The share of the peak that a measured time of an update stands for."""
    return compute(work, peak_tflops=peak_tflops, mfu=1.0).seconds_per_update / seconds_per_update

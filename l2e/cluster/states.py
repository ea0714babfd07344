"""Bytes that DeepSpeed keeps on a rank for weights, gradients and optimizer, by ZeRO stage and precision.

Which parts exist, and in which precision, was read in DeepSpeed 0.19's `engine.py`, `bf16_optimizer.py`,
`fp16/unfused_optimizer.py`, `zero/stage_1_and_2.py` and `zero/stage3.py` for the settings that
`l2e.training.engine` gives it, and is compared with a real engine's tensors in tests/cluster.
"""

from dataclasses import dataclass

from l2e.cluster.workload import Workload, parameters, tensor_sizes

_WITHOUT_ZERO = 500_000_000
"""Elements that DeepSpeed reduces at a time where no stage of ZeRO does it (`MEMORY_OPT_ALLREDUCE_SIZE`)."""

LIVE = 1_000_000_000
"""ZeRO-3 may keep this many gathered weights (`stage3_max_live_parameters`, `stage3_max_reuse_distance`)."""

SUB_GROUP = 1_000_000_000
"""ZeRO-3 steps through its part in pieces of this many weights (`sub_group_size`)."""


@dataclass(frozen=True, kw_only=True)
class States:
    """Bytes on one rank.

    Attributes:
        weights: in the precision of training; ZeRO-3's own part.
        gathered_weights: whole weights that ZeRO-3 holds besides its part.
        master_weights: the fp32 copy that the optimizer updates.
        adam_moments: both, fp32.
        gradients: of one backward pass, held until they are reduced.
        buffers: gradients that live from one micro-batch to the next in a form of their own.
        largest_gradient: the largest single one, which exists before it is added to the others.
        bucket: reduction buffer during the backward pass.
        bucket_stays: whether it also exists outside.
        reduction: gradients, and copies of them, while they are reduced.
        step: likewise during the optimizer's step.
    """

    weights: float
    gathered_weights: float = 0
    master_weights: float = 0
    adam_moments: float
    gradients: float = 0
    buffers: float = 0
    largest_gradient: float
    bucket: float = 0
    bucket_stays: bool = False
    reduction: float
    step: float


def states(work: Workload) -> States:
    """The parts for a run's stage, precision and number of ranks."""
    stage, half = work.deepspeed.stage, work.training.precision != "fp32"
    if stage == 0:
        return _without_zero(work, half)
    if stage == 3:
        return _stage_3(work)
    if stage == 1 and work.training.precision == "bf16":
        return _bf16_optimizer(work)
    return _stage_1_or_2(work)


def partition(work: Workload) -> int:
    """Elements of one rank's part under ZeRO-1 and 2: each group padded to a multiple of 2 x ranks."""
    unit = 2 * work.gpus
    return sum(-(-sum(group) // unit) * 2 for group in tensor_sizes(work.size))


def partition_3(work: Workload) -> int:
    """Elements of one rank's part under ZeRO-3, where each weight is padded on its own."""
    return sum(-(-count // work.gpus) for group in tensor_sizes(work.size) for count in group)


def _without_zero(work: Workload, half: bool) -> States:
    count, each = parameters(work.size), work.bytes_each
    return States(
        weights=each * count,
        master_weights=4 * count if half else 0,
        adam_moments=8 * count,
        gradients=each * count,
        largest_gradient=each * _largest(work),
        reduction=each * (count + min(count, _WITHOUT_ZERO)),  # copied into one tensor to be reduced
        step=(each + (4 if half else 0)) * count,  # FP16_UnfusedOptimizer makes fp32 gradients
    )


def _bf16_optimizer(work: Workload) -> States:
    """ZeRO-1 in bf16 with fp32 accumulation: the fp32 gradients are not divided over the ranks."""
    part, count = partition(work), parameters(work.size)
    whole = part * work.gpus
    copied = whole if sum(tensor_sizes(work.size)[0]) <= _WITHOUT_ZERO else 0  # one large tensor is reduced in place
    converted = 0 if _travelling(work) == 4 else _travelling(work) * whole
    return States(
        weights=2 * whole,
        master_weights=4 * part,
        adam_moments=8 * part,
        gradients=2 * count,
        buffers=4 * whole,
        largest_gradient=2 * _largest(work),
        reduction=2 * count + 4 * copied + converted,
        step=2 * count,
    )


def _stage_1_or_2(work: Workload) -> States:
    part, count, each = partition(work), parameters(work.size), work.bytes_each
    largest, first = each * _largest(work), work.deepspeed.stage == 1
    accumulated = 4 if work.training.precision == "bf16" else each
    # The step flattens its part, and takes it to fp32 where it is not; ZeRO-2's fp32 part of a bf16 run is flat.
    flattened = 0 if accumulated > each else each * part + (4 * part if each == 2 else 0)
    return States(
        weights=each * part * work.gpus,
        master_weights=4 * part,
        adam_moments=8 * part,
        gradients=each * count if first else 0,
        buffers=0 if first else accumulated * part,
        largest_gradient=largest,
        bucket=each * bucket(work),
        # Gradients move into the bucket, whose content is copied once more to be reduced.
        reduction=_reduced(work) + (each * max(0, count - bucket(work)) if first else 0) + largest,
        step=flattened + (each * part if first else 0),
    )


def _stage_3(work: Workload) -> States:
    part, count, each = partition_3(work), parameters(work.size), work.bytes_each
    largest = each * _largest(work)
    return States(
        weights=each * part,
        gathered_weights=each * min(count, LIVE) if work.gpus > 1 else 0,
        master_weights=4 * part,
        adam_moments=8 * part,
        buffers=(2 if work.training.precision == "fp16" else 4) * part,
        largest_gradient=largest,
        bucket=_travelling(work) * bucket(work),
        bucket_stays=True,
        reduction=_travelling(work) * bucket(work) + largest,
        step=4 * min(part, SUB_GROUP),
    )


def bucket(work: Workload) -> int:
    """Elements of the reduction buffer, which is allocated whole: `l2e.training.deepspeed_settings` caps it."""
    return min(work.deepspeed.reduce_bucket_size, (parameters(work.size) + 1) // 2 * 2)


def _reduced(work: Workload) -> int:
    """Bytes of copies of the bucket while ZeRO-1 or 2 reduce it: flat, and once more to travel in another precision."""
    travelling = _travelling(work)
    return bucket(work) * (travelling if travelling == work.bytes_each else travelling + work.bytes_each)


def _travelling(work: Workload) -> int:
    """Bytes of a gradient on its way to the other ranks."""
    kind = work.deepspeed.communication_dtype or ("fp16" if work.training.precision == "fp16" else "fp32")
    return 4 if kind == "fp32" else 2


def _largest(work: Workload) -> int:
    return max(tensor_sizes(work.size)[0])

"""What stands in a run's way, and what would help, with the numbers."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from l2e.cluster.memory import GIB, Allowance, Memory, peak_memory
from l2e.cluster.workload import Workload


def problems(work: Workload, memory_gib: float, *, bf16: bool = True, allowance: Allowance | None = None) -> list[str]:
    """What keeps the run from starting on GPUs of `memory_gib`, one sentence each; empty when nothing does."""
    found = [*_division(work)]
    if work.training.precision == "bf16" and not bf16:
        found.append("training.precision: this GPU has no bf16; take fp16")
    peak = peak_memory(work, allowance)
    if peak.total > memory_gib * GIB:
        found.append(_does_not_fit(work, peak, memory_gib, allowance))
    return found


def _division(work: Workload) -> Iterator[str]:
    """How the batch must divide over ranks and micro-batches; what `TrainingConfig.micro_batch` refuses."""
    batch, gpus = work.training.batch_size, work.gpus
    if batch % gpus:
        below = max(count for count in range(1, gpus) if batch % count == 0)
        above = next((count for count in range(gpus + 1, batch + 1) if batch % count == 0), None)
        near = f"{below} or {above} GPUs do" if above else f"{below} GPUs do"
        step = f"training.batch_size={round(batch / gpus) * gpus or gpus}"
        yield f"gpus: {batch} sequences do not divide over {gpus}; {near}, or {step} for another batch"
        return
    each = batch // gpus
    if each % work.micro_batch:
        fitting = [count for count in range(1, each + 1) if each % count == 0]
        nearest = min(fitting, key=lambda count: abs(count - work.micro_batch))
        yield (
            f"training.micro_batch_size: {work.micro_batch} does not divide the {each} sequences of a rank; "
            f"the nearest that does is {nearest}"
        )


def _does_not_fit(work: Workload, peak: Memory, memory_gib: float, allowance: Allowance | None) -> str:
    largest, size = peak.largest, peak.parts[peak.largest]
    remedies = [
        f"{change} needs {needs:.1f} GiB" + ("" if needs <= memory_gib else " (still too much)")
        for change, needs in _remedies(work, memory_gib, allowance)
    ]
    text = (
        f"memory: {peak.total / GIB:.1f} GiB do not fit into {memory_gib:.1f} GiB; the largest part is {largest}, "
        f"{size / GIB:.1f} GiB, in the {peak.moment}"
    )
    return f"{text}. {'; '.join(remedies)}" if remedies else f"{text}. No setting here makes it smaller"


def _remedies(work: Workload, memory_gib: float, allowance: Allowance | None) -> Iterator[tuple[str, float]]:
    """Changes that lessen the peak, with what each then needs in GiB."""

    def needs(changed: Workload) -> float:
        return peak_memory(changed, allowance).total / GIB

    now = needs(work)
    choices: list[tuple[str, Workload]] = []
    micro = _micro_batch_that_fits(work, memory_gib, needs)
    if micro:
        choices.append((f"training.micro_batch_size={micro}", _with(work, micro_batch_size=micro)))
    if not work.training.activation_checkpointing:
        choices.append(("training.activation_checkpointing=true", _with(work, activation_checkpointing=True)))
    if work.gpus > 1:
        for stage in range(work.deepspeed.stage + 1, 4):
            zero = replace(work.deepspeed, stage=stage)  # type: ignore[arg-type]
            choices.append((f"deepspeed=zero{stage}", replace(work, deepspeed=zero)))
    for change, changed in choices:
        if (then := needs(changed)) < 0.98 * now:
            yield change, then


def _micro_batch_that_fits(work: Workload, memory_gib: float, needs: Any) -> int | None:
    """The largest smaller micro-batch that fits, else 1; None when there is no smaller one."""
    batch = work.training.batch_size
    each = batch // work.gpus if batch % work.gpus == 0 else batch
    smaller = [count for count in range(work.micro_batch - 1, 0, -1) if each % count == 0]
    fitting = (count for count in smaller if needs(_with(work, micro_batch_size=count)) <= memory_gib)
    return next(fitting, smaller[-1] if smaller else None)


def _with(work: Workload, **training: Any) -> Workload:
    return replace(work, training=replace(work.training, **training))

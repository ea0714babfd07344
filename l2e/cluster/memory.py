"""Peak memory of one GPU, by part."""

from dataclasses import dataclass

from l2e.cluster.activations import Activations, activations, inhibition_state
from l2e.cluster.states import States, states
from l2e.cluster.workload import Workload

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """What no formula gives: assumptions, to be replaced by a measurement."""

    context_gib: float = 1.5
    """CUDA context, NCCL's buffers, cuBLAS workspaces."""

    fragmentation: float = 0.05
    """Share of all else that the caching allocator holds but cannot use."""


@dataclass(frozen=True)
class Memory:
    """Bytes at the moment of the peak.

    Attributes:
        moment: when that is.
        parts: name to bytes; they add up to `total`.
    """

    moment: str
    parts: dict[str, float]

    @property
    def total(self) -> float:
        """Bytes of all parts."""
        return sum(self.parts.values())

    @property
    def largest(self) -> str:
        """The largest part."""
        return max(self.parts, key=lambda name: self.parts[name])


def peak_memory(work: Workload, allowance: Allowance | None = None) -> Memory:
    """The moment of an update with the most memory, and what is there then.

    Five moments are compared: the backward pass of the head, when all activations exist; of the last block, the first
    to be passed backwards; its end, when all gradients exist; their reduction; the optimizer's step.
    """
    allowance = allowance or Allowance()
    moments = peaks(work)
    moment = max(moments, key=lambda name: sum(moments[name].values()))
    parts = {name: size for name, size in moments[moment].items() if size}
    parts["fragmentation (assumed)"] = allowance.fragmentation * sum(parts.values())
    parts["CUDA context (assumed)"] = allowance.context_gib * GIB
    return Memory(moment, parts)


def peaks(work: Workload) -> dict[str, dict[str, float]]:
    """Parts by moment, without allowances."""
    state, kept = states(work), activations(work)
    permanent = {
        "weights": state.weights,
        "gathered weights": state.gathered_weights,
        "master weights": state.master_weights,
        "Adam moments": state.adam_moments,
        "gradient buffers": state.buffers,
        "inhibition": inhibition_state(work),
    }
    # The gradients of earlier micro-batches; those of this one grow as the activations go.
    before = state.gradients if work.accumulation > 1 else 0
    return {
        "backward pass of the head": permanent | _head(state, kept, before),
        "backward pass of the last block": permanent | _last_block(state, kept, before),
        "end of the backward pass": permanent | _end(state, kept),
        "reduction of the gradients": permanent | {"gradients": state.reduction, "communication": state.bucket},
        "optimizer step": permanent
        | {"gradients": state.step, "communication": state.bucket if state.bucket_stays else 0},
    }


def _head(state: States, kept: Activations, gradients: float) -> dict[str, float]:
    return {
        "gradients": gradients,
        "communication": state.bucket,
        "activations": kept.blocks + kept.taps,
        "logits": kept.logits + kept.logits_backward,
    }


def _last_block(state: States, kept: Activations, gradients: float) -> dict[str, float]:
    return {
        "gradients": gradients + state.largest_gradient,
        "communication": state.bucket,
        "activations": kept.blocks - kept.final + kept.taps + max(kept.block_backward, kept.tap_workspace),
    }


def _end(state: States, kept: Activations) -> dict[str, float]:
    return {
        "gradients": state.gradients,
        "communication": state.bucket,
        "activations": kept.first_block + kept.block_backward,
    }

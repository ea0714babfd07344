"""The planner's activations against what autograd saves and what PyTorch allocates."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from workloads import workload

import l2e
from l2e.cluster.activations import activations, inhibition_state
from l2e.cluster.memory import peaks
from l2e.cluster.workload import Workload
from l2e.inhibition import Inhibition
from l2e.models import build_pythia
from l2e.training.fused_loss import fuse_loss
from l2e.training.loss import next_token_loss

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
L2E = {"method": "l2e", "weight": 1e-4, "late_start": 1, "warmup": 1}
MEMEL = {"method": "memel", "late_start": 1, "warmup": 1}


def build(work: Workload) -> tuple[nn.Module, Inhibition, Tensor]:
    """The model of a workload with its inhibition at work, and a micro-batch."""
    length = work.training.seq_length
    model = build_pythia(work.model.name, attention=work.model.attention, max_length=length)
    model = model.to(TYPES[work.training.precision]).train()
    if work.training.activation_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if work.training.loss_chunk:
        fuse_loss(model, work.training.loss_chunk)
    settings = L2E if work.inhibition.method == "l2e" else MEMEL if work.inhibition.method == "memel" else {}
    inhibition = l2e.attach(model, **({"method": "none"} | settings))
    tokens = torch.randint(0, 700, (work.micro_batch, length + 1))
    for _ in range(4 if settings else 0):
        loss(model, inhibition, tokens).backward()
        inhibition.step()
    model.zero_grad(set_to_none=True)
    return model, inhibition, tokens


def loss(model: nn.Module, inhibition: Inhibition, tokens: Tensor) -> Tensor:
    if getattr(model, "takes_targets", False):
        return model(input_ids=tokens[:, :-1], use_cache=False, targets=tokens[:, 1:]) + inhibition.penalty()
    logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
    return next_token_loss(logits, tokens[:, 1:]) + inhibition.penalty()


def saved_bytes(model: nn.Module, inhibition: Inhibition, tokens: Tensor) -> int:
    """Bytes of the storages that the graph of one forward pass holds, the model's own left out."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    found: dict[int, int] = {}
    held = []  # no storage may be freed and its address used again while we count

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        held.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss(model, inhibition, tokens)
    return sum(found.values())


CASES: dict[str, dict[str, Any]] = {
    "fp32": {"seq_length": 64},
    "bf16": {"seq_length": 64, "precision": "bf16"},
    "recomputed": {"seq_length": 64, "activation_checkpointing": True},
    "recomputed bf16": {"seq_length": 64, "precision": "bf16", "activation_checkpointing": True},
    "eager": {"seq_length": 64, "attention": "eager"},
    "eager bf16": {"seq_length": 64, "attention": "eager", "precision": "bf16"},
    "eager, one sequence": {"seq_length": 128, "attention": "eager", "batch_size": 1},
    "l2e": {"seq_length": 64, "inhibition": L2E},
    "memel bf16": {"seq_length": 64, "precision": "bf16", "inhibition": MEMEL},
    "14m": {"model": "pythia-14m", "seq_length": 128, "batch_size": 1},
    "70m": {"model": "pythia-70m", "seq_length": 64, "batch_size": 1},
    "fused": {"seq_length": 64, "loss_chunk": 16},
    "fused bf16": {"seq_length": 64, "loss_chunk": 16, "precision": "bf16"},
}


def planned(**options: Any) -> Workload:
    """All logits at once unless a case says otherwise: that is what `loss` does."""
    return workload(**({"loss_chunk": 0} | options))


@pytest.mark.parametrize("name", CASES)
def test_what_autograd_saves(name: str) -> None:
    work = planned(**CASES[name])
    plan = activations(work)
    assert plan.blocks + plan.taps + plan.logits == pytest.approx(saved_bytes(*build(work)), rel=0.02)


@pytest.mark.parametrize("name", CASES)
def test_blocks_alone(name: str) -> None:
    """Without the loss's part, which would hide an error at a vocabulary of 50,304 (it is exact: see above)."""
    work = planned(**CASES[name])
    measured = saved_bytes(*build(work)) - activations(work).logits
    plan = activations(work)
    assert plan.blocks + plan.taps == pytest.approx(measured, rel=0.05)


PEAKS: dict[str, dict[str, Any]] = {
    "head": {"model": "pythia-14m", "seq_length": 128, "batch_size": 1},
    "head bf16": {"model": "pythia-14m", "seq_length": 128, "batch_size": 2, "precision": "bf16"},
    "head, recomputed": {"model": "pythia-14m", "seq_length": 128, "batch_size": 1, "activation_checkpointing": True},
    "many tokens": {"seq_length": 128, "batch_size": 16, "activation_checkpointing": True},
    "many tokens, l2e": {"seq_length": 256, "batch_size": 16, "inhibition": L2E, "activation_checkpointing": True},
    "many tokens, bf16": {"seq_length": 128, "batch_size": 32, "activation_checkpointing": True, "precision": "bf16"},
    "few tokens": {"seq_length": 16, "batch_size": 1},
    "fused, chunks": {"model": "pythia-14m", "seq_length": 128, "batch_size": 8, "loss_chunk": 256},
    "fused, weight": {"model": "pythia-14m", "seq_length": 128, "batch_size": 1, "loss_chunk": 8},
    "fused, chunks bf16": {
        "model": "pythia-14m",
        "seq_length": 64,
        "batch_size": 8,
        "loss_chunk": 256,
        "precision": "bf16",
    },
}


SLOW = ("fused, chunks bf16", "head bf16", "many tokens, l2e", "many tokens, bf16")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in PEAKS])
def test_peak_of_forward_and_backward(name: str) -> None:
    """All that is allocated and not yet freed, at most, from PyTorch's own record of allocations."""
    work = planned(stage=0, **PEAKS[name])
    model, inhibition, tokens = build(work)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        loss(model, inhibition, tokens).backward()
    level = top = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            level += event.nbytes()
            top = max(top, level)
    transient = ("gradients", "activations", "logits")
    moments = {moment: parts for moment, parts in peaks(work).items() if "backward" in moment}
    sums = {moment: sum(parts[p] for p in transient if p in parts) for moment, parts in moments.items()}
    assert max(sums.values()) == pytest.approx(top, rel=0.1), sums


def test_state_of_the_taps() -> None:
    work = workload(seq_length=64, inhibition=L2E)
    model, inhibition, tokens = build(work)
    loss(model, inhibition, tokens)  # the sums of an update exist
    held = set()
    for tap in inhibition.taps.values():
        statistics = tap.statistics
        assert statistics.moments is not None
        assert statistics._sums is not None
        tensors = (statistics.moments.mean, statistics.moments.var, statistics._sums.first, statistics._sums.second)
        held |= {(t.untyped_storage().data_ptr(), t.untyped_storage().nbytes()) for t in tensors}
        held.add((statistics._sums.shift.untyped_storage().data_ptr(), statistics._sums.shift.nbytes))
    assert inhibition_state(work) == sum(size for _, size in held)
    assert inhibition_state(work) == 2 * 4 * 64 * 128 * 4  # two taps, four statistics of 64 x 128 in fp32
    pooled = workload(seq_length=64, inhibition=L2E | {"neurons": "channel"})
    assert inhibition_state(pooled) == 2 * 4 * 128 * 4

"""Activation checkpointing of both kinds, compiled blocks, several and interrupted forward passes."""

import copy
from typing import Any

import pytest
import torch
from small_networks import SETTINGS, Network, batches, train
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.utils.checkpoint import checkpoint

import l2e
from l2e.inhibition.methods import METHODS

METHOD_NAMES = [name for name in METHODS if name != "none"]


def result(method: str, recompute: str | None, parts: int = 1, **settings: Any) -> tuple[list[Tensor], str]:
    """Weights and state after training; any difference in counting or in a gradient shows in them."""
    model = Network(recompute)
    inhibition = l2e.attach(model, method, **({**SETTINGS, "weight": 0.05} | settings))
    torch.manual_seed(7)
    train(model, inhibition, batches(8), parts)
    return [parameter.detach() for parameter in model.parameters()], str(inhibition.state_dict()["taps"])


@pytest.mark.parametrize("kind", ["reentrant", "not reentrant"])
@pytest.mark.parametrize("scope", ["step", "micro_batch"])
@pytest.mark.parametrize("method", METHOD_NAMES)
def test_recomputing_blocks_changes_nothing_at_all(method: str, scope: str, kind: str) -> None:
    plain, state = result(method, None, parts=2, scope=scope)
    again, state_again = result(method, kind, parts=2, scope=scope)
    assert state_again == state
    for one, two in zip(plain, again, strict=True):
        assert torch.equal(one, two)
    untouched, _ = result("none", None)
    assert not torch.equal(plain[0], untouched[0])


@pytest.mark.parametrize("kind", ["reentrant", "not reentrant"])
def test_the_value_of_the_penalty_is_the_same_under_recomputation(kind: str) -> None:
    values = []
    for recompute in (None, kind):
        model = Network(recompute)
        inhibition = l2e.attach(model, **SETTINGS, weight=0.05)
        train(model, inhibition, batches(3))
        model(batches(1)[0])
        values.append(inhibition.penalty().item())
    assert values[0] == values[1] != 0


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("method", ["l2e", "memel"])
def test_blocks_recomputed_together(method: str, reentrant: bool) -> None:
    """One checkpoint over three blocks: what a tap changes is used within the recomputed part."""

    class Segment(nn.Module):
        def __init__(self, recompute: bool) -> None:
            super().__init__()
            self.inner, self.recompute = Network(), recompute

        def three(self, x: Tensor) -> Tensor:
            for block in self.inner.blocks[:3]:
                x = x + block(x)
            return x

        def forward(self, x: Tensor) -> Tensor:
            x = checkpoint(self.three, x.requires_grad_(), use_reentrant=reentrant) if self.recompute else self.three(x)
            return x + self.inner.blocks[3](x)

    found = []
    for recompute in (False, True):
        model = Segment(recompute)
        inhibition = l2e.attach(model, method, **SETTINGS, weight=0.05)
        train(model, inhibition, batches(6))
        found.append([parameter.detach().clone() for parameter in model.parameters()])
    for one, two in zip(*found, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("kind", [None, "reentrant", "not reentrant"])
@pytest.mark.parametrize("method", ["l2e", "l2e_no_threshold", "memel"])
def test_several_forward_passes_before_one_backward(method: str, kind: str | None) -> None:
    """Two half batches, one backward pass over the sum, equal to the passes one after the other."""
    found = []
    for together in (False, True):
        model = Network(kind)
        inhibition = l2e.attach(model, method, **SETTINGS, weight=0.05)
        for batch in batches(6):
            model.zero_grad()
            one, two = batch.chunk(2)
            if together:
                (model(one).square().mean() + model(two).square().mean() + inhibition.penalty()).backward()
            else:
                for part in (one, two):
                    (model(part).square().mean() + inhibition.penalty()).backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= 0.05 * parameter.grad
            inhibition.step()
        found.append([parameter.detach() for parameter in model.parameters()])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-7)


def test_passes_that_cannot_be_told_apart_are_refused() -> None:
    model = Network("not reentrant")
    inhibition = l2e.attach(model, "reverse_deactivation", **SETTINGS, scope="micro_batch")
    train(model, inhibition, batches(3))
    one, two = batches(2)
    loss = model(one).square().mean() + model(two).square().mean()
    with pytest.raises(RuntimeError, match="several forward passes were made before one backward pass"):
        loss.backward()
    model = Network("reentrant")
    inhibition = l2e.attach(model, **SETTINGS, scope="micro_batch", weight=0.05)
    train(model, inhibition, batches(3))
    loss = model(one).square().mean() + model(two).square().mean() + inhibition.penalty()
    with pytest.raises(RuntimeError, match="use scope=step and use_reentrant=False"):
        loss.backward()


@pytest.mark.parametrize("kind", [None, "reentrant", "not reentrant"])
def test_two_passes_whose_penalties_count_differently(kind: str | None) -> None:
    model = Network(kind)
    inhibition = l2e.attach(model, **SETTINGS, weight=0.05)
    train(model, inhibition, batches(3))
    gradients = []
    one, two = batches(2)
    model.zero_grad()
    loss = model(one).square().mean() + inhibition.penalty()
    (loss + 3 * (model(two).square().mean() + inhibition.penalty())).backward()
    gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    model.zero_grad()
    for factor, batch in ((1, one), (3, two)):
        (factor * (model(batch).square().mean() + inhibition.penalty())).backward()
    gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("what", ["blocks", "model"])
@pytest.mark.parametrize("method", ["l2e", "memel"])
def test_compiled_blocks_and_models(method: str, what: str) -> None:
    torch._dynamo.reset()
    counters["stats"].clear()
    model = Network()
    inhibition = l2e.attach(model, method, **SETTINGS, weight=0.05)
    if what == "blocks":
        for block in model.blocks:
            block.compile(backend="aot_eager")  # all of the compiler but its code generator, which needs a C++ one
        run: nn.Module = model
    else:
        run = torch.compile(model, backend="aot_eager")  # type: ignore[assignment]
    train(run, inhibition, batches(8), 2)
    assert counters["stats"]["unique_graphs"] > 0  # it did compile
    plain, _ = result(method, None, parts=2)
    for one, two in zip(plain, model.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)
    untouched, _ = result("none", None)
    assert (untouched[0] - plain[0]).abs().max() > 1e-3


def test_an_interrupted_forward_pass_leaves_no_trace() -> None:
    model = Network()
    inhibition = l2e.attach(model, **SETTINGS, weight=0.05)
    train(model, inhibition, batches(4))
    before = copy.deepcopy(inhibition.state_dict())
    twin = copy.deepcopy(model)
    other = l2e.attach(twin, **SETTINGS, weight=0.05)
    other.load_state_dict(before)

    def out_of_memory(*_: object) -> None:
        raise MemoryError

    fault = model.blocks[2].register_forward_pre_hook(out_of_memory)  # after the first of the two taps
    with pytest.raises(MemoryError):
        model(100 * batches(1, seed=3)[0])
    fault.remove()
    assert inhibition.penalty().item() == 0
    assert str(inhibition.state_dict()) == str(before)
    twin_losses = train(twin, other, batches(3, seed=4))
    assert train(model, inhibition, batches(3, seed=4)) == twin_losses
    assert str(inhibition.state_dict()) == str(other.state_dict())


def test_evaluation_between_forward_and_backward_and_between_updates() -> None:
    plain, disturbed = Network(), Network()
    one, two = l2e.attach(plain, **SETTINGS, weight=0.05), l2e.attach(disturbed, **SETTINGS, weight=0.05)
    other = 50 * batches(1, seed=8)[0]
    for batch in batches(6):
        for model, inhibition, look in ((plain, one, False), (disturbed, two, True)):
            model.zero_grad()
            loss = model(batch).square().mean() + inhibition.penalty()
            if look:
                model.eval()
                model(other)
                with torch.no_grad():
                    model.train()(other)
            loss.backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= 0.05 * parameter.grad
            inhibition.step()
    assert str(one.state_dict()) == str(two.state_dict())
    for a, b in zip(plain.parameters(), disturbed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_removed_and_attached_again_continues() -> None:
    whole, cut = Network(), Network()
    one = l2e.attach(whole, **SETTINGS, weight=0.05)
    train(whole, one, batches(8))
    two = l2e.attach(cut, **SETTINGS, weight=0.05)
    train(cut, two, batches(8)[:4])
    two.remove()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in cut.modules())
    three = l2e.attach(cut, **SETTINGS, weight=0.05)
    three.load_state_dict(two.state_dict())
    train(cut, three, batches(8)[4:])
    for a, b in zip(whole.parameters(), cut.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", [None, "not reentrant"])  # PyTorch refuses it on a reentrant checkpoint's output
@pytest.mark.parametrize("method", ["l2e", "memel"])
def test_outputs_that_the_model_changes_in_place(method: str, kind: str | None) -> None:
    class InPlace(Network):
        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                recompute = self.recompute is not None
                out = checkpoint(block, x.requires_grad_(), use_reentrant=False) if recompute else block(x)
                out += x
                x = out
            return x

    plain, _ = result(method, kind)
    model = InPlace(kind)
    inhibition = l2e.attach(model, method, **SETTINGS, weight=0.05)
    train(model, inhibition, batches(8)[:4])
    state = inhibition.state_dict()
    inhibition.remove()
    again = l2e.attach(model, method, **SETTINGS, weight=0.05)  # a restart must know of it too
    again.load_state_dict(state)
    train(model, again, batches(8)[4:])
    for one, two in zip(plain, model.parameters(), strict=True):
        assert torch.equal(one, two)

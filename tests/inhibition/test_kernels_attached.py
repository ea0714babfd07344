"""Training with Triton's kernels against training with PyTorch's: the same losses, metrics and weights."""

from typing import Any

import pytest
import torch
from small_networks import SETTINGS, Network, OneBlock, batches, train
from torch import Tensor

import l2e
from l2e.inhibition.kernels import missing, triton_ops

if (reason := missing()) is not None:
    pytest.skip(reason, allow_module_level=True)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

CASES: dict[str, dict[str, Any]] = {
    "l2e": {"weight": 0.05},
    "l2e, one weight for all": {"weight": 0.001, "reduction": "sum"},
    "l2e_no_threshold": {"method": "l2e_no_threshold", "weight": 0.05},
    "memel": {"method": "memel"},
    "reverse_deactivation": {"method": "reverse_deactivation", "delta": 0.5},
    "naive_a": {"method": "naive_a"},
    "naive_b": {"method": "naive_b"},
    "channel": {"weight": 0.05, "neurons": "channel"},
    "micro_batch": {"weight": 0.05, "scope": "micro_batch"},
    "MEmeL's code": {"method": "memel", "top_k": 1, "scope": "micro_batch", "count_offset": 1, "update_first": True},
    "strength": {"strength": 0.1},
    "observed": {"weight": 0.0},
}


def trained(
    kernel: str, settings: dict[str, Any], dtype: torch.dtype, data: list[Tensor], recompute: str | None = None
) -> tuple[list[float], dict[str, float], list[Tensor]]:
    model = Network(recompute).to(DEVICE, dtype)
    inhibition = l2e.attach(model, kernel=kernel, blocks=[1], **SETTINGS | settings)
    losses = train(model, inhibition, [batch.to(DEVICE, dtype) for batch in data])
    return losses, inhibition.metrics(), [parameter.detach() for parameter in model.parameters()]


def agree(case: str, dtype: torch.dtype, data: list[Tensor], recompute: str | None = None) -> None:
    found, expected = (trained(kernel, CASES[case], dtype, data, recompute) for kernel in ("triton", "torch"))
    half = dtype != torch.float32
    assert found[0] == pytest.approx(expected[0], rel=2e-3 if half else 1e-5)
    assert found[1] == pytest.approx(expected[1], rel=5e-2 if half else 1e-4, nan_ok=True)
    for one, other in zip(found[2], expected[2], strict=True):
        torch.testing.assert_close(one, other, rtol=2e-2 if half else 1e-4, atol=2e-3 if half else 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_a_few_updates_agree(case: str, dtype: torch.dtype) -> None:
    agree(case, dtype, batches(5, size=4))


def test_thirty_updates_agree() -> None:
    agree("l2e", torch.float32, batches(30, size=6))


@pytest.mark.parametrize("case", ["l2e", "memel", "strength"])
@pytest.mark.parametrize("recompute", ["reentrant", "other"])
def test_under_activation_checkpointing(recompute: str, case: str) -> None:
    agree(case, torch.float32, batches(5, size=4), recompute)


def test_the_penalty_changes_the_weights() -> None:
    """What the comparisons above would not see: two ways of doing nothing."""
    data = batches(5, size=4)
    without = trained("torch", CASES["observed"], torch.float32, data)
    for case in ("l2e", "memel", "strength"):
        weights = trained("triton", CASES[case], torch.float32, data)[2]
        assert any(not torch.equal(a, b) for a, b in zip(weights, without[2], strict=True)), case


def test_longer_and_shorter_sequences_agree() -> None:
    data = [batch[:, : 3 + index % 3] for index, batch in enumerate(batches(8, size=4))]
    agree("l2e", torch.float32, data)
    agree("channel", torch.float32, data)


def test_every_look_and_every_gradient_is_triton_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the warm-up: one call forwards and one backwards for each micro-batch."""
    calls: list[str] = []
    for name in ("gather", "look", "join_gradients", "scale_selected"):
        original = getattr(triton_ops, name)
        monkeypatch.setattr(
            triton_ops, name, lambda *args, name=name, original=original: calls.append(name) or original(*args)
        )
    data = batches(4, size=4)
    trained("triton", CASES["l2e"], torch.float32, data)
    assert calls == ["gather"] * 2 + ["look", "join_gradients"] * 2  # late start and warm-up: their sums alone
    calls.clear()
    trained("triton", CASES["reverse_deactivation"], torch.float32, data)
    assert calls == ["gather"] * 2 + ["look", "scale_selected"] * 2
    calls.clear()
    trained("auto" if DEVICE == "cpu" else "torch", CASES["l2e"], torch.float32, data)
    assert calls == []


def test_nothing_is_kept_for_the_backward_pass_but_the_outputs() -> None:
    model = OneBlock()
    inhibition = l2e.attach(model, blocks=["block"], weight=0.1, kernel="triton", **SETTINGS)
    *past, x = [batch.to(DEVICE) for batch in batches(3)]
    for batch in past:
        model(batch)
        inhibition.step()
    saved: list[Tensor] = []
    x = x.requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        result = model(x)
    assert [tensor.data_ptr() for tensor in saved] == [result.data_ptr()] == [x.data_ptr()]


def test_resumed_random_rounding_draws_the_same() -> None:
    def run(updates: list[Tensor], state: dict[str, Any] | None = None) -> tuple[list[Tensor], dict[str, Any]]:
        torch.manual_seed(0)
        model = OneBlock(torch.nn.Linear(8, 8)).to(DEVICE, torch.bfloat16)
        settings = SETTINGS | {"weight": 1e-3, "stochastic_rounding": True, "seed": 7}
        inhibition = l2e.attach(model, blocks=["block"], kernel="triton", **settings)
        if state is not None:
            inhibition.load_state_dict(state)
        gradients = []
        for batch in updates:
            x = batch.to(DEVICE, torch.bfloat16).requires_grad_()
            (model(x).float().square().sum() + inhibition.penalty()).backward()
            inhibition.step()
            gradients.append(x.grad)
        return gradients, inhibition.state_dict()

    data = batches(5, size=4)
    whole, _ = run(data)
    _, state = run(data[:3])
    resumed, _ = run(data[3:], state)
    assert all(torch.equal(a, b) for a, b in zip(whole[3:], resumed, strict=True))

"""The head and the cross-entropy in one, against PyTorch's own on all logits at once."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from small_training import build_trainer, small_model
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from l2e.models import build_pythia
from l2e.training.blocks import prepare_blocks
from l2e.training.config import TrainingConfig
from l2e.training.engine import process_group
from l2e.training.events import Callback
from l2e.training.fused_loss import fuse_loss, fused_loss
from l2e.training.trainer import Trainer

TOKENS, HIDDEN, VOCABULARY = 37, 24, 301


def inputs(dtype: torch.dtype = torch.float32, spread: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    hidden = torch.randn(TOKENS, HIDDEN, generator=generator, dtype=torch.float64) * spread
    weight = torch.randn(VOCABULARY, HIDDEN, generator=generator, dtype=torch.float64) / 4
    targets = torch.randint(VOCABULARY, (TOKENS,), generator=generator)
    return hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), targets


def exact(hidden: Tensor, weight: Tensor, targets: Tensor, factor: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """By PyTorch, in fp64 from the same rounded numbers."""
    wide = [tensor.detach().double().requires_grad_() for tensor in (hidden, weight)]
    loss = F.cross_entropy(wide[0] @ wide[1].T, targets)
    (loss * factor).backward()
    assert wide[0].grad is not None
    assert wide[1].grad is not None
    return loss.detach(), wide[0].grad, wide[1].grad


def error(found: Tensor | None, expected: Tensor) -> float:
    assert found is not None
    return float((found.detach().double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("chunk", [1, 5, 36, 37, 1000, None])
@pytest.mark.parametrize(("spread", "allowed"), [(1.0, 1e-6), (40.0, 1e-5)])  # 40: logits of hundreds, p near 1
def test_loss_and_gradients_in_fp32(chunk: int | None, spread: float, allowed: float) -> None:
    hidden, weight, targets = inputs(spread=spread)
    expected = exact(hidden, weight, targets, factor=0.3)
    loss = fused_loss(hidden, weight, targets, chunk)
    (loss * 0.3).backward()
    assert loss.dtype == torch.float32
    assert loss.dim() == 0
    for found, wanted in zip((loss, hidden.grad, weight.grad), expected, strict=True):
        assert error(found, wanted) < allowed


def test_by_hand() -> None:
    """Two tokens, three words; NumPy."""
    hidden = np.array([[1.0, 0.0], [0.5, 2.0]])
    weight = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    powers = np.exp(hidden @ weight.T)
    shares = powers / powers.sum(1, keepdims=True)
    gradient = (shares - np.array([[0, 0, 1], [0, 1, 0]])) / 2
    h, w = (torch.tensor(each, dtype=torch.float32, requires_grad=True) for each in (hidden, weight))
    loss = fused_loss(h, w, torch.tensor([2, 1]), chunk=1)
    loss.backward()
    assert loss.item() == pytest.approx(-(np.log(shares[0, 2]) + np.log(shares[1, 1])) / 2)
    np.testing.assert_allclose(h.grad, gradient @ weight, rtol=1e-5)
    np.testing.assert_allclose(w.grad, gradient.T @ hidden, rtol=1e-5)


@pytest.mark.parametrize(("dtype", "factor"), [(torch.bfloat16, 1.0), (torch.float16, 4096.0)])
def test_half_precision_is_as_good_as_pytorchs(dtype: torch.dtype, factor: float) -> None:
    """fp16 with Pythia's loss scale, without which small gradients are lost in either way."""
    hidden, weight, targets = inputs(dtype)
    expected = exact(hidden, weight, targets, factor)
    usual = [tensor.detach().requires_grad_() for tensor in (hidden, weight)]
    (F.cross_entropy((usual[0] @ usual[1].T).float(), targets) * factor).backward()
    (fused_loss(hidden, weight, targets, chunk=8) * factor).backward()
    for found, plain, wanted in zip((hidden, weight), usual, expected[1:], strict=True):
        assert found.grad is not None
        assert found.grad.dtype == dtype
        assert error(found.grad, wanted) < 1.3 * error(plain.grad, wanted) + 1e-4


def test_many_tokens_of_one_word_stay_in_fp16s_range() -> None:
    """Unscaled, the sum of 8000 gradients of -1 times 30 would be 240,000; fp16 ends at 65,504."""
    hidden = torch.full((8000, 4), 30.0, dtype=torch.float16, requires_grad=True)
    weight = torch.zeros(512, 4, dtype=torch.float16, requires_grad=True)
    fused_loss(hidden, weight, torch.zeros(8000, dtype=torch.int64), chunk=8000).backward()
    assert weight.grad is not None
    assert weight.grad[0, 0].item() == pytest.approx(30 * (1 / 512 - 1), rel=2e-3)


class Shapes(TorchDispatchMode):
    """The largest number of elements that an operation returns, matrix products apart or not."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor):
                self.largest = max(self.largest, tensor.numel())
        return result


def test_no_tensor_holds_all_logits() -> None:
    hidden, weight, targets = inputs()
    with Shapes() as shapes:
        fused_loss(hidden, weight, targets, chunk=4).backward()
    assert shapes.largest == VOCABULARY * HIDDEN  # the weight's gradient; 37 x 301 logits are more
    with Shapes() as shapes, torch.no_grad():
        fused_loss(hidden, weight, targets, chunk=4)
    assert shapes.largest == max(4 * VOCABULARY, TOKENS * HIDDEN, VOCABULARY * HIDDEN)
    with Shapes() as shapes:
        F.cross_entropy(hidden @ weight.T, targets)
    assert shapes.largest == TOKENS * VOCABULARY


def test_without_gradients_none_are_computed() -> None:
    hidden, weight, targets = inputs()
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU]) as record:
        loss = fused_loss(hidden, weight, targets, chunk=10)
    products = sum(event.count for event in record.key_averages() if event.key == "aten::mm")
    assert products == 4  # the logits of four chunks
    assert error(loss, exact(*inputs())[0]) < 1e-6


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_not_hidden(bad: float) -> None:
    hidden, weight, targets = inputs()
    with torch.no_grad():
        hidden[3, 1] = bad
    loss = fused_loss(hidden, weight, targets, chunk=8)
    loss.backward()
    assert not loss.isfinite()
    assert weight.grad is not None
    assert not weight.grad.isfinite().all()


def test_two_backward_passes_add_up() -> None:
    hidden, weight, targets = inputs()
    loss = fused_loss(hidden, weight, targets, chunk=8)
    loss.backward(retain_graph=True)
    loss.backward()
    assert error(weight.grad, 2 * exact(*inputs())[2]) < 1e-6


def model() -> Any:
    return build_pythia("tiny", vocab_size=VOCABULARY, max_length=32, seed=3).train()


def test_a_model_gives_the_loss_of_its_logits() -> None:
    usual, fused = model(), model()
    fuse_loss(fused, chunk=7)
    tokens = torch.randint(VOCABULARY, (3, 17), generator=torch.Generator().manual_seed(1))
    expected = F.cross_entropy(usual(tokens[:, :-1]).logits.flatten(0, 1), tokens[:, 1:].flatten())
    expected.backward()
    loss = fused(input_ids=tokens[:, :-1], use_cache=False, targets=tokens[:, 1:])
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for (name, one), two in zip(usual.named_parameters(), fused.parameters(), strict=True):
        assert one.grad is not None
        assert error(two.grad, one.grad.double()) < 5e-6, name
    assert torch.equal(usual(tokens).logits, fused(tokens).logits)


@pytest.mark.parametrize(("chunk", "fused"), [(None, True), (3, True), (0, False)])
def test_the_setting(chunk: int | None, fused: bool) -> None:
    prepared = model()
    training = TrainingConfig(steps=1, batch_size=1, seq_length=8, lr=1e-3, loss_chunk=chunk)
    prepare_blocks(prepared, training)
    assert getattr(prepared, "takes_targets", False) is fused
    with pytest.raises(ValueError, match="loss_chunk must be at least 0 or null, not -1"):
        TrainingConfig(steps=1, batch_size=1, seq_length=8, lr=1e-3, loss_chunk=-1)


@pytest.mark.slow  # compiles for some 20 s
def test_compiled() -> None:
    for dtype, allowed in ((torch.float32, 2e-6), (torch.bfloat16, 1e-2)):
        hidden, weight, targets = inputs(dtype)
        loss = fused_loss(hidden, weight, targets, chunk=8, compiled=True)
        loss.backward()
        expected = exact(hidden, weight, targets)
        for found, wanted in zip((loss, hidden.grad, weight.grad), expected, strict=True):
            assert error(found, wanted) < allowed


def trained(stage: int, chunk: int | None) -> tuple[list[float], list[Tensor]]:
    """Losses and weights of three updates of two micro-batches under DeepSpeed."""
    net = small_model()
    losses: list[float] = []

    class Keep(Callback):
        def after_step(self, trainer: Trainer) -> None:
            losses.extend(float(loss) for loss in trainer.losses)

    with process_group():
        prepare_blocks(net, TrainingConfig(steps=1, batch_size=1, seq_length=8, lr=1e-3, loss_chunk=chunk))
        trainer = build_trainer([Keep()], stage=stage, model=net, steps=3)
        try:
            trainer.fit()
            with trainer.engine.whole_weights():
                return losses, [p.detach().clone() for p in net.parameters()]
        finally:
            trainer.engine.close()


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_under_deepspeed(stage: int) -> None:
    """Stage 3 gathers the head's weights around its own forward and backward pass."""
    (losses, weights), (expected, others) = trained(stage, 5), trained(stage, 0)
    assert len(losses) == 6
    assert losses == pytest.approx(expected, rel=1e-5)
    wrong = sum(float((a - b).square().sum()) for a, b in zip(weights, others, strict=True))
    moved = sum(float((a - b).square().sum()) for a, b in zip(others, small_model().parameters(), strict=True))
    assert (wrong / moved) ** 0.5 < 1e-2

"""A loss or gradient that is not finite: nothing moves, the rows are kept, and the policy decides."""

import copy
import logging
import math
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small_training import BATCH, LENGTH, MadeUpRows, build_trainer, small_model
from torch import Tensor

import l2e
from l2e.data import StepLoader
from l2e.errors import RunError
from l2e.training.bad_batch import collect
from l2e.training.callbacks.inhibition import InhibitionCallback
from l2e.training.callbacks.metrics import MetricsCallback, Row
from l2e.training.callbacks.non_finite import NonFiniteCallback, _spans
from l2e.training.engine import process_group
from l2e.training.events import Callback
from l2e.training.loss import next_token_loss, spoiled_unless_finite
from l2e.training.optimizer import build_optimizer
from l2e.training.ranks import HostGroup
from l2e.training.schedule import cosine
from l2e.training.trainer import Trainer


@pytest.fixture(scope="module", autouse=True)
def alone() -> Iterator[None]:
    with process_group():
        yield


class Bad(Callback):
    """A term of the loss that is NaN in chosen updates, in their last micro-batch; and what the updates did."""

    priority = 1000

    def __init__(self, steps: set[int], value: float = math.nan) -> None:
        self.steps, self.value = steps, value
        self.before: Any = None
        self.unchanged: dict[int, bool] = {}
        self.inhibition: Any = None

    def before_step(self, trainer: Trainer) -> None:
        self.before = self.state(trainer)

    def add_to_loss(self, trainer: Trainer) -> Tensor | None:
        last = len(trainer.losses) == trainer.engine.accumulation
        return torch.tensor(self.value) if last and trainer.step in self.steps else None

    def after_update(self, trainer: Trainer) -> None:
        self.unchanged[trainer.step] = equal(self.before, self.state(trainer))

    def state(self, trainer: Trainer) -> Any:
        """Weights, optimizer and inhibition, to the bit."""
        inhibition = copy.deepcopy(self.inhibition.state_dict()) if self.inhibition is not None else None
        optimizer = trainer.engine.optimizer.state_dict() if trainer.engine.stage else trainer.engine.optimizer.state
        with trainer.engine.whole_weights():
            weights = [parameter.detach().clone() for parameter in trainer.engine.model.parameters()]
        return weights, tensors(optimizer), inhibition


def tensors(tree: Any) -> list[Tensor]:
    """Copies of the floating-point tensors in it."""
    if isinstance(tree, Tensor):
        return [tree.detach().clone()] if tree.is_floating_point() else []
    if isinstance(tree, dict):
        tree = list(tree.values())
    return [each for item in tree for each in tensors(item)] if isinstance(tree, (list, tuple)) else []


def equal(one: Any, two: Any) -> bool:
    if isinstance(one, Tensor):
        return one.shape == two.shape and bool(((one == two) | (one.isnan() & two.isnan())).all())
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(equal(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(equal, one, two))
    return one == two or (one != one and two != two)


def watch(
    folder: Path, rows: list[Row] | None = None, tokenizer: Any = None
) -> tuple[NonFiniteCallback, MetricsCallback]:
    metrics = MetricsCallback(100, [(rows if rows is not None else []).extend], lambda trainer, speed: {})
    return NonFiniteCallback(folder, tokenizer, HostGroup(timedelta(minutes=1)), metrics), metrics


CASES = [
    (0, "fp32"),
    (1, "fp32"),
    pytest.param(2, "fp32", marks=pytest.mark.slow),
    (3, "fp32"),
    (1, "bf16"),
    (2, "bf16"),
    pytest.param(3, "bf16", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("stage", "precision"), CASES)
def test_a_skipped_update_changes_no_bit_of_anything(tmp_path: Path, stage: int, precision: str) -> None:
    bad = Bad({2, 3})
    model = small_model()
    rows: list[Row] = []
    guard, metrics = watch(tmp_path, rows)
    bad.inhibition = l2e.attach(
        model, "l2e", blocks=[1], weight=0.01, rate=0.1, late_start=1, warmup=1, reduction="sequence"
    )
    callbacks = [bad, guard, metrics, InhibitionCallback(bad.inhibition, 100)]
    trainer = build_trainer(callbacks, stage, model, precision=precision, non_finite="skip")
    trainer.fit()
    assert bad.unchanged == {0: False, 1: False, 2: True, 3: True, 4: False, 5: False}
    assert len(tensors(bad.before[1])) > 1  # the optimizer's moments were among what was compared
    assert guard.skipped == 2
    assert guard.in_a_row == 0
    assert bad.inhibition.state_dict()["taps"][1]["statistics"]["updates"] == 4
    assert [row["skipped"] for row in rows if "skipped" in row] == [1, 2, 2, 2]
    assert all(bool(parameter.isfinite().all()) for parameter in bad.before[0])
    trainer.engine.close()


@pytest.mark.parametrize("stage", [0, 1])
def test_training_with_a_skipped_update_equals_a_plain_loop_that_leaves_it_out(tmp_path: Path, stage: int) -> None:
    guard, metrics = watch(tmp_path)
    trainer = build_trainer([Bad({2}), guard, metrics], stage, non_finite="skip")
    trainer.fit()
    model = small_model()
    optimizer = build_optimizer(model, trainer.config)
    for step in (0, 1, 3, 4, 5):
        optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = cosine(step, 2e-3, 6, 0.0)
        optimizer.zero_grad()
        tokens = torch.from_numpy(MadeUpRows().gather(range(step * BATCH, (step + 1) * BATCH)))
        next_token_loss(model(tokens[:, :-1]).logits, tokens[:, 1:]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    for (name, expected), found in zip(model.named_parameters(), trainer.engine.model.parameters(), strict=True):
        if "query_key_value.bias" not in name:  # the keys' bias has a gradient of rounding alone
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5, msg=name)
    trainer.engine.close()


def test_stop_names_the_update_and_keeps_its_rows(tmp_path: Path) -> None:
    rows: list[Row] = []
    words = SimpleNamespace(decode=lambda tokens: " ".join(map(str, tokens)))
    guard, metrics = watch(tmp_path / "bad_batches", rows, words)
    bad = Bad({3})
    trainer = build_trainer([guard, metrics, bad], 1)
    with pytest.raises(RunError) as raised:
        trainer.fit()
    path = tmp_path / "bad_batches" / "step4"
    mean = np.load(f"{path}.npz")["losses"].mean()
    assert str(raised.value).startswith(
        f"update 4: the gradient is not finite, and the loss is ({mean:.4f}). Its rows are in {path}.npz and .txt. "
    )
    assert "training.non_finite=skip" in str(raised.value)
    assert trainer.step == 3
    assert [row["step"] for row in rows] == [1, 2, 3]  # what was pending is written
    kept = np.load(f"{path}.npz")
    assert kept["positions"].tolist() == [12, 13, 14, 15]
    np.testing.assert_array_equal(kept["tokens"], MadeUpRows().gather(range(12, 16)))
    assert kept["tokens"].shape == (BATCH, LENGTH + 1)
    assert len(path.with_suffix(".txt").read_text().splitlines()) == 8
    trainer.engine.close()


def test_a_loss_that_is_not_finite_names_its_micro_batch_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = SimpleNamespace(decode=lambda tokens: " ".join(map(str, tokens)))
    guard, metrics = watch(tmp_path, None, words)
    trainer = build_trainer([guard, metrics], 1)
    whole = trainer.loss

    def infinite(tokens: Tensor) -> Tensor:
        """Infinite in the second micro-batch of update 1, with a gradient that is finite."""
        loss = whole(tokens)
        second = torch.equal(tokens, torch.from_numpy(MadeUpRows().gather(range(6, 8))))
        return loss + torch.tensor(math.inf) if second else loss

    monkeypatch.setattr(trainer, "loss", infinite)
    with pytest.raises(RunError, match=r"update 2: the loss is not finite on rows 6-7\. Its rows"):
        trainer.fit()
    kept = np.load(tmp_path / "step2.npz")
    assert np.isfinite(kept["losses"]).tolist() == [True, True, False, False]
    expected = MadeUpRows().gather(range(6, 8))
    assert (tmp_path / "step2.txt").read_text() == "".join(
        f"--- row {position}, loss of its micro-batch inf ---\n{' '.join(map(str, row))}\n"
        for position, row in zip((6, 7), expected.tolist(), strict=True)
    )
    trainer.engine.close()


def test_too_many_skips_in_a_row_end_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    guard, metrics = watch(tmp_path)
    trainer = build_trainer([Bad({0, 2, 3, 4}), guard, metrics], 1, non_finite="skip", max_skips=2)
    with (
        caplog.at_level(logging.WARNING, "l2e"),
        pytest.raises(RunError, match=r"update 5: .* That makes 3 in a row, more than training\.max_skips"),
    ):
        trainer.fit()
    assert [record.getMessage()[:9] for record in caplog.records] == ["update 1:", "update 3:", "update 4:"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step1.npz", "step3.npz", "step4.npz", "step5.npz"]
    restarted, _ = watch(tmp_path)
    restarted.load_state_dict(guard.state_dict())
    assert (restarted.skipped, restarted.in_a_row) == (4, 3)
    trainer.engine.close()


def test_an_overflow_of_the_loss_scale_is_no_fault(tmp_path: Path) -> None:
    """The CPU has no fp16: the engine is stood in for, its answer is DeepSpeed's."""
    guard, _ = watch(tmp_path)
    trainer: Any = SimpleNamespace(
        engine=SimpleNamespace(applied=False),
        losses=[torch.tensor(3.0), torch.tensor(4.0)],
        config=SimpleNamespace(precision="fp16", non_finite="stop", max_skips=0),
        loader=StepLoader(MadeUpRows(), BATCH, 2, 0, 1),
        step=0,
    )
    guard.metrics.flush = lambda trainer: None  # type: ignore[method-assign, assignment]
    guard.after_update(trainer)
    assert guard.skipped == 0
    trainer.losses[1] = torch.tensor(math.nan)
    with pytest.raises(RunError, match="the loss is not finite on rows 2-3"):
        guard.after_update(trainer)


def test_losses_of_ranks_and_parts_go_to_the_rows_that_the_loaders_deal_out() -> None:
    loaders = [StepLoader(MadeUpRows(), 12, 2, rank, 2) for rank in range(2)]
    losses = [[100.0, 101.0, 102.0], [200.0, 201.0, 202.0]]
    batch = collect(loaders[0], 5, losses)
    found = dict(zip(batch.positions.tolist(), batch.losses.tolist(), strict=True))
    for loader, of_rank in zip(loaders, losses, strict=True):
        for positions, loss in zip(loader.positions(5), of_rank, strict=True):
            assert [found[position] for position in positions] == [loss, loss]
    assert len(found) == 12


def test_a_finite_loss_keeps_every_bit_of_its_gradient_and_another_loses_all() -> None:
    weights = torch.randn(50, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (plain,) = torch.autograd.grad(weights.logsumexp(0), weights)
    (same,) = torch.autograd.grad(spoiled_unless_finite(weights.logsumexp(0)), weights)
    assert torch.equal(plain, same)
    for value in (math.inf, -math.inf, math.nan):
        (spoiled,) = torch.autograd.grad(spoiled_unless_finite(weights.sum() + value), weights)
        assert spoiled.isnan().all()


def test_rows_are_named_in_spans() -> None:
    assert _spans([3, 4, 5, 9]) == "rows 3-5, 9"
    assert _spans(list(range(0, 40, 2))) == "rows 0, 2, 4, 6, 8, 10, 12, 14, ..."

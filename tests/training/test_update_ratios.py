"""Decrease Ratio and Total Update Ratio of a training: by hand from copied weights, and without any effect on it."""

import copy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from processes import torchrun
from small_training import MadeUpRows, build_trainer, small_model
from training_runs import metrics, pretrain

import l2e
from l2e.training.callbacks.inhibition import InhibitionCallback
from l2e.training.callbacks.update_ratios import UpdateRatioCallback
from l2e.training.engine import process_group
from l2e.training.events import Callback
from l2e.training.update_ratio_config import UpdateRatioConfig

NAMES = ("decrease_ratio", "update_ratio", "moved")


@pytest.fixture(autouse=True, scope="module")
def alone() -> Iterator[None]:
    """A process group of one."""
    with process_group():
        yield


class Witness(Callback):
    """Copies of weights and statistics around each update, and what was recorded."""

    priority = 50

    def __init__(self) -> None:
        self.seen: dict[int, SimpleNamespace] = {}

    def before_step(self, trainer: Any) -> None:
        taps = {key: copy.deepcopy(tap.statistics) for key, tap in trainer.inhibition.taps.items()}
        model = copy.deepcopy({name: p.detach() for name, p in trainer.engine.model.named_parameters()})
        self.seen[trainer.step + 1] = SimpleNamespace(before=model, taps=taps)

    def after_step(self, trainer: Any) -> None:
        seen = self.seen[trainer.step]
        seen.after = copy.deepcopy({name: p.detach() for name, p in trainer.engine.model.named_parameters()})
        seen.record = {key: float(value) for key, value in trainer.record.items()}


def run(
    every: int, method: str = "l2e", sequences: int = 2, extra: list[Callback] | None = None, **settings: Any
) -> Any:
    """Six updates; returns witness and final weights."""
    torch.manual_seed(7)
    model = small_model()
    model.gpt_neox.emb_dropout.p = 0.1  # there is none in what is measured
    common = {"late_start": 1, "warmup": 1, "rate": 0.2, "forget_after": None}
    weight = {"weight": 1e-3} if method.startswith("l2e") else {}
    inhibition = l2e.attach(model, method, **(common | weight | settings))
    witness = Witness()
    callbacks = [
        InhibitionCallback(inhibition, 1),
        UpdateRatioCallback(inhibition, UpdateRatioConfig(every=every, sequences=sequences)),
        witness,
        *(extra or []),
    ]
    trainer = build_trainer(callbacks, model=model)
    trainer.inhibition = inhibition
    try:
        trainer.fit()
        return witness.seen, {name: p.detach().clone() for name, p in model.named_parameters()}
    finally:
        trainer.engine.close()


@torch.no_grad()
def outputs(weights: dict[str, torch.Tensor], rows: list[int]) -> dict[int, np.ndarray]:
    """Each block's output by a model of its own, in evaluation mode."""
    model = small_model().eval()
    model.load_state_dict(weights, strict=False)
    found: dict[int, np.ndarray] = {}
    for index, block in enumerate(model.gpt_neox.layers):
        block.register_forward_hook(lambda m, i, output, index=index: found.update({index: output.double().numpy()}))
    model(torch.from_numpy(MadeUpRows().gather(rows)[:, :-1]))
    return found


def by_hand(seen: SimpleNamespace, block: int, rows: list[int], compensation: float, pooled: bool) -> tuple[float, ...]:
    """The three ratios from their definitions, in NumPy."""
    z, after = outputs(seen.before, rows)[block], outputs(seen.after, rows)[block]
    statistics = seen.taps[block]
    mean, var = statistics.moments.mean.double().numpy(), statistics.moments.var.double().numpy()
    assert mean.shape == ((128,) if pooled else (16, 128))
    spread = var + compensation * var.mean()
    phi, phi_after = (z - mean) ** 2 / spread, (after - mean) ** 2 / spread
    if hasattr(statistics.threshold, "top_k"):
        k = max(1, round(0.2 * 16 * 128))
        selected = phi >= np.sort(phi.reshape(len(phi), -1))[:, -k][:, None, None]
    else:
        selected = phi > statistics.threshold.value
    assert 5 < selected.sum() < selected.size / 2
    decrease = 100 * (1 - phi_after[selected] / phi[selected])
    moved = 100 * np.abs(after[selected] / z[selected] - 1)
    return decrease.mean(), moved.mean(), 100 * np.abs(after - z)[selected].sum() / np.abs(z[selected]).sum()


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("l2e", {}),
        ("l2e", {"weight": 0.0, "neurons": "channel", "compensation": 0.0}),
        ("reverse_deactivation", {"delta": 2.0}),
        ("memel", {}),
    ],
    ids=["l2e", "baseline-channel", "rd", "memel"],
)
def test_the_ratios_by_hand(method: str, settings: dict[str, Any]) -> None:
    seen, _ = run(2, method, **settings)
    pooled = settings.get("neurons") == "channel"
    for update in (4, 6):
        first = 4 * (update - 1)  # its first micro-batch: rows of two of the batch's four
        for block in (1, 2):
            found = [seen[update].record[f"inhibition/block{block}/{name}"] for name in NAMES]
            rows = [first, first + 1]
            expected = by_hand(seen[update], block, rows, settings.get("compensation", 0.01), pooled)
            assert found == pytest.approx(expected, rel=2e-3, abs=1e-4)
            assert found[2] > 0.01  # the update did move something


def test_only_every_so_many_updates_and_not_before_anything_is_selected() -> None:
    seen, _ = run(2)
    measured = [step for step, each in seen.items() if "inhibition/block1/decrease_ratio" in each.record]
    assert measured == [4, 6]  # nothing is selected in updates 1 and 2
    none, _ = run(0)
    assert not any(name in key for each in none.values() for key in each.record for name in NAMES)


def test_fewer_sequences_are_fewer_rows() -> None:
    seen, _ = run(4, sequences=1)
    found = [seen[4].record[f"inhibition/block2/{name}"] for name in NAMES]
    assert found == pytest.approx(by_hand(seen[4], 2, [12], 0.01, False), rel=2e-3, abs=1e-4)


@pytest.mark.parametrize("method", ["l2e", "reverse_deactivation"])
def test_training_is_the_same_bit_by_bit(method: str) -> None:
    (seen, measured), (other, plain) = run(1, method), run(0, method)
    assert all(torch.equal(weight, plain[name]) for name, weight in measured.items())
    for step, each in seen.items():
        shared = other[step].record
        assert {key: value for key, value in each.record.items() if key in shared} == pytest.approx(
            shared, nan_ok=True, abs=0
        )


class LeaveOut(Callback):
    """Say that update 4 was not made."""

    priority = -50

    def after_update(self, trainer: Any) -> None:
        if trainer.step == 3:
            trainer.engine.applied = False


def test_an_update_that_was_left_out_gives_no_ratio() -> None:
    seen, _ = run(2, extra=[LeaveOut()])
    assert "inhibition/block1/moved" not in seen[4].record
    assert "inhibition/block1/moved" in seen[6].record


def test_hooks_and_mode_are_put_back() -> None:
    class Look(Callback):
        priority = 60

        def before_step(self, trainer: Any) -> None:
            model = trainer.engine.model
            assert all(module.training for module in model.modules())
            counts.append(sum(len(module._forward_hooks) for module in model.modules()))

    counts: list[int] = []
    run(1, extra=[Look()])
    assert len(set(counts)) == 1


def test_nothing_selected_is_no_number() -> None:
    from l2e.training.callbacks.update_ratios import Before, _ratios, _sums

    values, none = torch.ones(2, 3, 4), torch.zeros(2, 3, 4, dtype=torch.bool)
    ratios = _ratios(_sums(Before(values, values[0], none), values))
    assert all(value.isnan() for value in ratios.values())


def test_outputs_of_0_have_no_update_ratio() -> None:
    from l2e.training.callbacks.update_ratios import Before, _ratios, _sums

    z, after = torch.tensor([[0.0, 2.0, 4.0]]), torch.tensor([[1.0, 3.0, 4.0]])
    mean = torch.tensor([-1.0, 1.0, 2.0])
    found = _ratios(_sums(Before(z, mean, torch.ones(1, 3, dtype=torch.bool)), after))
    # phi: 1, 1, 4 before and 4, 4, 4 after.
    assert found["decrease_ratio"].item() == pytest.approx((-300 - 300 + 0) / 3)
    assert found["update_ratio"].item() == pytest.approx((50 + 0) / 2)
    assert found["moved"].item() == pytest.approx(100 * 2 / 6)


@pytest.mark.parametrize("wrong", [{"every": -1}, {"sequences": 0}])
def test_impossible_ratio_settings(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        UpdateRatioConfig(**wrong)


@pytest.mark.slow
def test_a_run_and_the_same_run_on_two_ranks(tmp_path: Path) -> None:
    asked = ("logging.update_ratios.every=3", "training.steps=9", "checkpoint.exports=[]")
    pretrain(tmp_path, "one", *asked)
    pretrain(tmp_path, "two", *asked, launcher=torchrun(2))
    for block in (1, 2):
        for name in NAMES:
            one, two = (metrics(tmp_path, run, f"inhibition/block{block}/{name}") for run in ("one", "two"))
            assert list(one) == [6, 9]  # L2E selects from update 5 on
            assert two == pytest.approx(one, rel=5e-3, abs=1e-3)
    refused = pretrain(tmp_path, "three", *asked, "inhibition=none", expect=2)
    assert "logging.update_ratios.every: inhibition=none selects no outputs" in refused

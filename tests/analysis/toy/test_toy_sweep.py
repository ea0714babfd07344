"""Sweeps: order, batches, resuming, kept results, progress."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from l2e.analysis.toy import ToyRun, Training, sweep
from l2e.analysis.toy.results import ToyResult
from l2e.analysis.toy.sweep import Progress, run_sweep, split
from l2e.errors import UserError

SMALL = ToyRun(features=8, inputs=3, neurons=6, density=0.2, batch_size=8, steps=32, half_cycle=8, lr=0.02)
RUNS = [replace(SMALL, seed=seed, lr=lr) for lr in (0.01, 0.03) for seed in (1, 2)]
INHIBITED = [replace(SMALL, inhibition="l2e", strength=0.3, rate=0.1), replace(SMALL, inhibition="memel", strength=1.0)]


def same(first: ToyResult, second: ToyResult) -> bool:
    numbers = [np.array_equal(first.losses, second.losses), first.clean_loss == second.clean_loss]
    numbers += [np.array_equal(first.counts[name], second.counts[name]) for name in first.counts]
    return all([*numbers, torch.equal(first.bias, second.bias), torch.equal(first.weight_out, second.weight_out)])


def test_results_come_in_the_order_asked(tmp_path: Path) -> None:
    wide = replace(SMALL, neurons=7)
    asked = [RUNS[0], wide, RUNS[3], RUNS[0]]
    found = run_sweep(asked, tmp_path)
    assert [result.run for result in found] == asked
    assert found[1].bias.shape == (7,)
    assert same(found[0], found[3])
    training = Training([RUNS[0]])
    for _ in range(32):
        training.step()
    np.testing.assert_allclose(found[0].losses, training.losses[:, 0], rtol=1e-3)
    assert found[0].cycle_losses == pytest.approx(training.losses[:, 0].view(2, 16).mean(1).tolist(), rel=1e-3)
    assert found[0].loss == found[0].cycle_losses[-1]
    r = found[0].monosemanticity()
    assert found[0].count("monosemantic") == int((r > 0.999).sum())
    assert found[0].count("mean_bias") == pytest.approx(float(found[0].bias.mean()), abs=1e-6)
    settled = float(training.records[24]["mean_bias"][0])  # half a cycle before the end
    assert found[0].count("mean_bias", 1) == pytest.approx(settled, abs=1e-5)
    assert abs(settled - found[0].count("mean_bias")) > 1e-4


def test_nothing_is_trained_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run_sweep(RUNS, tmp_path)
    monkeypatch.setattr(sweep, "Training", None)
    assert all(same(a, b) for a, b in zip(run_sweep(RUNS[::-1], tmp_path)[::-1], first, strict=True))


@pytest.mark.parametrize("runs", [RUNS, INHIBITED[:1], INHIBITED[1:]], ids=["plain", "l2e", "memel"])
def test_an_interrupted_sweep_goes_on_with_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: list[ToyRun]
) -> None:
    whole = run_sweep(runs, tmp_path / "whole")
    steps = Training.step

    def interrupted(self: Training) -> None:
        if self.done == 27:
            raise KeyboardInterrupt
        steps(self)

    monkeypatch.setattr(Training, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(runs, tmp_path / "parts", save_every=0)
    assert len(list((tmp_path / "parts").iterdir())) == 1
    started = []
    monkeypatch.setattr(Training, "step", lambda self: (started.append(self.done), steps(self)))
    resumed = run_sweep(runs, tmp_path / "parts")
    assert started[0] == 27
    assert all(same(a, b) for a, b in zip(resumed, whole, strict=True))
    assert {path.suffix for path in (tmp_path / "parts").iterdir()} == {".npz"}


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    run_sweep(RUNS[:1], tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=f"{path.name} cannot be read .* delete it"):
        run_sweep(RUNS[:1], tmp_path)


def test_a_result_of_another_run_is_refused(tmp_path: Path) -> None:
    run_sweep(RUNS[:1], tmp_path)
    (path,) = tmp_path.iterdir()
    path.rename(tmp_path / f"{RUNS[1].identity}.npz")
    with pytest.raises(UserError, match="it holds another run"):
        run_sweep(RUNS[1:2], tmp_path)


def test_batches_hold_one_shape_and_are_even() -> None:
    other = [replace(SMALL, neurons=5, seed=seed) for seed in (1, 2)]
    runs = [replace(SMALL, seed=seed) for seed in range(7)]
    batches = split([*runs[:3], *other, *runs[3:]], most=3)
    assert [len(batch) for batch in batches] == [2, 2, 3, 2]
    assert [run for batch in batches[:3] for run in batch] == runs
    assert batches[3] == other


def test_progress_and_what_is_left() -> None:
    now = [0.0]
    progress = Progress(100.0, lambda: now[0])
    assert progress.text() == "0% done, about 0 min 0 s left"
    now[0] = 60.0
    progress.add(20.0)
    assert progress.text() == "20% done, about 4 min 0 s left"
    progress.skip(40.0)  # from a restart point: 60 are left in all, of which 20 took a minute
    assert progress.text() == "33% done, about 2 min 0 s left"


def test_progress_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "l2e.analysis.toy"):
        run_sweep(RUNS, tmp_path, side_by_side=2, save_every=0)
    assert caplog.messages[0] == "4 of 4 toy runs to train, in 2 batches"
    assert caplog.messages[1].startswith("2 runs at step 1 of 32; 2% done, about ")
    assert caplog.messages[-1].startswith("2 runs at step 32 of 32; 100% done, about 0 min 0 s left")

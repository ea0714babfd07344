"""The benchmark of sweeps: what it runs, what it says."""

import json
from dataclasses import replace

import pytest
import torch

from l2e.analysis.toy import ToyRun, Training
from l2e.benchmarks.toy import check_same, run
from l2e.benchmarks.toy_config import ToyBenchmarkConfig
from l2e.cli.benchmark_config import BenchmarkConfig
from l2e.errors import UserError
from l2e.settings import build_settings


def test_what_is_printed() -> None:
    config = ToyBenchmarkConfig(lrs=[0.003, 0.03], seeds=[1], steps=2, rounds=2, device="cpu")
    result = run(config)
    json.dumps(result, allow_nan=False)
    assert {"benchmark", "device", "versions", "results", "settings"} == set(result)
    ways = result["results"]["ways"]
    assert set(ways) == {"ours", "one_after_another"}
    assert result["results"]["vs_one_after_another"] == ways["one_after_another"]["ratio"] > 0
    minutes = 2 * ToyRun().steps / ways["ours"]["per_second"] / 60
    assert result["results"]["sweep_minutes"] == pytest.approx(minutes)


def test_both_ways_train_the_same_models(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [ToyRun(features=8, inputs=3, neurons=6, batch_size=8, lr=lr) for lr in (0.01, 0.03)]
    check_same(runs, torch.device("cpu"))
    steps = Training.step

    def wrong(self: Training) -> None:
        if len(self.runs) == 1:
            self.lamb.lr = self.lamb.lr * 3
        steps(self)

    monkeypatch.setattr(Training, "step", wrong)
    with pytest.raises(RuntimeError, match=r"lr 0.01, seed 1: .* side by side, .* alone"):
        check_same(runs, torch.device("cpu"))


def test_settings() -> None:
    config = build_settings(BenchmarkConfig, {"benchmark": {"kind": "toy", "steps": 3}}).benchmark
    assert config == replace(ToyBenchmarkConfig(), steps=3)
    for wrong in ({"steps": 0}, {"rounds": 0}, {"lrs": []}, {"seeds": []}, {"threads": 0}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            build_settings(BenchmarkConfig, {"benchmark": {"kind": "toy", **wrong}})

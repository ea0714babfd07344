"""The GPU's check, on the CPU against itself; and that it would see a difference."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from l2e.benchmarks import device_check
from l2e.benchmarks.device_check import CASES, Case, difference
from l2e.inhibition.kernels import missing
from l2e.inhibition.moments import RunningMoments

ROOT = Path(__file__).parents[2]


SLOW = pytest.mark.slow  # bf16 is emulated on many CPUs: 20 s
ALL = [pytest.param(case, id=case.name, marks=SLOW if case.dtype == torch.bfloat16 else ()) for case in CASES]


@pytest.mark.parametrize("case", ALL)
def test_a_device_equals_itself_and_selects(case: Case) -> None:
    assert difference(case, torch.device("cpu")) == 0
    _, metrics = device_check.train(case, torch.device("cpu"))
    assert case.name == "none" or all(value > 0 for key, value in metrics.items() if key.endswith("selected"))


def test_a_wrong_result_on_the_device_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of the two trainings is the device's: spoil its variances by one percent."""
    train, merge = device_check.train, RunningMoments.merge
    calls = []

    def spoiled(case: Case, device: torch.device) -> object:
        calls.append(case)
        if len(calls) == 1:
            with monkeypatch.context() as patch:
                patch.setattr(RunningMoments, "merge", lambda self, b, m, v: merge(self, b, m, 1.01 * v))
                return train(case, device)
        return train(case, device)

    monkeypatch.setattr(device_check, "train", spoiled)
    case = next(case for case in CASES if case.name == "l2e")
    assert difference(case, torch.device("cpu")) > case.allowed


@pytest.mark.slow
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_the_script_runs_as_on_a_gpu(tmp_path: Path) -> None:
    small = {"MODEL": "tiny", "BATCH": "2", "LENGTH": "16", "ROUNDS": "2", "SHRINK": "128", "PYTHON": sys.executable}
    subprocess.run([ROOT / "scripts" / "gpu_check.sh", tmp_path], env={**os.environ, **small}, check=True, timeout=400)
    found = json.loads((tmp_path / "device-check.json").read_text())
    assert all(result["passed"] for result in found["results"].values())
    assert json.loads((tmp_path / "overhead-gpu.json").read_text())["results"]["l2e"]["step_ratio"] > 0
    assert json.loads((tmp_path / "kernel-check.json").read_text())["results"]["passed"]
    assert len(list(tmp_path.iterdir())) == 3

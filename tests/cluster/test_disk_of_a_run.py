"""The planner's disk against the files of a run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from workloads import workload

from l2e.cluster.disk import disk

ROOT = Path(__file__).parents[2]

SETTINGS = [
    "training.steps=12",
    "training.batch_size=4",
    "training.seq_length=256",
    "training.validation_sequences=4",
    "inhibition.late_start=2",
    "inhibition.warmup=2",
    "inhibition.weight=0.01",
    "data.world.documents=300",
    "data.world.items=16",
    "data.world.known_items=16",
    "evaluation.enabled=false",
    "checkpoint.every=5",
    "checkpoint.every_minutes=0",
    "checkpoint.exports=[6]",
]


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_an_export_holds_the_statistics_of_a_method_that_acts_at_test_time() -> None:
    """Mean and variance in fp32 of 2 blocks x 256 positions x 128 channels: 524,288 bytes."""
    plain, memel, penalty = (
        disk(workload(seq_length=256, inhibition=taps)).export
        for taps in ({"method": "none"}, {"method": "memel"}, {"method": "l2e", "weight": 0.01})
    )
    assert memel - plain == 524_288
    assert penalty == plain


@pytest.mark.slow
def test_restart_points_and_exports_of_a_run(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    script = str(ROOT / "scripts" / "pretrain.py")
    places = [f"runs_dir={tmp_path / 'runs'}", f"cache_dir={tmp_path / 'cache'}", "name=a"]
    command = [sys.executable, script, *places, *SETTINGS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    taps = {"method": "l2e", "weight": 0.01}
    kept = {"every": 5, "every_minutes": 0, "exports": [6]}
    plan = disk(workload(steps=12, batch_size=4, seq_length=256, checkpoint=kept, inhibition=taps))
    run = tmp_path / "runs" / "a"
    points, exports = sorted((run / "checkpoints").iterdir()), sorted((run / "hf").iterdir())
    assert (plan.restart_points, plan.exports) == (len(points), len(exports))
    for folder in points:
        assert plan.restart_point == pytest.approx(size(folder), rel=0.1)
    for folder in exports:
        assert plan.export == pytest.approx(size(folder), rel=0.1)
    assert plan.run == pytest.approx(size(run), rel=0.1)

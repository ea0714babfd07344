"""--multirun with real runs: one member refused, one that crashes in the middle, the others to the table's report."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FAULTY = ROOT / "tests" / "training" / "faulty_pretrain.py"
SMALL = [
    "experiment=table1",
    "model=tiny",
    "data=builtin",
    "training=demo",
    "evaluation=builtin",
    "training.steps=8",
    "training.batch_size=4",
    "training.micro_batch_size=4",
    "training.seq_length=32",
    "inhibition.weight=1e-4",
    "inhibition.late_start=2",
    "inhibition.warmup=2",
    "data.world.documents=300",
    "data.world.items=16",
    "data.world.known_items=16",
    "evaluation.limit=4",
    "evaluation.initial=false",
    "evaluation.num_fewshot=0",
    "evaluation.tasks=[world_arc,world_piqa,world_sciq]",
    "checkpoint.every=2",
    "logging.every=1",
]


def sweep(folder: Path, *faults: dict) -> subprocess.CompletedProcess[str]:
    """Baseline and L2E, each with a micro-batch that divides the batch and with one that does not."""
    given = [
        f"runs_dir={folder / 'runs'}",
        f"cache_dir={folder / 'cache'}",
        "name=${inhibition.method}-${training.micro_batch_size}",
    ]
    grid = ["inhibition=none,l2e", "training.micro_batch_size=4,3"]
    environment = os.environ | {"FAULT": json.dumps(faults), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(FAULTY), *SMALL, *given, *grid, "-m"]
    return subprocess.run(command, capture_output=True, text=True, timeout=590, check=False, env=environment)


def end_of(printed: str) -> dict[str, str]:
    """The table at the end: run to state."""
    lines = printed[printed.rindex("seed  state") :].splitlines()[1:5]
    return {line.split()[1]: " ".join(line.split()[5:]) for line in lines}


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_sweep_survives_what_its_members_do_not(tmp_path: Path) -> None:
    crash = {"member": "inhibition=l2e", "rank": 0, "step": 5, "event": "before_step", "action": "raise"}
    first = sweep(tmp_path, crash)
    assert first.returncode == 1, first.stderr[-3000:]
    refused = "failed: training.micro_batch_size: a batch of 4 does not divide into 3"
    states = end_of(first.stderr)
    assert list(states) == ["none-4", "none-3", "l2e-4", "l2e-3"]
    assert states["none-4"] == "done"
    assert states["none-3"].startswith(refused)
    assert states["l2e-4"] == "failed: ZeroDivisionError: planted"
    assert states["l2e-3"].startswith(refused)
    assert "3 of 4 members failed" in first.stderr
    before, after = first.stderr.split("[0] none-4")
    assert "To train: 4 runs, 32 updates, 4,096 tokens" in before
    assert "Time: not known" in before
    assert f"as measured in {tmp_path / 'runs' / 'none-4'}" in after
    trained = (tmp_path / "runs" / "none-4" / "hf" / "step8" / "model.safetensors").stat().st_mtime_ns

    second = sweep(tmp_path)
    assert second.returncode == 1, second.stderr[-3000:]  # two can never run
    assert "Sweep of 4 runs, 1 done already" in second.stderr
    assert "goes on after 4 of 8" in second.stderr
    assert "resumed after 4 updates" in second.stderr
    assert end_of(second.stderr)["l2e-4"] == "done"
    assert (tmp_path / "runs" / "none-4" / "hf" / "step8" / "model.safetensors").stat().st_mtime_ns == trained
    report = (tmp_path / "runs" / "table1-tiny" / "report.md").read_text()
    for setting in ("Pythia", "L2E"):
        assert re.search(rf"\| tiny \| {setting} \| here, 1 seed \|[^\n]*0\.\d{{4}} ±", report), report
    assert "none-3: failed before training began" in report

"""--multirun with real runs: one member refused, one that crashes in the middle, the others to the table's report."""

import json
import os
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
    "evaluation.limit=8",
    "evaluation.initial=false",
    "logging.every=1",
]


def sweep(folder: Path, script: Path, *grid: str, fault: list[dict]) -> subprocess.CompletedProcess[str]:
    """With a fault planted in every member that gets as far as its update."""
    places = [f"runs_dir={folder / 'runs'}", f"cache_dir={folder / 'cache'}"]
    environment = os.environ | {"FAULT": json.dumps(fault), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), *places, *SMALL, *grid, "-m"]
    return subprocess.run(command, capture_output=True, text=True, timeout=590, check=False, env=environment)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_sweep_survives_what_its_members_do_not(tmp_path: Path) -> None:
    """Members: baseline (done), L2E (crashes at update 6), L2E in a block that there is not (refused), dropout (done)."""
    grid = ["inhibition=none,l2e,dropout", "inhibition.blocks=middle-2,[7]", "evaluation.separate=true"]
    crash = [{"rank": 0, "step": 5, "event": "before_step", "action": "raise"}]
    # Only inhibited blocks are looked up: with none, [7] would be another baseline; its directory is taken instead.
    first = sweep(tmp_path, FAULTY, *grid, fault=crash)
    assert first.returncode == 1, first.stderr[-3000:]

"""A study: the grid of one of the papers' tables with two seeds, trained, evaluated and filled in."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from l2e.evaluation.tasks import LOCAL_TASKS

ROOT = Path(__file__).parents[2]
TASKS = {"ARC-Challenge": "world_arc", "PIQA": "world_piqa", "SciQ": "world_sciq"}
SMALL = [
    "model=tiny",
    "data=builtin",
    "training=demo",
    "evaluation=builtin",
    "training.steps=12",
    "training.micro_batch_size=8",
    "inhibition.weight=1e-4",
    "inhibition.late_start=2",
    "inhibition.warmup=2",
    "data.world.documents=300",
    "data.world.items=40",
    "data.world.known_items=16",
    "evaluation.num_fewshot=[0,5]",
    "evaluation.initial=false",
    "evaluation.tasks=[world_arc,world_piqa,world_sciq]",
]


@pytest.mark.slow
def test_the_grid_of_a_table_ends_in_that_table(tmp_path: Path) -> None:
    places = [f"runs_dir={tmp_path / 'runs'}", f"cache_dir={tmp_path / 'cache'}"]
    grid = [*places, "experiment=table8", *SMALL, "seed=1,2", "-m"]
    for there in (0, 4):  # the second time everything is there
        done = subprocess.run(
            [sys.executable, str(ROOT / "scripts" / "pretrain.py"), *grid],
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert f"4 runs, {there} done already" in done.stderr
    names = [f"tiny-{method}-0.02-middle-2-seed{seed}" for method in ("l2e", "reverse_deactivation") for seed in (1, 2)]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == sorted([*names, "table8-tiny"])
    assert (tmp_path / "runs" / "table8-tiny" / "report.html").exists()
    runs = [tmp_path / "runs" / name for name in names]
    report = [f"runs=[{','.join(map(str, runs))}]", f"output={tmp_path / 'out'}", "table=8"]
    subprocess.run([sys.executable, str(ROOT / "scripts" / "report.py"), *report], check=True, timeout=300)
    lines = [line.strip("| ").split(" | ") for line in (tmp_path / "out" / "report.md").read_text().splitlines()]
    header = next(line for line in lines if line[0] == "size")
    for setting, method in (("RD", "reverse_deactivation"), ("L2E", "l2e")):
        cells = dict(
            zip(header, next(line for line in lines if line[:3] == ["tiny", setting, "here, 2 seeds"]), strict=True)
        )
        for shots in (0, 5):
            for column, task in TASKS.items():
                found = [accuracy(tmp_path / "runs", method, seed, shots, task) for seed in (1, 2)]
                printed = [float(text) for text in re.findall(r"\d\.\d+", cells[f"{column} {shots}-shot"])]
                assert printed == pytest.approx([np.mean(found), np.std(found, ddof=1)], abs=5.1e-5)
    assert "no run of Pythia of this size" in (tmp_path / "out" / "report.md").read_text()
    assert set(TASKS.values()) <= set(LOCAL_TASKS)


def accuracy(runs: Path, method: str, seed: int, shots: int, task: str) -> float:
    folder = runs / f"tiny-{method}-0.02-middle-2-seed{seed}" / "eval" / "step12" / f"{shots}-shot"
    lines = (folder / f"samples_{task}.jsonl").read_text().splitlines()
    return float(np.mean([json.loads(line)["acc"] for line in lines]))

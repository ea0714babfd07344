"""A run that is killed goes on with exactly the rows that come next, and ends with the weights of one that was not."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from training_runs import SMALL, weights

from l2e.data.builtin import WorldSettings, write_world

SCRIPT = Path(__file__).with_name("killed_runs.py")
LENGTH, BATCH = 33, 4


def write_rows(folder: Path, rows: int) -> None:
    """Rows that begin with their number, in files whose borders they straddle."""
    folder.mkdir()
    tokens = np.random.default_rng(0).integers(0, 4, (rows, LENGTH)).cumsum(1) % 768
    tokens[:, 0] = np.arange(rows)
    stream = tokens.astype("<u2").reshape(-1)
    parts = [stream[start : start + 1001] for start in range(0, len(stream), 1001)]
    for index, part in enumerate(parts):
        part.tofile(folder / f"document-{index:05d}-of-{len(parts) - 1:05d}.bin")


def train(folder: Path, steps: int, runs: dict[str, list[tuple[int, float]]]) -> list[list[int]]:
    """Train runs to the end, each killed on the way as is told under its name; the exit codes of the attempts."""
    told = []
    for name, kills in runs.items():
        (folder / name).mkdir()
        ours = {
            "runs_dir": folder / "runs",
            "cache_dir": folder / "cache",
            "name": name,
            "data.path": folder / "shards",
            "data.tokenizer": folder / "world" / "tokenizer",
            "data.row_length": LENGTH,
            "training.steps": steps,
            "checkpoint.every": 3,
        }
        small = [part for part in SMALL if not part.startswith(("training.steps", "data.world"))]
        overrides = ["data=pile_deduped", *small, *(f"{key}={value}" for key, value in ours.items())]
        told.append({"logs": str(folder / name), "kills": kills, "overrides": overrides})
    command = [sys.executable, str(SCRIPT), json.dumps(told)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=550, cwd=folder, env=os.environ, check=False)
    printed = [path.read_text() for path in sorted(folder.glob("*/printed*"))]
    assert done.returncode == 0, "\n".join([done.stderr, *printed])
    return json.loads(done.stdout.splitlines()[-1])


def attempts(folder: Path, name: str) -> list[tuple[int, list[int]]]:
    """Of each attempt the update that it began with, and the rows that it trained on."""
    found = []
    for number in range(len(list((folder / name).glob("rows*.txt")))):
        start, *lines = (folder / name / f"rows{number}.txt").read_text().splitlines()
        found.append((int(start), [int(row) for line in lines for row in line.split()]))
    return found


def rows_in_the_weights(found: list[tuple[int, list[int]]], steps: int) -> list[int]:
    """What each attempt trained on until the update that the next one began with."""
    stops = [start for start, _ in found[1:]] + [steps]
    parts = [rows[: BATCH * (stop - start)] for (start, rows), stop in zip(found, stops, strict=True)]
    return [row for part in parts for row in part]


@pytest.mark.parametrize(
    ("kills", "steps"), [(2, 30), pytest.param(10, 180, marks=pytest.mark.slow)], ids=["twice", "ten times"]
)
def test_a_run_killed_at_random_goes_on_with_the_rows_that_come_next(tmp_path: Path, kills: int, steps: int) -> None:
    write_world(tmp_path / "world", WorldSettings(documents=300, items=16, known_items=16))
    write_rows(tmp_path / "shards", BATCH * steps)
    chance = random.Random(kills)
    when = [(chance.randint(4, 9), chance.uniform(0, 0.05)) for _ in range(kills)]
    assert train(tmp_path, steps, {"killed": when, "whole": []}) == [[-9] * kills + [0], [0]]

    found = attempts(tmp_path, "killed")
    assert len(found) == kills + 1
    assert found[0][0] == 0 < found[-1][0]
    assert all(start % 3 == 0 for start, _ in found)
    assert rows_in_the_weights(found, steps) == list(range(BATCH * steps))
    assert sum(len(rows) for _, rows in found) > BATCH * steps  # some were lost with the kills and came again
    assert attempts(tmp_path, "whole") == [(0, list(range(BATCH * steps)))]
    killed, whole = weights(tmp_path, "killed", steps), weights(tmp_path, "whole", steps)
    assert killed.keys() == whole.keys()
    assert all(torch.equal(weight, whole[key]) for key, weight in killed.items())

"""Run directories made up for the tests of the report."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml

from l2e.reporting import write_report

TASKS = ("world_arc", "world_piqa", "world_sciq")


def write_run(
    folder: Path,
    method: str = "l2e",
    steps: int = 60,
    seed: int = 0,
    items: int = 80,
    skill: float = 0.6,
    evaluate: bool = True,
    name: str | None = None,
) -> Path:
    """A whole run directory; `skill` is the chance of a right answer at the end."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng([seed, steps, method == "l2e"])
    config = {
        "name": name or folder.name,
        "seed": seed,
        "model": {"name": "tiny"},
        "data": {"name": "builtin"},
        "inhibition": {"method": method, "weight": 1e-6, "rate": 0.02, "blocks": "middle-2"},
        "training": {"steps": steps, "batch_size": 8, "seq_length": 128, "lr": 1e-3, "precision": "fp32"},
        "evaluation": {"tasks": list(TASKS)},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    environment = {
        "versions": {"python": "3.11", "torch": "2.11.0"},
        "git": {"commit": "0123456789abcdef", "modified": False},
        "device": "CPU (x86_64)",
        "ranks": 1,
        "data": {"tokens": 1000, "sha256_of_ends": "feedc0de" * 8},
    }
    (folder / "environment.json").write_text(json.dumps(environment))
    lines = [line for step in range(1, steps + 1) for line in _lines(step, steps, method, draw)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if evaluate:
        write_evaluation(folder, 0, items, 0.25, np.random.default_rng(7))
        write_evaluation(folder, steps, items, skill, draw)
    return folder


def _lines(step: int, steps: int, method: str, draw: np.random.Generator) -> list[dict[str, object]]:
    loss = 4 + 5 * math.exp(-12 * step / steps) - 0.5 * step / steps - 0.05 * (method == "l2e")
    line: dict[str, object] = {
        "step": step,
        "loss": loss + 0.08 * draw.standard_normal(),
        "learning_rate": 1e-3,
        "grad_norm": 0.9,
        "tokens": step * 1024,
        "tokens_per_second": 9000.0 + step,
    }
    if method == "l2e":
        for block in (2, 3):
            warm = step > 20
            level = 5 - step / steps + 0.1 * block + 0.05 * draw.standard_normal()
            line[f"inhibition/block{block}/threshold"] = level if warm else None
            line[f"inhibition/block{block}/selected"] = 0.02 if warm else 0.0
            line[f"inhibition/block{block}/strength"] = 0.01 * math.exp(0.2 * draw.standard_normal()) if warm else 0.0
            line[f"inhibition/block{block}/absorbed"] = 0.1
    every = max(steps // 6, 1)
    return [line, {"step": step, "validation_loss": loss + 0.03}] if step % every == 0 else [line]


def write_evaluation(folder: Path, step: int, items: int, skill: float, draw: np.random.Generator) -> None:
    """summary.json and the items of three tasks, 0- and 5-shot."""
    summary = []
    for shots in (0, 5):
        for task in TASKS:
            hard = np.random.default_rng(TASKS.index(task)).random(items)
            right = (0.7 * hard + 0.3 * draw.random(items) < skill).astype(int)
            where = folder / "eval" / f"step{step}" / f"{shots}-shot" / f"samples_{task}.jsonl"
            write_items(where, right)
            accuracy = float(right.mean())
            stderr = math.sqrt(accuracy * (1 - accuracy) / (items - 1))
            entry = {"task": task, "num_fewshot": shots, "n": items, "acc": accuracy, "acc_stderr": stderr}
            summary.append(entry | {"acc_norm": accuracy, "acc_norm_stderr": stderr, "chance": 0.25})
    (folder / "eval" / f"step{step}" / "summary.json").write_text(json.dumps(summary))


def write_items(file: Path, right: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [{"doc_id": i, "acc": int(a), "acc_norm": int(a), "prompt_hash": f"h{i}"} for i, a in enumerate(right)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def read_items(run: Path, step: int, shots: int, task: str) -> np.ndarray:
    file = run / "eval" / f"step{step}" / f"{shots}-shot" / f"samples_{task}.jsonl"
    return np.array([json.loads(line)["acc"] for line in file.read_text().splitlines()])


class MadeUp:
    """The helpers above, for tests that cannot import this file by name."""

    run = staticmethod(write_run)
    evaluation = staticmethod(write_evaluation)
    items = staticmethod(write_items)
    read_items = staticmethod(read_items)
    generator = staticmethod(np.random.default_rng)


@pytest.fixture(scope="session")
def made_up() -> type[MadeUp]:
    return MadeUp


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A baseline and an L2E run. Read only."""
    root = tmp_path_factory.mktemp("runs")
    return [write_run(root / "baseline", method="none"), write_run(root / "l2e", skill=0.75)]


@pytest.fixture(scope="session")
def pair_report(pair: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of their report. Read only."""
    return write_report(pair, tmp_path_factory.mktemp("report")).parent

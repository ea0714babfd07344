"""Small runs through the real command line, and what they left behind."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from processes import plain_environment
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).parents[2]

# A short run on the built-in world: L2E selects from update 5 on.
SMALL = [
    "training.steps=12",
    "training.batch_size=4",
    "training.seq_length=32",
    "training.validation_every=6",
    "training.validation_sequences=10",
    "inhibition.late_start=2",
    "inhibition.warmup=2",
    "inhibition.weight=0.01",
    "data.world.documents=300",
    "data.world.items=16",
    "data.world.known_items=16",
    "evaluation.enabled=false",
    "logging.every=4",
]


def command(folder: Path, name: str, *overrides: str, launcher: list[str] | None = None) -> list[str]:
    """scripts/pretrain.py as a user would call it."""
    where = [f"runs_dir={folder / 'runs'}", f"cache_dir={folder / 'cache'}", f"name={name}"]
    return [*(launcher or [sys.executable]), str(ROOT / "scripts" / "pretrain.py"), *where, *SMALL, *overrides]


def pretrain(folder: Path, name: str, *overrides: str, launcher: list[str] | None = None, expect: int = 0) -> str:
    """Run it; return what it printed."""
    environment = plain_environment()
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    full = command(folder, name, *overrides, launcher=launcher)
    done = subprocess.run(full, env=environment, capture_output=True, text=True, timeout=300, cwd=folder)
    printed = done.stdout + done.stderr
    assert done.returncode == expect, printed
    return printed


def metrics(folder: Path, name: str, key: str) -> dict[int, float]:
    """One metric of a run by step."""
    lines = (folder / "runs" / name / "metrics.jsonl").read_text().splitlines()
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return {row["step"]: row[key] for row in rows if key in row}


def weights(folder: Path, name: str, step: int = 12) -> dict[str, torch.Tensor]:
    """The exported weights, as transformers loads them."""
    export = folder / "runs" / name / "hf" / f"step{step}"
    return AutoModelForCausalLM.from_pretrained(export, dtype="auto").state_dict()

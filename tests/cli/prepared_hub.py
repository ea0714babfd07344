"""A hub that holds all that a small run needs, and the commands that are tried against it."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from l2e.data.builtin import WorldSettings, write_world

ROOT = Path(__file__).parents[2]
ROWS, LENGTH, PER_FILE = 40, 33, 60  # 22 files, so 22 blocks; the last step of 4 rows ends in the last one
LAST = (ROWS * LENGTH - 1) // PER_FILE
TOKENIZER, PILE = "org/tokenizer", "org/pile"
SETTINGS = [
    f"data.path=hf://datasets/{PILE}",
    f"data.tokenizer={TOKENIZER}",
    f"data.row_length={LENGTH}",
    f"data.last_index={LAST}",
    f"seq_length={LENGTH - 1}",
    "batch_size=4",
    "steps=6",
]
WORDS = ["brin", "tolva", "kesh", "ömar", "pell", "sandu", "ikri", "vosk"]


def rows() -> np.ndarray:
    return np.random.default_rng(0).integers(3, 700, (ROWS, LENGTH)).astype("<u2")


def fill(root: Path) -> None:
    """Put a tokenizer, rows and the four datasets into the folder that a hub serves."""
    write_world(root / "world", WorldSettings(documents=300, items=16, known_items=16))
    shutil.copytree(root / "world" / "tokenizer", root / "models" / TOKENIZER)
    (root / "models" / TOKENIZER / "model.safetensors").write_bytes(bytes(1000))  # nobody asked for it
    folder = root / "datasets" / PILE
    folder.mkdir(parents=True)
    stream = rows().reshape(-1)
    for index in range(LAST + 1):
        stream[index * PER_FILE : (index + 1) * PER_FILE].tofile(folder / f"document-{index:05d}-of-{LAST:05d}.bin")
    for subset in ("ARC-Easy", "ARC-Challenge"):
        put_dataset(root, "allenai/ai2_arc", subset, {s: items(subset, s) for s in ("train", "validation", "test")})
    put_dataset(root, "baber/piqa", None, {s: items("piqa", s) for s in ("train", "validation", "test")})
    put_dataset(root, "allenai/sciq", None, {s: items("sciq", s) for s in ("train", "validation", "test")})


def put_dataset(root: Path, name: str, subset: str | None, splits: dict[str, list[dict]]) -> None:
    """A dataset as parquet files, one a split, with the card that lists its subsets."""
    folder = root / "datasets" / name
    (folder / (subset or "data")).mkdir(parents=True, exist_ok=True)
    for split, table in splits.items():
        pq.write_table(pa.Table.from_pylist(table), folder / (subset or "data") / f"{split}-00000-of-00001.parquet")
    subsets = sorted(path.name for path in folder.iterdir() if path.is_dir())
    card = ["---", "configs:"]
    for known in subsets:
        card += [f"- config_name: {'default' if known == 'data' else known}", "  data_files:"]
        card += [line for s in splits for line in (f"  - split: {s}", f"    path: {known}/{s}-*")]
    (folder / "README.md").write_text("\n".join([*card, "---", ""]))


def items(kind: str, split: str) -> list[dict]:
    """Eight made-up items; PIQA's test split has no labels, as the real one."""
    draw = random.Random(f"{kind} {split}")

    def phrase() -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(1, 4)))

    if kind.startswith("ARC"):
        choices = {"text": [phrase() for _ in range(4)], "label": list("ABCD")}
        return [{"id": str(i), "question": phrase(), "choices": choices, "answerKey": "ABCD"[i % 4]} for i in range(8)]
    if kind == "piqa":
        label = -1 if split == "test" else 1
        return [{"goal": phrase(), "sol1": phrase(), "sol2": phrase(), "label": label} for _ in range(8)]
    names = ("question", "distractor3", "distractor1", "distractor2", "correct_answer", "support")
    return [{name: phrase() for name in names} for _ in range(8)]


def environment(home: Path, hub: str | None) -> dict[str, str]:
    """Of a command: its own Hugging Face home, and the hub it may ask."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    own |= {"HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONPATH": str(ROOT)}
    return own | ({"HF_ENDPOINT": hub} if hub else {})


def command(script: str, *overrides: str) -> list[str]:
    return [sys.executable, str(ROOT / "scripts" / f"{script}.py"), *overrides]


def run(words: list[str], env: dict[str, str], expect: int = 0) -> str:
    """Run a command to its end; all that it printed."""
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=600, check=False)
    printed = done.stdout + done.stderr
    assert done.returncode == expect, printed
    assert "Traceback" not in printed
    return printed


def read_jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


GUARD = """
import socket
def refuse(self, address, *more):
    raise OSError(f"NETWORK TOUCHED: {address}")
socket.socket.connect = socket.socket.connect_ex = refuse
def no_names(*given, **more):
    raise OSError(f"NETWORK TOUCHED: {given}")
socket.getaddrinfo = socket.create_connection = no_names
"""


def without_network(env: dict[str, str], folder: Path) -> dict[str, str]:
    """The environment in which every Python process refuses to connect or to look up a name, loopback included."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(GUARD)
    return {**env, "PYTHONPATH": f"{folder}{os.pathsep}{env['PYTHONPATH']}"}

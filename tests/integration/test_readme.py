"""Every command of the README runs, scaled down where it would take long."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SHORT = [
    "training.steps=4",
    "data.world.documents=300",
    "data.world.items=16",
    "data.world.known_items=16",
    "evaluation.limit=4",
]
REAL = [
    "training.steps=2",
    "training.batch_size=2",
    "training.seq_length=64",
    "evaluation.limit=2",
    "evaluation.num_fewshot=0",
    "data.train=pile_sample/val.jsonl.zst",
    "evaluation.initial=false",
]
# What each command gets besides, by a word that only it holds.
SCALED = {
    "--cfg": [],
    "training.steps=200": SHORT,
    "experiment=pile_sample": REAL,
    "deepspeed=zero1": [*SHORT, "name=two"],
    "scripts/report.py": [],
    "scripts/plan.py": [],
    "analysis=fkr": [
        "features.builtin.window=64",
        "features.builtin.world.documents=300",
        "features.builtin.world.items=16",
        "features.builtin.world.known_items=16",
    ],
    "analysis=toy": [
        "analysis.seeds=[1]",
        "analysis.shape.features=8",
        "analysis.shape.inputs=4",
        "analysis.shape.neurons=12",
        "analysis.shape.batch_size=8",
        "analysis.shape.steps=64",
        "analysis.shape.half_cycle=16",
    ],
    "benchmark=table2": [
        "benchmark.models=[tiny]",
        "benchmark.micro_batch_size=2",
        "benchmark.seq_length=16",
        "benchmark.rounds=1",
    ],
    "show=rows": ["data.row_length=33", "seq_length=32", "batch_size=4", "step=1"],
    "fetch=all": ["data.row_length=33", "seq_length=32", "batch_size=4", "steps=2", "evaluation.data_dir=DATA/eval"],
    "experiment=table1": [
        "data.row_length=33",
        "training.seq_length=32",
        "training.steps=1",
        "training.batch_size=2",
        "training.micro_batch_size=2",
        "evaluation.enabled=false",
        "inhibition.reduction=sum",
    ],
    "scripts/evaluate.py": ["evaluation.limit=2", "evaluation.num_fewshot=0", "evaluation.tasks=[sciq]"],
    "scripts/pretrain.py": SHORT,
}


def readme_commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def test_the_make_targets_exist() -> None:
    targets = [shlex.split(command, comments=True)[1] for command in readme_commands() if command.startswith("make")]
    assert targets == ["demo", "test"]
    for target in targets:
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.slow
def test_every_script_command(tmp_path: Path, real_data: Path) -> None:
    commands = [command for command in readme_commands() if not command.startswith("make")]
    assert len(commands) == 15
    pile = tmp_path / "pile"
    pile.mkdir()
    np.arange(33 * 20, dtype="<u2").tofile(pile / "document-00000-of-00000.bin")
    for command in commands:
        words = shlex.split(command.replace("DATA", str(real_data)).replace("PILE", str(pile)), comments=True)
        chosen = next(extra for word, extra in SCALED.items() if any(word in w for w in words))
        added = [word.replace("DATA", str(real_data)) for word in chosen]
        if "runs/a,runs/b" in command:
            # The README's a and b stand for any two runs with one tokenizer.
            runs = sorted(path for path in (tmp_path / "runs").glob("tiny-*") if (path / "hf").exists())[:2]
            assert len(runs) == 2
            words = [word.replace("runs/a,runs/b", ",".join(str(run) for run in runs)) for word in words]
        if "scripts/evaluate.py" in words:
            run = next((tmp_path / "runs").glob("pythia-14m-*"))
            words = [f"path={run}" if word.startswith("path=") else word for word in words]
        program = str(Path(sys.executable).parent / Path(words[0]).name)
        script = words.index(next(word for word in words if word.startswith("scripts/")))
        words[script] = str(ROOT / words[script])
        done = subprocess.run(
            [program, *words[1:], *added], cwd=tmp_path, capture_output=True, text=True, timeout=500, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stderr[-3000:]}"

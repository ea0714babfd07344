"""Every Python block of docs/plug-in.md runs as it stands there."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import l2e

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "plug-in.md").read_text(), re.MULTILINE | re.DOTALL)
NAMES = {f"block{block}/{name}" for block in (1, 2) for name in ("threshold", "selected", "strength", "absorbed")}


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Path]]:
    """What each block prints, and the folder that it ran in; they run side by side."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    started = []
    for number, code in enumerate(BLOCKS):
        folder = tmp_path_factory.mktemp(f"block{number}")
        (folder / "block.py").write_text(code)
        process = subprocess.Popen(
            [sys.executable, "block.py"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=(folder / "stderr").open("w"),
            text=True,
        )
        started.append((process, folder))
    found = []
    for process, folder in started:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, (folder / "stderr").read_text()
        found.append((output, folder))
    return found


def test_every_block_is_looked_at() -> None:
    uses = ["l2e.attach(" in code for code in BLOCKS], ["InhibitionCallback(" in code for code in BLOCKS]
    assert uses == ([True, False], [False, True]), "a new block needs a test of what it prints"


def test_the_plain_loop_selects_and_inhibits(printed: list[tuple[str, Path]]) -> None:
    metrics = ast.literal_eval(printed[0][0].splitlines()[-1])
    assert metrics.keys() == NAMES
    for block in ("block1", "block2"):
        assert 1 < metrics[f"{block}/threshold"] < 100
        assert 0 < metrics[f"{block}/selected"] < 0.06  # on the way to 0.02
        assert 1e-4 < metrics[f"{block}/strength"] < 0.2  # neither nothing nor all
        assert metrics[f"{block}/absorbed"] < 0.5


def test_the_trainer_logs_and_saves(printed: list[tuple[str, Path]]) -> None:
    output, folder = printed[1]
    assert set(ast.literal_eval(output.splitlines()[-1])) == {f"inhibition/{name}" for name in NAMES}
    for step in (30, 60):
        checkpoint = folder / "out" / f"checkpoint-{step}"
        (logged,) = (
            record
            for record in json.loads((checkpoint / "trainer_state.json").read_text())["log_history"]
            if record["step"] == step
        )
        inhibition = l2e.attach(AutoModelForCausalLM.from_pretrained(checkpoint), weight=1e-4, reduction="sequence")
        inhibition.load_state_dict(torch.load(checkpoint / "inhibition.pt", weights_only=True))
        for block in ("block1", "block2"):
            threshold = logged[f"inhibition/{block}/threshold"]
            assert 1 < threshold < 100
            assert inhibition.metrics()[f"{block}/threshold"] == threshold

"""The embedded default as a newcomer runs it: trained well above chance, untrained at chance, one report."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of `make demo`, in a folder of their own."""
    folder = tmp_path_factory.mktemp("demo")
    recipe = subprocess.run(["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    commands = [line for line in recipe.splitlines() if "scripts/" in line]
    assert len(commands) == 3
    for command in commands:
        words = shlex.split(command, comments=True)
        done = subprocess.run(
            [sys.executable, str(ROOT / words[1]), *words[2:]],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert "report: runs/demo/report.html" in done.stdout
    return folder / "runs"


def results(run: Path, step: int) -> list[dict[str, Any]]:
    found = json.loads((run / "eval" / f"step{step}" / "summary.json").read_text())
    assert [result["task"] for result in found] == ["world_arc", "world_piqa", "world_sciq"]
    return found


@pytest.mark.parametrize("name", ["tiny-builtin-baseline-seed1", "tiny-builtin-l2e-seed1"])
def test_trained_models_are_far_above_chance_and_untrained_ones_at_it(demo: Path, name: str) -> None:
    for result, chance in zip(results(demo / name, 0), (0.25, 0.5, 0.25), strict=True):
        assert result["chance"] == chance
        assert abs(result["acc"] - chance) < 3 * (chance * (1 - chance) / result["n"]) ** 0.5
    for result, chance in zip(results(demo / name, 456), (0.25, 0.5, 0.25), strict=True):
        assert result["acc"] > chance + 5 * (chance * (1 - chance) / result["n"]) ** 0.5


def test_the_report_shows_both_runs(demo: Path) -> None:
    text = (demo / "demo" / "report.md").read_text()
    for name in ("tiny-builtin-baseline-seed1", "tiny-builtin-l2e-seed1"):
        for result in results(demo / name, 456):
            assert f"{result['acc']:.3f} ± {result['acc_stderr']:.3f}" in text
    assert (demo / "demo" / "figures" / "threshold.png").stat().st_size > 10_000


def test_the_lm_eval_command_line_finds_the_same(demo: Path, tmp_path: Path) -> None:
    run = demo / "tiny-builtin-l2e-seed1"
    output = run / "eval" / "step456"
    line = json.loads((output / "0-shot" / "results.json").read_text())["reproduce"]
    words = shlex.split(line.replace("<exported folder>", str(run / "hf" / "step456")))
    command = [sys.executable, "-m", *words, "--output_path", str(tmp_path), "--device", "cpu"]
    done = subprocess.run(command, cwd=output, env=os.environ, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (file,) = tmp_path.rglob("results_*.json")
    theirs = json.loads(file.read_text())["results"]
    for result in results(run, 456):
        assert result["acc"] == theirs[result["task"]]["acc,none"]

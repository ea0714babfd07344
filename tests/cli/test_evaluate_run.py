"""Evaluating a run directory: a run that leaves its evaluation to another job ends as one that does not."""

import json
import shutil
from pathlib import Path

import pytest

from l2e.cli import evaluate, pretrain
from l2e.cli.entry import compose
from l2e.errors import UserError

SMALL = [
    "training.steps=4",
    "training.batch_size=4",
    "training.seq_length=32",
    "data.world.documents=300",
    "data.world.items=16",
    "data.world.known_items=16",
    "evaluation.limit=4",
]


def evaluate_as(*overrides: str) -> None:
    """scripts/evaluate.py, in this process."""
    evaluate.run(compose("evaluate", list(overrides)), list(overrides))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`both` evaluates itself; `apart` leaves it."""
    folder = tmp_path_factory.mktemp("evaluate")
    for own in (["name=both"], ["name=apart", "evaluation.separate=true"]):
        overrides = [f"runs_dir={folder / 'runs'}", f"cache_dir={folder / 'cache'}", *own, *SMALL]
        pretrain.run(compose("pretrain", overrides), overrides)
    return folder / "runs"


def summaries(run: Path) -> dict[str, list[dict]]:
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(run.glob("eval/*/summary.json"))}


def test_separate_evaluation_gives_the_same(runs: Path) -> None:
    run = runs / "apart"
    assert (run / "report.html").exists()
    assert not (run / "eval").exists()
    evaluate_as(f"path={run}")
    assert summaries(run) == summaries(runs / "both")
    assert list(summaries(run)) == ["step0", "step4"]
    assert "world_arc" in (run / "report.md").read_text()
    before = (run / "eval" / "step4" / "summary.json").stat().st_mtime_ns
    evaluate_as(f"path={run}")  # what is there is not done again
    assert (run / "eval" / "step4" / "summary.json").stat().st_mtime_ns == before


def test_other_settings_for_a_run(runs: Path) -> None:
    run = runs / "other"
    shutil.copytree(runs / "both", run, ignore=shutil.ignore_patterns("eval"))
    evaluate_as(f"path={run}", "evaluation=builtin", "evaluation.limit=2", "evaluation.initial=false")
    assert {key: [each["n"] for each in value] for key, value in summaries(run).items()} == {"step4": [2, 2, 2]}


def test_an_unfinished_run_is_told(runs: Path) -> None:
    shutil.copytree(runs / "both", runs / "cut", ignore=shutil.ignore_patterns("eval", "step4"))
    with pytest.raises(UserError, match="hf/step4 does not exist: the run has not got there"):
        evaluate_as(f"path={runs / 'cut'}", "evaluation=builtin", "evaluation.initial=false")


def test_output_is_for_models_alone(runs: Path) -> None:
    with pytest.raises(UserError, match="leave output out"):
        evaluate_as(f"path={runs / 'both'}", "output=x")
    with pytest.raises(UserError, match="output: a value is required"):
        evaluate_as(f"path={runs / 'both' / 'hf' / 'step4'}")

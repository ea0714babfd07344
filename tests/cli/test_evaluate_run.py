"""Evaluating a run directory: a run that leaves its evaluation to another job ends as one that does not."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from l2e.cli import evaluate, pretrain
from l2e.cli.entry import compose
from l2e.errors import UserError
from l2e.evaluation.harness import Questions

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


def test_other_settings_are_evaluated_anew_and_known_answers_are_not_asked_for(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, ask = [], Questions.ask

    def counted(self: Questions, model: Any) -> Any:
        asked.append((self.name, self.shots))
        return ask(self, model)

    monkeypatch.setattr(Questions, "ask", counted)
    run = runs / "changed"
    shutil.copytree(runs / "both", run)
    shots = ["evaluation=builtin", "evaluation.limit=4", "evaluation.initial=false", "evaluation.num_fewshot=[0,1]"]
    evaluate_as(f"path={run}", *shots)
    assert asked == [(task, 1) for task in ("world_arc", "world_piqa", "world_sciq")]
    assert [(one["task"], one["num_fewshot"]) for one in summaries(run)["step4"]][::3] == [
        ("world_arc", 0),
        ("world_arc", 1),
    ]


def test_all_exports_of_a_run(runs: Path) -> None:
    run = runs / "every"
    shutil.copytree(runs / "both", run, ignore=shutil.ignore_patterns("eval"))
    shutil.copytree(run / "hf" / "step4", run / "hf" / "step2")
    evaluate_as(f"path={run}", "checkpoints=all")
    found = summaries(run)
    assert list(found) == ["step0", "step2", "step4"]
    assert found["step2"] == found["step4"] == summaries(runs / "both")["step4"]
    shutil.rmtree(run / "eval")
    evaluate_as(f"path={run}", "checkpoints=[2]")
    assert list(summaries(run)) == ["step2"]
    with pytest.raises(UserError, match="hf/step3 does not exist"):
        evaluate_as(f"path={run}", "checkpoints=[3]")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["path=both/hf/step4", "output=x", "checkpoints=all"], "only a run directory has several"),
        (["path=both", "revision=step1"], "this is for models on the hub"),
        (["path=nowhere/at/all", "output=x"], "there is no folder"),
        (["path=nobody/model", "output=x", "offline=true"], "there is no folder nobody/model"),
    ],
)
def test_settings_that_do_not_go_together(
    runs: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], message: str
) -> None:
    monkeypatch.chdir(runs)
    with pytest.raises(UserError, match=message):
        evaluate_as(*overrides)


def test_an_unfinished_run_is_told(runs: Path) -> None:
    shutil.copytree(runs / "both", runs / "cut", ignore=shutil.ignore_patterns("eval", "step4"))
    with pytest.raises(UserError, match="hf/step4 does not exist: the run has not got there"):
        evaluate_as(f"path={runs / 'cut'}", "evaluation=builtin", "evaluation.initial=false")


def test_output_is_for_models_alone(runs: Path) -> None:
    with pytest.raises(UserError, match="leave output out"):
        evaluate_as(f"path={runs / 'both'}", "output=x")
    with pytest.raises(UserError, match="output: a value is required"):
        evaluate_as(f"path={runs / 'both' / 'hf' / 'step4'}")


@pytest.mark.slow
def test_ranks_share_a_run(runs: Path) -> None:
    run = runs / "shared"
    shutil.copytree(runs / "both", run, ignore=shutil.ignore_patterns("eval"))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = Path(__file__).parents[2] / "scripts" / "evaluate.py"
    config = yaml.safe_load((run / "config.yaml").read_text())
    shutil.rmtree(Path(config["cache_dir"]) / "answers")
    done = subprocess.run(
        [*launcher, str(script), f"path={run}"], capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr
    assert summaries(run) == summaries(runs / "both")
    assert done.stderr.count("evaluating step 4") == 1  # one of them tells

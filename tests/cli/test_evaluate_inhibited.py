"""A run that is evaluated with its inhibition active too: its own folder, its own row, its state beside the weights."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from l2e.cli import evaluate, export, pretrain
from l2e.cli.entry import compose
from l2e.errors import UserError
from l2e.models import read_inhibition
from l2e.reporting import write_report

SMALL = [
    "training.steps=5",
    "training.batch_size=4",
    "training.seq_length=32",
    "data.world.documents=300",
    "data.world.items=16",
    "data.world.known_items=16",
    "evaluation.limit=8",
    "evaluation.tasks=[world_arc,world_piqa]",
    "inhibition=reverse_deactivation",
    "inhibition.late_start=1",
    "inhibition.warmup=1",
    "inhibition.rate=0.2",
]
FILES = ["inhibition.json", "inhibition.safetensors"]


def call(script, *overrides: str) -> None:
    name = script.__name__.rsplit(".", 1)[1]
    script.run(compose(name, list(overrides)), list(overrides))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inhibited")
    places = [f"runs_dir={folder / 'runs'}", f"cache_dir={folder / 'cache'}"]
    call(
        pretrain,
        *places,
        "name=rd",
        *SMALL,
        "evaluation.inhibited=true",
        "checkpoint.every=3",
        "checkpoint.exports=[3]",
    )
    return folder


def summary(folder: Path) -> list[dict]:
    return json.loads((folder / "summary.json").read_text())


def logs(folder: Path) -> list[list[float]]:
    paths = sorted((folder / "0-shot").glob("samples_*.jsonl"))
    return [json.loads(line)["loglikelihoods"] for path in paths for line in path.read_text().splitlines()]


def test_both_are_evaluated_and_apart(root: Path) -> None:
    run = root / "runs" / "rd"
    found = sorted(str(path.relative_to(run)) for path in run.rglob("summary.json"))
    assert found == ["eval/step0/summary.json", "eval/step5/inhibited/summary.json", "eval/step5/summary.json"]
    assert "had not begun to select" in (run / "train.log").read_text()
    plain, acting = logs(run / "eval/step5"), logs(run / "eval/step5/inhibited")
    assert len(plain) == len(acting) == 16
    assert all(one != other for one, other in zip(plain, acting, strict=True))
    report = (run / "report.md").read_text()
    assert "| rd, step 5 |" in report
    assert "| rd-T, step 5 |" in report
    assert "-T: with the inhibition active at test time" in report


def test_the_row_has_the_numbers_of_its_own_folder(root: Path, tmp_path: Path) -> None:
    run = tmp_path / "rd"
    shutil.copytree(root / "runs" / "rd", run)
    changed = [one | {"acc": 0.123} for one in summary(run / "eval/step5/inhibited")]
    (run / "eval/step5/inhibited/summary.json").write_text(json.dumps(changed))
    rows = (write_report([run], tmp_path / "report").parent / "report.md").read_text().splitlines()
    (row,) = [line for line in rows if line.startswith("| rd-T, step 5 |")]
    (other,) = [line for line in rows if line.startswith("| rd, step 5 |")]
    assert row.count("0.123") == 2
    assert "0.123" not in other


def test_an_export_holds_what_its_training_ended_with(root: Path, tmp_path: Path) -> None:
    run = root / "runs" / "rd"
    for step in (0, 3, 5):
        state = read_inhibition(run / "hf" / f"step{step}")
        assert [tap["statistics"]["updates"] for tap in state["taps"].values()] == [step, step]
        manifest = json.loads((run / "hf" / f"step{step}" / "manifest.json").read_text())
        assert set(FILES) <= set(manifest["files"])
    call(export, f"run={run}", "step=3", f"output={tmp_path / 'step3'}")  # from the restart point
    for name in FILES:
        assert (tmp_path / "step3" / name).read_bytes() == (run / "hf/step3" / name).read_bytes()


def test_a_finished_run_is_evaluated_so_later(root: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "rd"
    shutil.copytree(root / "runs" / "rd", run, ignore=shutil.ignore_patterns("inhibited"))
    call(evaluate, f"path={run}", "evaluation.inhibited=true", "evaluation.initial=false", "checkpoints=all")
    assert summary(run / "eval/step5/inhibited") == summary(root / "runs/rd/eval/step5/inhibited")
    assert (run / "eval/step3/inhibited/summary.json").is_file()
    assert {one["task"] for one in summary(run / "eval/step3")} == {"world_arc", "world_piqa"}  # the run's own


def test_a_model_folder_is_evaluated_so(root: Path, tmp_path: Path) -> None:
    items = next((root / "cache").rglob("world_arc")).parent
    own = [f"output={tmp_path / 'out'}", f"cache_dir={tmp_path}", f"evaluation.data_dir={items}", "evaluation.limit=8"]
    own += ["evaluation.tasks=[world_arc,world_piqa]", "evaluation.num_fewshot=0", "evaluation.inhibited=true"]
    call(evaluate, f"path={root / 'runs/rd/hf/step5'}", *own)
    assert summary(tmp_path / "out") == summary(root / "runs/rd/eval/step5")
    assert summary(tmp_path / "out/inhibited") == summary(root / "runs/rd/eval/step5/inhibited")


@pytest.mark.slow
def test_two_ranks_share_the_items_and_inhibit_alike(root: Path, tmp_path: Path) -> None:
    model, items = root / "runs/rd/hf/step5", next((root / "cache").rglob("world_arc")).parent
    command = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0", "--standalone"]
    given = [f"path={model}", f"output={tmp_path / 'out'}", f"cache_dir={tmp_path / 'cache'}", "evaluation.limit=8"]
    given += [f"evaluation.data_dir={items}", "evaluation.tasks=[world_arc,world_piqa]", "evaluation.inhibited=true"]
    given.append("evaluation.num_fewshot=0")
    script = Path(evaluate.__file__).parents[2] / "scripts/evaluate.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *command, str(script), *given], check=True, timeout=300, env=environment)
    for kind in (".", "inhibited"):
        alone, shared = logs(root / "runs/rd/eval/step5" / kind), logs(tmp_path / "out" / kind)
        assert len(shared) == len(alone) == 16
        for one, other in zip(alone, shared, strict=True):
            assert other == pytest.approx(one, rel=1e-4)


def test_a_missing_state_is_told_before_anything_is_loaded(root: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "rd"
    shutil.copytree(root / "runs" / "rd", run, ignore=shutil.ignore_patterns("inhibited", *FILES))
    with pytest.raises(UserError, match=r"hf/step5/inhibition.json does not exist: .*scripts/export.py"):
        call(evaluate, f"path={run}", "evaluation.initial=false")
    with pytest.raises(UserError, match=r"step5/inhibition.json does not exist"):
        call(evaluate, f"path={run / 'hf/step5'}", f"output={tmp_path}", "evaluation.inhibited=true")
    call(evaluate, f"path={run}", "evaluation.inhibited=false")  # without it, nothing is missing
    shutil.rmtree(run / "hf/step5")
    with pytest.raises(UserError, match="hf/step5 does not exist: the run has not got there"):
        call(evaluate, f"path={run}", "evaluation.initial=false")


@pytest.mark.parametrize("method", ["none", "dropout", "l2e"])
def test_methods_that_change_nothing_at_test_time_are_refused(root: Path, method: str) -> None:
    own = [f"inhibition={method}", "evaluation.inhibited=true", f"runs_dir={root / 'refused'}"]
    with pytest.raises(UserError, match=f"evaluation.inhibited: method {method} changes nothing at test time.*memel"):
        call(pretrain, *own)
    assert not (root / "refused").exists()


def test_other_methods_export_no_state(root: Path) -> None:
    places = [f"runs_dir={root / 'runs'}", f"cache_dir={root / 'cache'}"]
    call(pretrain, *places, "name=l2e", *SMALL, "inhibition=l2e", "evaluation.enabled=false")
    assert not list((root / "runs/l2e/hf").rglob("inhibition.*"))

"""scripts/evaluate.py reference=...: a public checkpoint, as it lies in the Hugging Face cache, against its numbers."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from prepared_hub import items, without_network
from transformers import AutoModelForCausalLM, AutoTokenizer

from l2e.cli import evaluate
from l2e.cli.entry import compose
from l2e.data.builtin import WorldSettings, write_world
from l2e.errors import RunError, UserError
from l2e.evaluation import EvaluationConfig, Evaluator
from l2e.models import build_pythia, export
from l2e.reporting import reference

ROOT = Path(__file__).parents[2]
COMMIT = "89abcdef" * 5
TASKS = ["arc_challenge", "piqa", "sciq", "arc_easy"]
N = 8
DRIVER = """
import sys, yaml
values = yaml.safe_load(open(sys.argv.pop(1)))
import l2e.reporting.reference as reference
reference.published = lambda: values
from l2e.cli.entry import main
main("evaluate", "l2e.cli.evaluate:run")
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Items of the four tasks, a tiny model, and a cache of the hub that holds it as EleutherAI's at step13000."""
    root = tmp_path_factory.mktemp("reference")
    for task, kind in zip(TASKS, ("ARC-Challenge", "piqa", "sciq", "ARC-Easy"), strict=True):
        for split in ("train", "validation", "test"):
            (root / "items" / task).mkdir(parents=True, exist_ok=True)
            lines = items(kind, "train" if split == "train" else "other")
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (root / "items" / task / f"{split}.jsonl").write_text(text)
    write_world(root / "world", WorldSettings(documents=100, items=16, known_items=16))
    tokenizer = AutoTokenizer.from_pretrained(root / "world" / "tokenizer")
    export(build_pythia("tiny", seed=17), tokenizer, root / "model")
    cached = root / "home" / "hub" / "models--EleutherAI--pythia-70m-deduped"
    shutil.copytree(root / "model", cached / "snapshots" / COMMIT)
    (cached / "refs").mkdir()
    (cached / "refs" / "step13000").write_text(COMMIT)
    return root


@pytest.fixture(scope="module")
def accuracies(here: Path) -> dict[tuple[str, int], float]:
    """What the model scores."""
    model, tokenizer = (auto.from_pretrained(here / "model") for auto in (AutoModelForCausalLM, AutoTokenizer))
    config = EvaluationConfig(tasks=TASKS, num_fewshot=[0, 5], data_dir=str(here / "items"))
    with Evaluator(tokenizer, config) as evaluator:
        return {(one.task, one.num_fewshot): one.acc for one in evaluator.score(model, here / "before")}


def publish(file: Path, accuracies: dict[tuple[str, int], float], n: int = N) -> Path:
    """A file as published.yaml with these numbers, to four digits."""
    row = {"scale": "70M"} | {f"{s}-shot": [round(accuracies[task, s], 4) for task in TASKS] for s in (0, 5)}
    columns = ["ARC-Challenge", "PIQA", "SciQ", "ARC-Easy"]
    entry = {"revision": "step13000", "columns": columns, "items": [n] * 4, "rows": [row]}
    file.write_text(yaml.safe_dump({"pythia": entry}))
    return file


def run(here: Path, tmp_path: Path, values: Path, *overrides: str) -> subprocess.CompletedProcess:
    (tmp_path / "driver.py").write_text(DRIVER)
    own = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    own |= {"HF_HOME": str(here / "home"), "PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_TELEMETRY": "1"}
    own = without_network(own, tmp_path / "guard")
    common = [f"evaluation.data_dir={here / 'items'}", f"cache_dir={tmp_path / 'cache'}", "offline=true"]
    command = [sys.executable, str(tmp_path / "driver.py"), str(values), "reference=pythia-70m-deduped", *common]
    return subprocess.run([*command, *overrides], env=own, capture_output=True, text=True, timeout=500, check=False)


def changed_sciq(accuracies: dict[tuple[str, int], float]) -> dict[tuple[str, int], float]:
    """0-shot half of the items away."""
    value = accuracies["sciq", 0]
    return accuracies | {("sciq", 0): value - 0.5 if value >= 0.5 else value + 0.5}


@pytest.mark.slow
def test_the_cached_checkpoint_and_the_exit_codes(here: Path, accuracies: dict, tmp_path: Path) -> None:
    same, other = (
        publish(tmp_path / name, given)
        for name, given in (("same.yaml", accuracies), ("other.yaml", changed_sciq(accuracies)))
    )
    done = run(here, tmp_path, same)
    assert done.returncode == 0, done.stderr
    assert verdicts(done.stdout) == ["equal"] * 8
    folder = tmp_path / "cache" / "reference" / "pythia-70m-deduped"
    assert (folder / "reference.md").read_text().strip() in done.stdout
    assert (folder / "summary.json").is_file()
    done = run(here, tmp_path, other, f"path={here / 'model'}")  # kept answers: nothing is asked again
    assert done.returncode == 1, done.stderr
    assert done.stderr.strip().splitlines()[-1] == f"error: {WRONG}"
    refused = run(here, tmp_path, same, "revision=step99")
    assert refused.returncode == 2
    assert "the Hugging Face cache holds no EleutherAI/pythia-70m-deduped, step99" in refused.stderr


WRONG = "1 of 8 accuracies are not the published ones: sciq, 0-shot: DIFFERS"


def verdicts(text: str) -> list[str]:
    return [line.split("|")[-2].strip() for line in text.splitlines() if line.startswith("| ")][2:]


def check_folder(here: Path, tmp_path: Path, *overrides: str) -> None:
    """In this process, on the local folder."""
    common = [f"path={here / 'model'}", f"evaluation.data_dir={here / 'items'}", f"cache_dir={tmp_path / 'cache'}"]
    overrides = ("reference=pythia-70m-deduped", *common, *overrides)
    evaluate.run(compose("evaluate", list(overrides)), list(overrides))


def test_a_local_folder_with_the_published_numbers(
    here: Path, accuracies: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    values = yaml.safe_load(publish(tmp_path / "p.yaml", accuracies).read_text())
    monkeypatch.setattr(reference, "published", lambda: values)
    check_folder(here, tmp_path)
    assert verdicts(capsys.readouterr().out) == ["equal"] * 8


def test_numbers_that_are_not_the_published_ones(
    here: Path, accuracies: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    values = yaml.safe_load(publish(tmp_path / "p.yaml", changed_sciq(accuracies)).read_text())
    monkeypatch.setattr(reference, "published", lambda: values)
    with pytest.raises(RunError, match=WRONG):
        check_folder(here, tmp_path, f"output={tmp_path / 'out'}")
    assert "DIFFERS" in (tmp_path / "out" / "reference.md").read_text()
    values["pythia"]["items"] = [N + 1] * 4
    with pytest.raises(RunError, match=r"1 of 1 accuracies .*: piqa, 0-shot: OTHER ITEMS"):
        check_folder(here, tmp_path, "evaluation.tasks=[piqa]", "evaluation.num_fewshot=0")
    assert verdicts(capsys.readouterr().out)[-1] == "OTHER ITEMS"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["reference=gpt2"], "reference: nothing is published of gpt2; known are pythia-70m-deduped"),
        (
            ["reference=pythia-70m-deduped", "evaluation.limit=5"],
            "evaluation.limit: the published accuracies are of all",
        ),
        ([], "path: a value is required"),
        (["path=EleutherAI/pythia-70m-deduped"], "output: a value is required"),
    ],
)
def test_what_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        evaluate.run(compose("evaluate", overrides), overrides)


def test_a_run_directory_is_no_public_model(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("{}")
    overrides = [f"path={tmp_path}", "reference=pythia-70m-deduped"]
    with pytest.raises(UserError, match="reference: this is for a public model, not for a run directory"):
        evaluate.run(compose("evaluate", overrides), overrides)

"""Restart points and exports of a run from the command line; scripts/export.py and scripts/convert.py."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from training_runs import ROOT, metrics, pretrain, weights
from transformers import AutoTokenizer

from l2e.cli import convert, export
from l2e.errors import UserError
from l2e.manifest import hash_of, verify

SAVING = ["checkpoint.every=4", "checkpoint.exports=[8]", "training.precision=bf16"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("commands")
    pretrain(folder, "whole", *SAVING)
    return folder


def export_of(run: Path, **settings: Any) -> None:
    export.run({"run": str(run), "step": None, "output": None, "offline": True} | settings, [])


def test_every_export_and_restart_point_has_a_manifest(folder: Path) -> None:
    run = folder / "runs" / "whole"
    assert sorted(path.name for path in (run / "hf").iterdir()) == ["step12", "step8"]
    config = yaml.safe_load((run / "config.yaml").read_text())
    keys = ("name", "seed", "model", "data", "inhibition", "training", "deepspeed")
    for key in ("non_finite", "max_skips", "timeout_minutes", "dry_run"):  # may change from start to start
        del config["training"][key]
    for kind, path in (("export", run / "hf" / "step8"), ("restart point", run / "checkpoints" / "step8")):
        manifest = verify(path)
        assert (manifest["kind"], manifest["step"], manifest["precision"]) == (kind, 8, "bf16")
        assert manifest["config"] == {key: config[key] for key in keys}
        assert manifest["config_sha256"] == hash_of(manifest["config"])
        assert manifest["data"] == json.loads((run / "environment.json").read_text())["data"]
        assert manifest["versions"]["torch"] == torch.__version__
    assert "model.safetensors" in verify(run / "hf" / "step8")["files"]


def test_an_export_of_a_restart_point_is_the_one_that_the_run_made(folder: Path, tmp_path: Path) -> None:
    run = folder / "runs" / "whole"
    output = tmp_path / "runs" / "x" / "hf" / "step8"
    export_of(run, output=str(output), step=8)
    expected, found = weights(folder, "whole", 8), weights(tmp_path, "x", 8)
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        assert found[name].dtype == weight.dtype == torch.bfloat16
        assert torch.equal(found[name], weight), name
    ours, theirs = verify(output), verify(run / "hf" / "step8")
    for key in ("kind", "step", "config", "data", "ranks"):
        assert ours[key] == theirs[key]
    assert set(ours["files"]) == set(theirs["files"])


@pytest.mark.parametrize(
    "data",
    [
        {"kind": "pile", "path": "https://127.0.0.1:9/pile"},  # nobody listens there
        {"kind": "documents", "path": "/nowhere/documents.bin", "samples": 100},
        {"kind": "text", "path": "/", "train": "nowhere.jsonl"},
    ],
    ids=lambda data: data["kind"],
)
def test_an_export_needs_the_tokenizer_and_no_row_of_the_data(folder: Path, tmp_path: Path, data: dict) -> None:
    """A run's rows may lie where the node that exports does not reach."""
    run = tmp_path / "run"
    shutil.copytree(folder / "runs" / "whole", run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"] = data | {"tokenizer": str(next(folder.glob("cache/worlds/*/tokenizer")).resolve())}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    export_of(run, output=str(tmp_path / "out"))
    found, expected = (AutoTokenizer.from_pretrained(place) for place in (tmp_path / "out", run / "hf" / "step8"))
    assert found.get_vocab() == expected.get_vocab()


def test_bad_requests_are_refused(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder / "runs" / "whole", run)
    with pytest.raises(UserError, match=r"hf/step8 exists"):
        export_of(run)
    with pytest.raises(UserError, match=r"no restart point of step 5 in .*; there: step4, step8"):
        export_of(run, step=5)
    with pytest.raises(UserError, match=r"holds no run"):
        export_of(tmp_path)
    with pytest.raises(UserError, match=r"no restart point in .*; there: none"):
        convert.run({"run": str(tmp_path), "step": None}, [])
    (run / "checkpoints" / "step8" / "trainer.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"damaged: .*trainer.pt has 0 bytes"):
        export_of(run, output=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_another_stage_needs_a_conversion_and_then_goes_on(folder: Path, tmp_path: Path) -> None:
    """Stages 1 to 3, in bf16, through the command line."""
    run = tmp_path / "runs" / "whole"
    shutil.copytree(folder / "runs" / "whole", run)
    (tmp_path / "cache").symlink_to(folder / "cache")
    settings = [setting for setting in SAVING if "exports" not in setting]
    finished = pretrain(tmp_path, "whole", *settings, "deepspeed=zero3", expect=2)
    assert "deepspeed.stage is 1 there and 3 here" in finished  # a finished run keeps its settings
    shutil.rmtree(run / "hf" / "step12")
    refused = pretrain(tmp_path, "whole", *settings, "deepspeed=zero3", expect=2)
    command = refused.strip().rsplit("rounding): ", 1)[1].split()
    assert command[:2] == ["python", "scripts/convert.py"]
    assert yaml.safe_load((run / "config.yaml").read_text())["deepspeed"]["stage"] == 1
    done = subprocess.run(
        [sys.executable, str(ROOT / command[1]), *command[2:]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"converted: {run / 'checkpoints' / 'step8-universal'}" in done.stdout
    export_of(run, output=str(tmp_path / "runs" / "universal" / "hf" / "step8"))  # of step8, which comes first
    shutil.rmtree(run / "checkpoints" / "step8")
    export_of(run, output=str(tmp_path / "runs" / "converted" / "hf" / "step8"))
    for name, weight in weights(folder, "whole", 8).items():
        assert torch.equal(weights(tmp_path, "converted", 8)[name], weight), name
    assert "resumed after 8 updates" in pretrain(tmp_path, "whole", *settings, "deepspeed=zero3")
    before, after = metrics(folder, "whole", "loss"), metrics(tmp_path, "whole", "loss")
    assert list(after) == list(range(1, 13))
    assert list(after.values()) == pytest.approx(list(before.values()), rel=0.01)
    assert after[8] == before[8]
    assert json.loads((run / "hf" / "step12" / "manifest.json").read_text())["stage"] == 3

"""A run on two weighted sources: trained, resumed, and refused once the weights are others."""

import json
from pathlib import Path

import datasets
import pytest
import torch
from training_runs import metrics, pretrain, weights

from l2e.data.builtin import WorldSettings, write_world


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixed")
    write_world(folder / "world", WorldSettings(documents=300, items=16, known_items=16))
    lines = datasets.Dataset.from_json(str(folder / "world" / "train.jsonl"), cache_dir=str(folder / "hf"))
    lines.rename_column("text", "body").to_parquet(folder / "world" / "other.parquet")
    return folder


def mixed_run(folder: Path, weight: float = 3, expect: int = 0) -> str:
    other = f"{{source: other.parquet, text_field: body, weight: {weight}}}"
    overrides = ["data=text", "~data.world", f"data.path={folder / 'world'}", f"data.train=[train.jsonl, {other}]"]
    return pretrain(folder, "mixed", *overrides, "checkpoint.every=4", expect=expect)


@pytest.mark.slow
def test_a_run_ends_and_resumes_and_refuses_other_weights(folder: Path) -> None:
    mixed_run(folder)
    run = folder / "runs" / "mixed"
    losses, trained = metrics(folder, "mixed", "loss"), weights(folder, "mixed")
    data = json.loads((run / "environment.json").read_text())["data"]
    assert data["weights"] == [1, 3]
    assert data["sha256_of_ends"][0] == data["sha256_of_ends"][1]  # the same documents under another name

    (run / "hf" / "step12").rename(run / "elsewhere")
    assert "resumed after 8 updates" in mixed_run(folder)
    assert metrics(folder, "mixed", "loss") == losses
    for name, weight in weights(folder, "mixed").items():
        assert torch.equal(weight, trained[name])

    (run / "hf" / "step12").rename(run / "elsewhere again")
    config = run / "config.yaml"  # which would be refused first, and is no proof of what was trained
    config.write_text(config.read_text().replace("weight: 3.0", "weight: 2.0"))
    printed = mixed_run(folder, 2, expect=2)
    assert "data has changed since the restart point of step 8: weights was [1, 3] and is [1, 2]" in printed
    assert not (run / "hf" / "step12").exists()

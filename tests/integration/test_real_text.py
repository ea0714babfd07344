"""The same path on real text, with the real tokenizer and the real benchmarks, offline."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_pile_sample(real_data: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "scripts" / "pretrain.py"),
        "experiment=pile_sample",
        f"data.path={real_data}",
        "name=real",
        f"runs_dir={tmp_path / 'runs'}",
        f"cache_dir={tmp_path / 'cache'}",
        "offline=true",
        "training.steps=40",
        "training.batch_size=4",
        "training.seq_length=128",
        "training.validation_every=20",
        "inhibition.late_start=5",
        "inhibition.warmup=5",
        "evaluation.limit=10",
        "evaluation.num_fewshot=[0,5]",
        "evaluation.initial=false",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "real"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    validation = [row["validation_loss"] for row in rows if "validation_loss" in row]
    assert len(validation) == 3
    assert validation[0] == pytest.approx(10.85, abs=0.3)  # log 50304 = 10.83: an untrained model knows nothing
    assert validation[0] > validation[1] > validation[2]
    assert validation[2] < validation[0] - 1.0
    assert rows[-1]["inhibition/block3/threshold"] > 0
    environment = json.loads((run / "environment.json").read_text())
    # 9,617,207 tokens in 7,105 documents (data/README.md), one end token after each.
    assert environment["data"]["tokens"] == 9_617_207 + 7_105
    summary = json.loads((run / "eval" / "step40" / "summary.json").read_text())
    assert {(result["task"], result["num_fewshot"]) for result in summary} == {
        (task, shots) for task in ("arc_challenge", "arc_easy", "piqa", "sciq") for shots in (0, 5)
    }
    assert all(result["n"] == 10 and result["acc"] * 10 == round(result["acc"] * 10) for result in summary)

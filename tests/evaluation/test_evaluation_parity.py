"""The numbers are those of lm-eval's own command line, run on the exported model with the files the stage leaves."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from l2e.evaluation import EvaluationConfig, evaluate

WORLD = ["world_arc", "world_piqa", "world_sciq"]


def run_command_line(output_dir, shots, exported, home):
    """Run the `reproduce` line of results.json in the evaluation's folder; lm-eval's results and samples."""
    line = json.loads((output_dir / f"{shots}-shot" / "results.json").read_text())["reproduce"]
    words = shlex.split(line.replace("<exported folder>", str(exported)))
    assert words[0] == "lm_eval"
    command = [sys.executable, "-m", *words, "--output_path", str(home / "cli"), "--log_samples", "--device", "cpu"]
    environment = {**os.environ, "HF_HOME": str(home / "hf"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=output_dir, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    (results,) = (home / "cli").rglob("results_*.json")
    samples = {
        path.name.removeprefix("samples_").rsplit("_", 1)[0]: [json.loads(text) for text in path.open(encoding="utf-8")]
        for path in (home / "cli").rglob("samples_*.jsonl")
    }
    return json.loads(results.read_text())["results"], samples


def compare(output_dir, results, shots, theirs, samples):
    for result in results:
        other = theirs[result.task]
        assert (result.acc, result.acc_norm) == (other["acc,none"], other["acc_norm,none"])
        assert result.acc_stderr == pytest.approx(other["acc_stderr,none"], abs=1e-12)
        ours = (output_dir / f"{shots}-shot" / f"samples_{result.task}.jsonl").read_text().splitlines()
        their = sorted(samples[result.task], key=lambda sample: sample["doc_id"])
        assert len(ours) == len(their) == result.n
        for text, sample in zip(ours, their, strict=True):
            line = json.loads(text)
            assert (line["doc_id"], line["doc"], line["prompt_hash"]) == (
                sample["doc_id"],
                sample["doc"],
                sample["prompt_hash"],
            )
            logs = [float(response[0]) for response in sample["filtered_resps"]]
            assert line["loglikelihoods"] == pytest.approx(logs, abs=1e-4)
            assert (line["acc"], line["acc_norm"]) == (sample["acc"], sample["acc_norm"])


@pytest.mark.slow
@pytest.mark.parametrize("shots", [0, 5])
def test_made_up_items(shots, model, tokenizer, data_dir, tmp_path):
    model.save_pretrained(tmp_path / "hf")
    tokenizer.save_pretrained(tmp_path / "hf")
    config = EvaluationConfig(tasks=WORLD, num_fewshot=shots, limit=10, data_dir=str(data_dir), batch_size=4)
    results = evaluate(model, tokenizer, config, tmp_path / "out")
    theirs, samples = run_command_line(tmp_path / "out", shots, tmp_path / "hf", tmp_path)
    compare(tmp_path / "out", results, shots, theirs, samples)


@pytest.mark.slow
@pytest.mark.parametrize(("shots", "limit"), [(0, 20), (5, 5)])
def test_real_items(shots, limit, real, real_model, real_tokenizer, tmp_path):
    real_model.save_pretrained(tmp_path / "hf")
    real_tokenizer.save_pretrained(tmp_path / "hf")
    tasks = ["arc_challenge", "arc_easy", "piqa", "sciq"]
    config = EvaluationConfig(
        tasks=tasks, num_fewshot=shots, limit=limit, data_dir=str(Path(real) / "eval"), batch_size=2
    )
    results = evaluate(real_model, real_tokenizer, config, tmp_path / "out")
    theirs, samples = run_command_line(tmp_path / "out", shots, tmp_path / "hf", tmp_path)
    compare(tmp_path / "out", results, shots, theirs, samples)

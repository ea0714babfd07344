import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from l2e.errors import UserError
from l2e.reporting import load_run, write_report


def test_a_whole_run_is_read(pair: list[Path]) -> None:
    run = load_run(pair[1])
    assert run.label == "l2e"
    assert run.warnings == ()
    assert run.setting("training.steps") == 60
    assert run.last_evaluated == 60
    assert sorted(run.evaluations) == [0, 60]
    assert np.isnan(run.series("inhibition/block2/threshold").values[:20]).all()
    assert run.series("validation_loss").steps.tolist() == [10, 20, 30, 40, 50, 60]


def test_a_missing_folder_and_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such run directory; give"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no config\.yaml; give"):
        load_run(tmp_path)
    (tmp_path / "config.yaml").write_text("a: [1,")
    with pytest.raises(UserError, match="no readable YAML"):
        load_run(tmp_path)
    (tmp_path / "config.yaml").write_text("just text")
    with pytest.raises(UserError, match="holds no settings"):
        load_run(tmp_path)


def test_no_runs_and_one_run_twice(tmp_path: Path, pair: list[Path]) -> None:
    with pytest.raises(UserError, match="at least one"):
        write_report([], tmp_path)
    with pytest.raises(UserError, match="twice"):
        write_report([pair[0], pair[0]], tmp_path)


def test_a_cut_last_line_is_left_out_with_a_warning(tmp_path: Path, made_up: Any) -> None:
    run = made_up.run(tmp_path / "cut", evaluate=False)
    metrics = run / "metrics.jsonl"
    metrics.write_text(metrics.read_text() + '{"step": 61, "lo')
    record = load_run(run)
    assert record.series("loss").steps[-1] == 60
    assert len(record.warnings) == 1
    assert "is cut off" in record.warnings[0]
    assert "is cut off" in write_report([run], run).read_text()


def test_of_a_repeated_step_the_later_line_wins(tmp_path: Path, made_up: Any) -> None:
    run = made_up.run(tmp_path / "resumed", evaluate=False)
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 59, "loss": 1.25}) + "\n" + json.dumps({"step": 61, "loss": 1.5}) + "\n")
    loss = load_run(run).series("loss")
    assert loss.steps.tolist() == list(range(1, 62))
    assert loss.values[[58, 60]].tolist() == [1.25, 1.5]


def test_half_written_files_are_left_out(tmp_path: Path, made_up: Any) -> None:
    run = made_up.run(tmp_path / "half")
    (run / "environment.json").write_text('{"versions": {')
    (run / "eval" / "step60" / "summary.json").unlink()
    (run / "eval" / "step0" / "summary.json").write_text('[{"task"')
    record = load_run(run)
    assert record.evaluations == {}
    assert len(record.warnings) == 3
    assert "has no evaluation yet" in write_report([run], run).read_text()


def test_nothing_but_a_config_still_makes_a_report(tmp_path: Path) -> None:
    run = tmp_path / "fresh"
    run.mkdir()
    (run / "config.yaml").write_text("name: fresh\n")
    page = write_report([run], run).read_text()
    assert "metrics.jsonl is missing" in page
    assert "<svg" not in page


def test_a_standard_error_that_the_harness_left_out_is_computed(tmp_path: Path, made_up: Any) -> None:
    run = made_up.run(tmp_path / "plain", evaluate=False)
    folder = run / "eval" / "step60"
    folder.mkdir(parents=True)
    entry = {"task": "t", "num_fewshot": 0, "n": 101, "acc": 0.5, "acc_stderr": "N/A", "acc_norm": None}
    (folder / "summary.json").write_text(json.dumps([entry]))
    result = load_run(run).evaluations[60][0]
    assert result.acc_stderr == pytest.approx(0.05)
    assert np.isnan([result.acc_norm, result.chance]).all()
    assert "0.500 ± 0.050" in write_report([run], run).read_text()

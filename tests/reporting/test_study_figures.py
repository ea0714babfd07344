"""What the figures of a study draw, against the files of the runs."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from l2e.reporting import load_run, write_report
from l2e.reporting.drawing import plain
from l2e.reporting.paper_table import judge
from l2e.reporting.published import accuracy_table
from l2e.reporting.study import group_runs
from l2e.reporting.study_figures import study_figures

SEEDS = (1, 2, 3)


@pytest.fixture(scope="module")
def runs(made_up: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    root = tmp_path_factory.mktemp("figures")
    found = {}
    for method, skill in (("none", 0.55), ("l2e", 0.75)):
        for seed in SEEDS:
            run = made_up.run(root / f"{method}{seed}", method, seed=seed, skill=skill)
            made_up.evaluation(run, 30, 80, 0.4, made_up.generator(seed))
            found[method, seed] = run
    return found


@pytest.fixture(scope="module")
def folder(runs: dict[tuple[str, int], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(list(runs.values()), tmp_path_factory.mktemp("out"), 1).parent


def rows_of(folder: Path, figure: str) -> list[dict[str, str]]:
    with (folder / "figures" / f"{figure}.csv").open() as file:
        return list(csv.DictReader(file))


def logged(run: Path, key: str) -> dict[int, float]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line[key] for line in lines if line.get(key) is not None}


def test_loss_is_the_mean_over_seeds(runs: dict[tuple[str, int], Path], folder: Path) -> None:
    drawn = {(row["method"], int(row["step"])): float(row["mean_loss"]) for row in rows_of(folder, "loss")}
    for method, name in (("none", "Pythia"), ("l2e", "L2E")):
        losses = [logged(runs[method, seed], "loss") for seed in SEEDS]
        for step in (1, 17, 60):  # 60 rows: a window of one
            assert drawn[name, step] == pytest.approx(np.mean([loss[step] for loss in losses]))


def test_accuracy_at_every_evaluated_step(runs: dict[tuple[str, int], Path], made_up: Any, folder: Path) -> None:
    rows = rows_of(folder, "accuracy-tiny")
    assert {int(row["step"]) for row in rows} == {0, 30, 60}
    assert len(rows) == 2 * 3 * 6
    for row in rows:
        method = {"Pythia": "none", "L2E": "l2e"}[row["method"]]
        found = [
            made_up.read_items(runs[method, seed], int(row["step"]), int(row["num_fewshot"]), row["task"]).mean()
            for seed in SEEDS
        ]
        drawn = [float(row["acc"]), float(row["whisker"])]
        assert drawn == pytest.approx([np.mean(found), np.std(found, ddof=1)])
        assert row["seeds"] == "3"


def test_one_seed_has_the_items_error_and_one_step_no_curve(runs: dict[tuple[str, int], Path], tmp_path: Path) -> None:
    out = write_report([runs["none", 1], runs["l2e", 1]], tmp_path / "one", 1).parent
    summary = json.loads((runs["l2e", 1] / "eval" / "step30" / "summary.json").read_text())
    (row,) = [
        row
        for row in rows_of(out, "accuracy-tiny")
        if (row["method"], row["step"], row["task"], row["num_fewshot"]) == ("L2E", "30", "world_sciq", "0")
    ]
    (told,) = [each for each in summary if (each["task"], each["num_fewshot"]) == ("world_sciq", 0)]
    assert float(row["whisker"]) == pytest.approx(told["acc_stderr"])
    record = load_run(runs["l2e", 1])
    record.evaluations.pop(0)
    record.evaluations.pop(30)
    groups, _ = group_runs([record], 1)
    assert [picture.name for picture in study_figures(groups, [])] == ["loss", "threshold"]


def test_thresholds_are_those_logged_and_the_baseline_is_told_to_have_none(
    runs: dict[tuple[str, int], Path], folder: Path
) -> None:
    rows = rows_of(folder, "threshold")
    assert {(row["method"], row["block"]) for row in rows} == {("L2E", "2"), ("L2E", "3")}
    for row in rows[::7]:
        found = [logged(runs["l2e", seed], f"inhibition/block{row['block']}/threshold") for seed in SEEDS]
        assert float(row["mean"]) == pytest.approx(np.mean([each[int(row["step"])] for each in found]))
    assert min(int(row["step"]) for row in rows) == 21  # after the warm-up
    page = (folder / "report.md").read_text()
    assert "Pythia has no line where its runs observe nothing" in page
    assert "Lower (block 2)" in (folder / "figures" / "threshold.svg").read_text()
    assert "Upper (block 3)" in (folder / "figures" / "threshold.svg").read_text()


def test_a_baseline_that_observes_is_solid_beside_the_dashed(
    runs: dict[tuple[str, int], Path], made_up: Any, tmp_path: Path
) -> None:
    """Figure 12 of the paper; weight 0 is the baseline that records its threshold."""
    run = made_up.run(tmp_path / "observed", "l2e", seed=1)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["inhibition"]["weight"] = 0
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    out = write_report([run, runs["l2e", 1]], tmp_path / "out", 1).parent
    assert {row["method"] for row in rows_of(out, "threshold")} == {"Pythia", "L2E"}
    svg = (out / "figures" / "threshold.svg").read_text()
    grey = [line for line in svg.splitlines() if "stroke: #4d4d4d" in line]
    blue = [line for line in svg.splitlines() if "stroke: #0072b2" in line]
    assert grey
    assert not any("stroke-dasharray" in line for line in grey)
    assert blue
    assert all("stroke-dasharray" in line for line in blue)
    assert "observe nothing" not in (out / "report.md").read_text()


def test_differences_are_those_of_the_table(runs: dict[tuple[str, int], Path], folder: Path) -> None:
    groups, _ = group_runs([load_run(path) for path in runs.values()], 1)
    judged = judge(accuracy_table(1), groups)
    rows = rows_of(folder, "effects")
    assert len(rows) == len(judged) == 6
    for row, one in zip(rows, judged, strict=True):
        assert float(row["difference"]) == one.effect.difference
        assert float(row["p_holm"]) == one.p_value
        assert (row["seeds"], row["items"]) == ("3", "80")


def test_losses_by_method_and_seed(runs: dict[tuple[str, int], Path], folder: Path) -> None:
    lines = (folder / "report.md").read_text().splitlines()
    ends = {key: logged(run, "validation_loss")[60] for key, run in runs.items()}
    (row,) = [line.split(" | ") for line in lines if line.startswith("| tiny | L2E | 3 |")]
    changes = [ends["l2e", seed] - ends["none", seed] for seed in SEEDS]
    expected = f"{np.mean(changes):.3f} ± {np.std(changes, ddof=1):.3f}".replace("-", "\N{MINUS SIGN}")
    assert row[5].strip(" |") == expected
    assert row[4].startswith(f"{np.mean([ends['l2e', seed] for seed in SEEDS]):.3f} ±")


def test_long_names_stay_different() -> None:
    names = [f"pythia-410m-reverse_deactivation-0.02-middle-2-seed{seed}" for seed in SEEDS]
    short = [plain(name) for name in names]
    assert len(set(short)) == 3
    assert all(len(name) == 32 and name.startswith("pythia-410m-") and "…" in name for name in short)
    assert plain("x" * 32) == "x" * 32

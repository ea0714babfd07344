"""The papers' tables filled from runs: every number recomputed from the items."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from l2e.errors import UserError
from l2e.reporting import load_run, write_report
from l2e.reporting.study import group_runs

TASKS = {"ARC-Challenge": "world_arc", "PIQA": "world_piqa", "SciQ": "world_sciq"}


@pytest.fixture(scope="module")
def study(made_up: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    """Two methods x three seeds; L2E is far ahead."""
    root = tmp_path_factory.mktemp("study")
    skill = {"none": 0.5, "l2e": 0.8}
    return {
        (method, seed): made_up.run(root / f"{method}{seed}", method, seed=seed, skill=skill[method])
        for method in skill
        for seed in (1, 2, 3)
    }


def filled(runs: list[Path], folder: Path, table: int) -> dict[tuple[str, str, str], dict[str, str]]:
    """The table of report.md: (size, setting, source) to the cells by heading."""
    write_report(runs, folder, table)
    lines = [line.strip("| ").split(" | ") for line in (folder / "report.md").read_text().splitlines()]
    start = next(place for place, line in enumerate(lines) if line[0] == "size")
    header = lines[start]
    rows = {}
    for line in lines[start + 2 :]:
        if len(line) != len(header):
            break
        rows[line[0], line[1], line[2].partition(",")[0]] = dict(zip(header, line, strict=True))
    return rows


def plain(cell: str) -> list[float]:
    return [float(text) for text in re.findall(r"[-+]?\d+\.\d+", cell.replace("\N{MINUS SIGN}", "-"))]


def test_the_cells_are_means_over_seeds_of_the_items(
    study: dict[tuple[str, int], Path], made_up: Any, tmp_path: Path
) -> None:
    rows = filled(list(study.values()), tmp_path, 1)
    for method, setting in (("none", "Pythia"), ("l2e", "L2E")):
        for shots in (0, 5):
            for column, task in TASKS.items():
                found = [made_up.read_items(study[method, seed], 60, shots, task).mean() for seed in (1, 2, 3)]
                cell = rows["tiny", setting, "here"][f"{column} {shots}-shot"]
                assert plain(cell) == pytest.approx([np.mean(found), np.std(found, ddof=1)], abs=5.1e-5)
                assert ("▲" in cell, "**" in cell) == (method == "l2e", method == "l2e")
    assert rows["tiny", "L2E", "here"]["source"] == "here, 3 seeds"
    text = (tmp_path / "report.md").read_text()
    assert "stand in for the real ones" in text
    assert "6 differences of this table" in text


def test_up_is_computed_seed_by_seed(study: dict[tuple[str, int], Path], made_up: Any, tmp_path: Path) -> None:
    cell = filled(list(study.values()), tmp_path, 1)["tiny", "L2E", "here"]["up 0-shot"]
    ups = []
    for seed in (1, 2, 3):
        ours, theirs = (
            sum(made_up.read_items(study[method, seed], 60, 0, task).mean() for task in TASKS.values())
            for method in ("l2e", "none")
        )
        ups.append(100 * (ours / theirs - 1))
    assert plain(cell) == pytest.approx([np.mean(ups), np.std(ups, ddof=1)], abs=0.051)


def test_the_papers_rows_stand_beside_as_printed(study: dict[tuple[str, int], Path], tmp_path: Path) -> None:
    rows = filled(list(study.values()), tmp_path, 7)
    assert rows["70M", "No-Thr", "paper"]["up 5-shot"] == r"4.1%\*"  # a misprint, and marked as one
    assert rows["410M", "L2E", "paper"]["SciQ 0-shot"] == "**0.7470**"
    assert rows["410M", "No-Thr", "not run"]["PIQA 0-shot"] == "\N{EN DASH}"
    assert ("tiny", "No-Thr", "not run") in rows
    text = (tmp_path / "report.md").read_text()
    assert "copied row" in text


def test_one_seed_has_the_items_error_and_says_what_it_cannot_show(
    study: dict[tuple[str, int], Path], made_up: Any, tmp_path: Path
) -> None:
    rows = filled([study["none", 1], study["l2e", 1]], tmp_path, 1)
    right = made_up.read_items(study["l2e", 1], 60, 0, "world_sciq")
    error = right.std(ddof=1) / np.sqrt(len(right))
    assert plain(rows["tiny", "L2E", "here"]["SciQ 0-shot"]) == pytest.approx([right.mean(), error], abs=5.1e-5)
    assert "do not say that other seeds" in (tmp_path / "report.md").read_text()


def change_setting(run: Path, target: Path, **inhibition: Any) -> Path:
    """A copy of a run with other settings of its method."""
    shutil.copytree(run, target)
    config = yaml.safe_load((target / "config.yaml").read_text())
    config["inhibition"] |= inhibition
    config["name"] = target.name
    (target / "config.yaml").write_text(yaml.safe_dump(config))
    return target


@pytest.mark.parametrize(
    ("table", "settings", "row"),
    [
        (1, {"method": "dropout"}, "Dropout"),
        (4, {"rate": 0.01}, "L2E-1%"),
        (4, {"rate": 0.02}, "L2E-2%"),
        (5, {"blocks": "top-bottom"}, "Top-Bot"),
        (5, {"blocks": "middle-third"}, "Mid-1/3"),
        (7, {"method": "l2e_no_threshold"}, "No-Thr"),
        (8, {"method": "reverse_deactivation"}, "RD"),
        (1, {"weight": 0}, "Pythia"),
    ],
)
def test_a_run_goes_into_the_row_of_its_settings(
    study: dict[tuple[str, int], Path], tmp_path: Path, table: int, settings: dict[str, Any], row: str
) -> None:
    run = load_run(change_setting(study["l2e", 1], tmp_path / "run", **settings))
    groups, notes = group_runs([run], table)
    assert [(group.scale, group.setting, list(group.runs)) for group in groups] == [("tiny", row, [1])]
    assert notes == []


@pytest.mark.parametrize("settings", [{"rate": 0.01}, {"blocks": [1]}, {"method": "naive_a"}])
def test_other_settings_have_no_row_and_that_is_said(
    study: dict[tuple[str, int], Path], tmp_path: Path, settings: dict[str, Any]
) -> None:
    run = load_run(change_setting(study["l2e", 1], tmp_path / "mine", **settings))
    groups, notes = group_runs([run, load_run(study["none", 1])], 1)
    assert [group.setting for group in groups] == ["Pythia"]
    assert notes == ["mine has no row in Table 1: its method or settings are not among the table's."]


def test_what_else_differs_between_the_methods_is_said(study: dict[tuple[str, int], Path], tmp_path: Path) -> None:
    run = change_setting(study["l2e", 1], tmp_path / "longer")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["training"]["steps"] = 61
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    _, notes = group_runs([load_run(run), load_run(study["none", 1])], 1)
    assert notes == ["The tiny runs differ in `training`: their differences are not the method's alone."]


def test_a_row_takes_one_run_for_each_seed(study: dict[tuple[str, int], Path], tmp_path: Path) -> None:
    again = change_setting(study["l2e", 1], tmp_path / "again")
    with pytest.raises(UserError, match="are both L2E, tiny, seed 1"):
        write_report([study["l2e", 1], again], tmp_path / "out", 1)


def test_table_2_has_the_median_time_of_a_step(study: dict[tuple[str, int], Path], tmp_path: Path) -> None:
    write_report([study["none", 1], study["l2e", 1]], tmp_path, 2)
    times = {}
    for method in ("none", "l2e"):
        lines = [json.loads(line) for line in (study[method, 1] / "metrics.jsonl").read_text().splitlines()]
        speed = np.median([line["tokens_per_second"] for line in lines if "tokens_per_second" in line])
        times[method] = 1000 * 8 * 128 / speed
    rows = [line for line in (tmp_path / "report.md").read_text().splitlines() if "| here |" in line]
    assert plain(rows[0])[-1] == pytest.approx(times["none"], abs=0.051)
    relative = 100 * (times["l2e"] / times["none"] - 1)
    assert plain(rows[2]) == pytest.approx([times["l2e"], relative], abs=0.051)
    assert "| 605.8 | \N{EN DASH} |" in (tmp_path / "report.md").read_text()


def test_the_latex_table_holds_the_same_cells(study: dict[tuple[str, int], Path], tmp_path: Path) -> None:
    rows = filled(list(study.values()), tmp_path, 1)
    text = (tmp_path / "table1.tex").read_text()
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(body) == 1 + len(rows)
    assert all(line.count(" & ") == 10 for line in body)
    ours = rows["tiny", "L2E", "here"]["SciQ 0-shot"].strip("*")
    expected = ours.replace("±", r"$\pm$").replace("▲", r"$\blacktriangle$")
    assert rf"\textbf{{{expected}}}" in text
    assert r"\textbf{0.1877}" in text
    assert r"2.3\%" in text
    assert not re.search(r"(?<!\\)[%#_]", text.replace(r"\label{tab:l2e-1}", ""))
    assert text.count("{") == text.count("}")


def test_a_table_without_runs_is_the_paper_s(tmp_path: Path) -> None:
    rows = filled([], tmp_path, 4)
    assert len(rows) == 24
    assert rows["2.8B", "L2E-3%", "paper"]["ARC-Challenge 5-shot"] == "**0.2517**"
    for table in (3, 6):
        assert write_report([], tmp_path / str(table), table).is_file()
    with pytest.raises(UserError, match="1, 2, 3, 4, 5, 6, 7, 8, not 9"):
        write_report([], tmp_path, 9)


def test_several_sizes_are_not_compared_with_one_baseline(study: dict[tuple[str, int], Path], tmp_path: Path) -> None:
    run = change_setting(study["l2e", 1], tmp_path / "bigger")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"]["name"] = "pythia-70m"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    rows = filled([run, study["none", 1]], tmp_path / "out", 1)
    assert ("70M", "L2E", "here") in rows
    text = (tmp_path / "out" / "report.md").read_text()
    assert "no run of Pythia of this size" in text
    assert "minus baseline" not in text

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from l2e.reporting import load_run, write_report
from l2e.reporting.findings import findings, sentence
from l2e.reporting.paired import compare_runs

TASKS = ("world_arc", "world_piqa", "world_sciq")


def tables(report: Path) -> dict[str, list[list[str]]]:
    """Title to rows (header first) of the tables of report.md."""
    found: dict[str, list[list[str]]] = {}
    title = ""
    for line in (report / "report.md").read_text().splitlines():
        if match := re.match(r"\*\*(.+?)\.\*\*", line):
            title = match[1]
        if line.startswith("| ") and "---" not in line:
            found.setdefault(title, []).append([cell.strip().replace("\\", "") for cell in line.split("|")[1:-1]])
    return found


def test_the_accuracy_table_is_what_the_items_say(pair: list[Path], pair_report: Path, made_up: Any) -> None:
    header, *rows = tables(pair_report)["Accuracy"]
    assert header[1:5] == [f"{task} 0-shot (n = 80)" for task in TASKS] + ["up 0-shot"]
    assert [row[0] for row in rows] == ["chance", "untrained", "baseline, step 60", "l2e, step 60"]
    assert rows[0][1:5] == ["0.250", "0.250", "0.250", "–"]  # noqa: RUF001
    for row, run, step in zip(rows[1:], [pair[0], *pair], [0, 60, 60], strict=True):
        for column, (shots, task) in zip((1, 2, 3, 5, 6, 7), [(s, t) for s in (0, 5) for t in TASKS], strict=True):
            items = made_up.read_items(run, step, shots, task)
            expected = f"{items.mean():.3f} ± {stats.sem(items):.3f}"
            assert row[column].rstrip(" ▲▼") == expected
    ours, theirs = ([made_up.read_items(run, 60, 5, task).mean() for task in TASKS] for run in reversed(pair))
    assert rows[3][8] == f"{100 * (sum(ours) / sum(theirs) - 1):+.1f}%"


def test_the_paired_table_is_what_scipy_says(pair: list[Path], pair_report: Path, made_up: Any) -> None:
    rows = tables(pair_report)["Paired differences"][1:]
    accuracy = {row[0]: row for row in tables(pair_report)["Accuracy"]}["l2e, step 60"]
    assert len(rows) == 6
    marked = 0
    for row, column, (shots, task) in zip(
        rows, (1, 2, 3, 5, 6, 7), [(s, t) for s in (0, 5) for t in TASKS], strict=True
    ):
        change = made_up.read_items(pair[1], 60, shots, task) - made_up.read_items(pair[0], 60, shots, task)
        difference, error = 100 * change.mean(), 100 * stats.sem(change)
        gained, lost = int((change > 0).sum()), int((change < 0).sum())
        p = stats.binomtest(gained, gained + lost).pvalue
        beyond = abs(difference) > 2 * error and p < 0.05
        marked += beyond
        mark = " ▲" if beyond else ""
        assert row[:3] == ["l2e", f"{task}, {shots}-shot", "80"]
        assert row[3] == f"{difference:+.1f} ± {error:.1f}{mark}".replace("-", "−")  # noqa: RUF001
        assert row[4:6] == [str(gained), str(lost)]
        assert row[6] == (f"{p:.3f}" if p >= 0.001 else "< 0.001")
        assert accuracy[column].endswith("▲") == beyond
    assert marked


def test_the_loss_table(pair: list[Path], pair_report: Path) -> None:
    rows = {row[0]: row[1:] for row in tables(pair_report)["Loss"]}
    lines = {run.name: [json.loads(line) for line in (run / "metrics.jsonl").open()] for run in pair}
    ends = {name: [one for one in found if "validation_loss" in one][-1] for name, found in lines.items()}
    for name, end in ends.items():
        last = [one["loss"] for one in lines[name] if "loss" in one][-1]
        loss = end["validation_loss"]
        assert rows[name][:5] == ["60", f"{last:.3f}", f"{loss:.3f}", "60", f"{math.exp(loss):.2f}"]
    change = ends["l2e"]["validation_loss"] - ends["baseline"]["validation_loss"]
    assert rows["l2e"][5] == f"{change:+.3f}".replace("-", "−")  # noqa: RUF001


def test_the_csv_beside_a_figure_holds_the_metrics(pair: list[Path], pair_report: Path) -> None:
    with (pair_report / "figures" / "loss.csv").open() as file:
        rows = list(csv.DictReader(file))
    for run in pair:
        record = load_run(run)
        ours = [row for row in rows if row["run"] == run.name]
        assert [float(row["loss"]) for row in ours] == record.series("loss").values.tolist()
        validation = [float(row["validation_loss"]) for row in ours if row["validation_loss"]]
        assert validation == record.series("validation_loss").values.tolist()
    with (pair_report / "figures" / "threshold.csv").open() as file:
        found = [float(row["threshold"]) for row in csv.DictReader(file) if row["block"] == "3"]
    expected = load_run(pair[1]).series("inhibition/block3/threshold").values
    np.testing.assert_array_equal(found, expected)


def test_every_figure_is_kept_as_png_svg_and_csv(pair_report: Path) -> None:
    names = {path.name for path in (pair_report / "figures").iterdir()}
    figures = ("loss", "accuracy", "threshold", "strength")
    assert names == {f"{figure}.{ending}" for figure in figures for ending in ("png", "svg", "csv")}


def changed(pair_of_runs: list[Path], made_up: Any, ours: list[int], theirs: list[int]) -> Any:
    for run, items in zip(pair_of_runs, (theirs, ours), strict=True):
        made_up.items(run / "eval" / "step60" / "0-shot" / "samples_world_arc.jsonl", np.array(items))
    found = compare_runs([load_run(run) for run in pair_of_runs])
    return next(one for one in found if one.column == (0, "world_arc"))


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ([1] * 60 + [0] * 40, [1] * 30 + [0] * 70, "30.0 ± 4.6 points above .* more than the noise"),
        ([1] * 30 + [0] * 70, [1] * 60 + [0] * 40, "30.0 ± 4.6 points below .* more than the noise"),
        ([1] * 35 + [0] * 65, [1] * 30 + [0] * 70, "only 5 items changed .* not enough to conclude"),
        ([1] * 31 + [0] * 69, [1] * 30 + [0] * 70, "1.0 ± 1.0 points above .* within noise"),
        ([0, 1] * 50, [1, 0] * 50, "level with .* within noise"),
        ([1] * 30 + [0] * 70, [1] * 30 + [0] * 70, "answers every item as the baseline"),
        ([1], [0], "nothing can be concluded"),
    ],
)
def test_the_sentence_claims_no_more_than_the_items_do(
    tmp_path: Path, made_up: Any, ours: list[int], theirs: list[int], expected: str
) -> None:
    runs = [made_up.run(tmp_path / "base", method="none"), made_up.run(tmp_path / "l2e")]
    assert re.search(expected, sentence(changed(runs, made_up, ours, theirs)))


def test_only_common_items_are_compared(tmp_path: Path, made_up: Any) -> None:
    runs = [made_up.run(tmp_path / "base", method="none"), made_up.run(tmp_path / "l2e", items=50)]
    (runs[1] / "eval/step60/0-shot/samples_world_piqa.jsonl").unlink()
    records = [load_run(run) for run in runs]
    assert {one.n for one in compare_runs(records)} == {50}
    assert any("world_piqa (0-shot): no items in common" in text for text in findings(records))


def test_other_prompts_are_other_items(tmp_path: Path, made_up: Any) -> None:
    runs = [made_up.run(tmp_path / "base", method="none"), made_up.run(tmp_path / "l2e")]
    file = runs[1] / "eval/step60/0-shot/samples_world_arc.jsonl"
    file.write_text(file.read_text().replace('"h', '"other'))
    assert (0, "world_arc") not in [one.column for one in compare_runs([load_run(run) for run in runs])]


def test_what_else_differs_is_said(tmp_path: Path, made_up: Any) -> None:
    runs = [made_up.run(tmp_path / "base", method="none"), made_up.run(tmp_path / "l2e", seed=1, steps=30)]
    text = " ".join(findings([load_run(run) for run in runs]))
    assert "differs from the baseline in seed, training.steps and" not in text
    assert "seed, training.steps, the step evaluated too: a difference cannot be put down to the method" in text


def test_seeds_are_not_claimed_to_be_measured(tmp_path: Path, made_up: Any) -> None:
    base = made_up.run(tmp_path / "base", method="none", evaluate=False)
    two = [made_up.run(tmp_path / f"l2e-{seed}", seed=seed, evaluate=False) for seed in (0, 1)]
    assert "One seed per method" in findings([load_run(base), load_run(two[0])])[-1]
    assert "not pooled" in findings([load_run(run) for run in (base, *two)])[-1]
    assert "One run with one seed" in findings([load_run(base)])[-1]


def test_untrained_models_that_differ_have_a_row_each(tmp_path: Path, made_up: Any) -> None:
    runs = [made_up.run(tmp_path / "base", method="none"), made_up.run(tmp_path / "l2e")]
    made_up.evaluation(runs[1], 0, 80, 0.3, np.random.default_rng(8))
    rows = tables(write_report(runs, tmp_path / "report").parent)["Accuracy"]
    assert [row[0] for row in rows[2:4]] == ["base, untrained", "l2e, untrained"]

"""The numbers of the papers against each other: what was typed wrong would break an identity."""

import numpy as np
import pytest
import yaml
from scipy.stats import t as student
from scipy.stats import ttest_rel

from l2e.reporting import up
from l2e.reporting.published import SHOTS, PublishedRow, PublishedTable, accuracy_table, accuracy_tables, published

ITEMS = {"ARC-Challenge": 1172, "ARC-Easy": 2376, "PIQA": 1838, "SciQ": 1000}
PRINTED_UP = [1, 4, 5, 7, 8]


@pytest.mark.parametrize("number", [1, 4, 5, 6, 7, 8])
def test_every_accuracy_is_a_number_of_right_items(number: int) -> None:
    table = accuracy_table(number)
    for row in table.rows:
        for shots in SHOTS:
            for column, value in zip(table.columns, row.accuracies[shots], strict=True):
                right = round(value * ITEMS[column])
                assert round(right / ITEMS[column], 4) == value, (number, row, column)


def test_up_gives_every_printed_cell_but_the_misprints() -> None:
    wrong, cells = [], 0
    for number in PRINTED_UP:
        table = accuracy_table(number)
        for row in table.rows:
            base = next(one for one in table.rows if (one.scale, one.setting) == (row.scale, "Pythia"))
            for shots in SHOTS:
                if row.setting == "Pythia":
                    assert row.up[shots] is None
                    continue
                cells += 1
                computed, printed = up(row.accuracies[shots], base.accuracies[shots]), str(row.up[shots])
                places = len(printed.rstrip("%").partition(".")[2])
                if f"{computed:.{places}f}%" != printed:
                    wrong.append((number, row.scale, row.setting, f"{shots}-shot up"))
    known = [(o["table"], o["scale"], o["setting"], o["cell"]) for o in misprints() if o["cell"].endswith("up")]
    assert cells == 72
    assert sorted(wrong) == sorted(known)
    assert len(known) == 3


def test_a_row_that_several_tables_repeat_is_the_same_but_for_the_misprints() -> None:
    first, other = accuracy_table(1), []
    for number in (4, 5, 6, 7, 8):
        table = accuracy_table(number)
        for row in table.rows:
            same = {"L2E-2%": "L2E", "Mid-2": "L2E"}.get(row.setting, row.setting)
            for one in first.rows:
                if (one.scale, one.setting) == (row.scale, same):
                    other += [(number, *cell) for cell in differing(first, one, table, row)]
    known = [(o["table"], o["scale"], o["setting"], o["cell"]) for o in misprints() if o["table"] == 6]
    assert sorted(other) == sorted(known)
    assert len(known) == 2


def differing(
    first: PublishedTable, one: PublishedRow, table: PublishedTable, row: PublishedRow
) -> list[tuple[str, str, str]]:
    found = []
    for shots in SHOTS:
        ours = dict(zip(table.columns, row.accuracies[shots], strict=True))
        theirs = dict(zip(first.columns, one.accuracies[shots], strict=True))
        found += [
            (row.scale, row.setting, f"{shots}-shot {name}")
            for name in ours.keys() & theirs.keys()
            if ours[name] != theirs[name]
        ]
    return found


def misprints() -> list[dict[str, str]]:
    return published()["l2e"]["misprints"]


def test_the_step_times_give_the_printed_percentages() -> None:
    entry = published()["l2e"]["step_time"]
    baseline = entry["rows"][0]
    for row in entry["rows"][1:]:
        for scale, printed in row["up"].items():
            places = len(printed.rstrip("%").partition(".")[2])
            assert f"{100 * (row[scale] / baseline[scale] - 1):.{places}f}%" == printed
    hidden = {"70M": 512, "410M": 1024, "2.8B": 2560}
    assert entry["neurons_per_layer"] == {scale: 2048 * size for scale, size in hidden.items()}


def test_memels_averages_and_t_tests_follow_from_its_tables() -> None:
    tables = published()["memel"]["tables"]
    for row in [*tables[1]["rows"].values(), *tables[6]["rows"].values()]:
        assert np.mean(row[:-1]) == pytest.approx(row[-1], abs=0.05)
    tests = tables[9]["rows"]
    imagenet = ttest_rel(tables[2]["rows"]["MEmeL-Tune"], tables[2]["rows"]["Original"])
    assert (round(imagenet.pvalue, 2), round(imagenet.statistic, 2)) == tuple(tests["ImageNet"][:2])
    glue = np.array([tables[1]["rows"][name] for name in ("MEmeL-Tune", "Original")])
    with_average, without = ttest_rel(*glue), ttest_rel(*glue[:, :-1])
    assert round(with_average.pvalue, 2) == tests["GLUE"][0]  # the misprint: the average counted as a tenth task
    assert with_average.statistic == pytest.approx(tests["GLUE"][1], abs=0.011)
    assert f"p {without.pvalue:.3f}, t {without.statistic:.2f}" == published()["memel"]["misprints"][0]["expected"]
    hko = [np.mean(tables[3]["rows"][name]) for name in ("Original", "MEmeL-Tune")]
    assert hko == pytest.approx(tests["HKO-7"][2:], abs=0.0051)
    assert round(2 * student.sf(2.38, 5), 2) == tests["HKO-7"][0]  # three runs of two metrics: 5 degrees of freedom


def test_memels_pretraining_gains_are_those_of_the_text() -> None:
    rows = published()["memel"]["tables"][5]["rows"]
    gain = [100 * (1 - rows["T-MEmeL"][place] / rows["T-Original"][place]) for place in (0, 1)]
    assert gain == pytest.approx([0.184, 1.290], abs=0.0006)


def test_public_pythia_is_the_comparison_of_the_reference() -> None:
    """The paper's baseline less the public model in standard errors, as method.md 2.20 has them."""
    columns = published()["pythia"]["columns"]
    public = {row["scale"]: row for row in published()["pythia"]["rows"]}
    expected = {
        ("70M", 5, "SciQ"): -14.6,
        ("410M", 5, "SciQ"): -31,
        ("2.8B", 5, "SciQ"): -42.8,
        ("70M", 0, "PIQA"): -1.1,
    }
    for (scale, shots, task), z in expected.items():
        theirs = public[scale][f"{shots}-shot"][columns.index(task)]
        row = next(r for r in accuracy_table(1).rows if (r.scale, r.setting) == (scale, "Pythia"))
        ours = row.accuracies[shots][accuracy_table(1).columns.index(task)]
        error = np.sqrt(theirs * (1 - theirs) / (ITEMS[task] - 1))
        assert (ours - theirs) / error == pytest.approx(z, abs=0.51 if abs(z) > 30 else 0.06)


def test_the_tables_are_the_papers() -> None:
    assert accuracy_tables() == [1, 4, 5, 6, 7, 8]
    assert [len(accuracy_table(number).rows) for number in accuracy_tables()] == [9, 12, 12, 6, 9, 9]
    assert accuracy_table(4).settings == ["Pythia", "L2E-1%", "L2E-2%", "L2E-3%"]
    assert accuracy_table(7).scales == ["70M", "410M", "2.8B"]
    assert sorted(published()["memel"]["tables"]) == list(range(1, 10))
    assert yaml.safe_dump(published())  # plain data

"""Tables of probes as CSV, and ours beside somebody else's."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from probing_samples import sample

from l2e.analysis.probe_settings import ProbeSettings
from l2e.analysis.probe_table import GURNEE_NAMES, Listed, compare, read_listed, write_table
from l2e.analysis.probing import probe_listed, probe_neurons
from l2e.errors import UserError

# The header and rows of interpretable_neurons/pythia-70m/all_neurons_of_interest.csv, shortened.
HEADER = "model,dataset,feature,layer,neuron,test_mcc,test_f1_score,test_precision,test_recall,coef"
ROWS = """
pythia-70m,natural_lang_id.pyth.512.-1,de,0,1439,1.0,1.0,1.0,1.0,36.39742
pythia-70m,natural_lang_id.pyth.512.-1,fr,3,609,1.0,1.0,1.0,1.0,5.855191
pythia-70m,text_features.pyth.256.10000,all_digits,0,186,0.99,0.99,0.99,1.0,12.863045
"""


def test_a_published_table_is_read(tmp_path: Path) -> None:
    file = tmp_path / "all_neurons_of_interest.csv"
    file.write_text(HEADER + ROWS)
    rows = read_listed(file, GURNEE_NAMES["natural_language"], ("de", "fr", "it"))
    assert [row.key for row in rows] == [(0, 1439, "de"), (3, 609, "fr")]
    assert [row.f1 for row in rows] == [1.0, 1.0]


def test_our_table_has_the_published_columns_first(tmp_path: Path) -> None:
    activations, features = sample()
    table = probe_neurons("pythia-x", activations, features, ProbeSettings(ranked=3))
    write_table(tmp_path / "probes.csv", table)
    with (tmp_path / "probes.csv").open() as file:
        rows = list(csv.reader(file))
    assert ",".join(rows[0][:10]) == HEADER
    assert len(rows) == 1 + len(table)
    first = table[0]
    assert rows[1][:5] == ["pythia-x", "languages", first.feature, str(first.layer), str(first.neuron)]
    assert [float(cell) for cell in rows[1][5:7]] == [first.test_mcc, first.test_f1_score]
    read = read_listed(tmp_path / "probes.csv", "languages", features.label_names)
    assert [row.f1 for row in read] == [row.test_f1_score for row in table]


def test_a_table_against_itself_agrees_in_full(tmp_path: Path) -> None:
    activations, features = sample()
    config = ProbeSettings(ranked=5)
    table = probe_neurons("m", activations, features, config)
    write_table(tmp_path / "probes.csv", table)
    listed = read_listed(tmp_path / "probes.csv", "languages", features.label_names)
    probed = probe_listed("m", activations, features, [row.key for row in listed], config)
    found = compare(listed, probed, table, cut=0.7)
    assert found.both == found.theirs == found.ours == sum(row.test_f1_score > 0.7 for row in table) > 0
    assert all(theirs.f1 == mine.test_f1_score for theirs, mine in found.rows)
    assert len(found.rows) == len(table)


def test_overlap_by_hand() -> None:
    activations, features = sample()
    one = probe_neurons("m", activations, features, ProbeSettings(ranked=1))[0]
    ours = [replace(one, layer=0, neuron=n, feature="a", test_f1_score=f) for n, f in ((1, 0.95), (2, 0.92), (3, 0.5))]
    theirs = [Listed("m", "d", f, 0, n, score) for f, n, score in
              (("a", 1, 0.99), ("a", 3, 0.93), ("b", 2, 0.97), ("a", 2, 0.9), ("a", 7000, 1.0))]  # fmt: skip
    found = compare(theirs, ours, ours, cut=0.9)
    assert (found.both, found.theirs, found.ours) == (1, 4, 2)
    assert [(a.neuron, b.test_f1_score) for a, b in found.rows] == [(1, 0.95), (3, 0.5), (2, 0.92)]
    assert [row.neuron for row in found.outside] == [2, 7000]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("layer,neuron\n1,2\n", "no column model, dataset, feature, test_f1_score"),
        (HEADER + "\nm,natural_lang_id,de,zero,3,1,1,1,1,1\n", "line 2: layer, neuron"),
        (HEADER + "\nm,natural_lang_id,de\n", "line 2: layer, neuron"),
        (HEADER + ROWS.replace("natural_lang_id", "ewt"), r"begins with 'natural_lang_id'.*ewt.*Set compare_dataset"),
        (HEADER + "\n", "it has no rows"),
    ],
)
def test_tables_that_do_not_fit(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "theirs.csv"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=message):
        read_listed(file, "natural_lang_id", ("de", "fr"))

"""Figures and tables of probes and deactivations: what is drawn is what was found."""

import csv
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from probing_samples import HeldActivations, sample
from small_lms import collect, languages, small_lm

from l2e.analysis.deactivation import DeactivateSettings, sequence_losses
from l2e.analysis.neurons import deactivated, parse_group
from l2e.analysis.probe_settings import ProbeSettings
from l2e.analysis.probe_table import best_neurons, write_table
from l2e.analysis.probing import halves, probe_neurons, split
from l2e.errors import UserError
from l2e.reporting.analysis.deactivate import draw_deactivate
from l2e.reporting.analysis.probe import ProbedModel, _places, draw_probe, top_figure
from l2e.reporting.cells import Table
from l2e.reporting.pictures import Picture, save


@dataclass
class HeldSubject:
    """A model under analysis that is in memory."""

    name: str
    parameters: int
    held: HeldActivations
    model: Any = None

    def activations(self) -> HeldActivations:
        return self.held

    def load(self) -> Any:
        return self.model


def rows_of(picture: Picture) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(picture.csv_text)))


def of_kind(parts: list, kind: type) -> list:
    return [part for part in parts if isinstance(part, kind)]


@pytest.fixture(scope="module")
def probed() -> tuple:
    first, features = sample(seed=1)
    second, _ = sample(seed=1, layers=3)
    subjects = [HeldSubject("pythia-70m", 70_000_000, first), HeldSubject("pythia-410m", 410_000_000, second)]
    settings = ProbeSettings(ranked=6, top=4, cut=0.6)
    return subjects, features, settings, draw_probe(settings, features, subjects)


def test_figure_10(probed) -> None:
    subjects, features, settings, parts = probed
    picture = of_kind(parts, Picture)[0]
    rows = rows_of(picture)
    assert [(row["model"], row["parameters"]) for row in rows] == [
        ("pythia-70m", "70000000"),
        ("pythia-410m", "410000000"),
    ]
    for row, subject in zip(rows, subjects, strict=True):
        table = probe_neurons(subject.name, subject.held, features, settings)
        f1 = sorted({(r.layer, r.neuron): 0.0 for r in table})  # distinct neurons, best label of each
        best = sorted((max(r.test_f1_score for r in table if (r.layer, r.neuron) == key) for key in f1), reverse=True)[
            :4
        ]
        assert float(row["mean"]) == pytest.approx(np.mean(best))
        assert (float(row["lowest"]), float(row["highest"])) == (best[-1], best[0])
        fair = [r.confirm_f1_score for r in best_neurons(table, 4, by="select_f1_score")]
        assert float(row["confirmed_mean"]) == pytest.approx(np.mean(fair))
    assert "luck" in picture.caption
    assert "70m" in picture.svg or picture.svg.startswith("<svg")


def test_all_probes_are_beside_the_figure_in_the_published_columns(probed) -> None:
    subjects, features, settings, parts = probed
    picture = of_kind(parts, Picture)[1]
    rows = rows_of(picture)
    expected = [row for s in subjects for row in probe_neurons(s.name, s.held, features, settings)]
    assert len(rows) == len(expected) == (2 + 3) * 3 * 6
    assert [float(row["test_f1_score"]) for row in rows] == [row.test_f1_score for row in expected]
    published = "model dataset feature layer neuron test_mcc test_f1_score test_precision test_recall coef"
    assert " ".join(list(rows[0])[:10]) == published


def test_counts_above_the_cut_are_told(probed) -> None:
    subjects, features, settings, parts = probed
    for sentence, subject in zip(of_kind(parts, str), subjects, strict=True):
        table = probe_neurons(subject.name, subject.held, features, settings)
        high = [row for row in table if row.test_f1_score > 0.6]
        assert high
        assert sentence.startswith(f"{subject.name} on languages: {len(high)} (neuron, label) pairs")
        for label in features.label_names:
            count = sum(row.feature == label for row in high)
            assert f"{label} {count}" in sentence
    (table,) = of_kind(parts, Table)
    assert len(table.rows) == 8
    assert all(len(row) == len(table.header) for row in table.rows)


def test_sets_of_labels_share_a_figure() -> None:
    studies = []
    for seed, name in enumerate(("natural_language", "code_language")):
        activations, features = sample(seed=seed, layers=1)
        features = type(features)(**(vars(features) | {"name": name}))
        rows = probe_neurons("m", activations, features, ProbeSettings(ranked=5))
        studies.append(ProbedModel("m", 10, features, 1, rows))
    rows = rows_of(top_figure(studies, ProbeSettings(top=3)))
    assert [row["dataset"] for row in rows] == ["natural_language", "code_language"]


def test_models_of_one_size_stand_beside_each_other() -> None:
    activations, features = sample(layers=1)
    rows = probe_neurons("m", activations, features, ProbeSettings(ranked=5))
    studies = [ProbedModel(name, 10, features, 1, rows) for name in ("baseline", "l2e")]
    picture = top_figure(studies, ProbeSettings(top=3))
    assert [row["model"] for row in rows_of(picture)] == ["baseline", "l2e"]
    assert _places(studies, studies) == [0.0, 1.0]
    other = replace(studies[1], parameters=7)
    assert _places([studies[0], other], [studies[0], other]) == [10.0, 7.0]


def test_a_table_to_compare_with(probed, tmp_path: Path) -> None:
    subjects, features, settings, _ = probed
    table = probe_neurons("theirs", subjects[0].held, features, settings)
    write_table(tmp_path / "theirs.csv", table)
    asked = ProbeSettings(ranked=6, top=4, cut=0.6, compare=str(tmp_path / "theirs.csv"))
    parts = draw_probe(asked, features, subjects[:1])
    picture = of_kind(parts, Picture)[-1]
    rows = rows_of(picture)
    assert len(rows) == len(table)
    assert all(row["f1_there"] == row["f1_here"] for row in rows)
    assert "Pythia v0" in picture.caption
    count = sum(row.test_f1_score > 0.6 for row in table)
    assert (
        f"{count} (layer, neuron, label) are above F1 0.6 in both tables, of {count} there and {count} here"
        in parts[-1]
    )
    with pytest.raises(UserError, match="cannot be read"):
        draw_probe(ProbeSettings(compare=str(tmp_path / "none.csv")), features, subjects)


@pytest.fixture(scope="module")
def subject() -> tuple:
    model, features = small_lm(), languages(per_label=60)
    return HeldSubject("pythia/tiny x", 990_000, HeldActivations(collect(model, features)), model), features


def test_named_neurons(subject) -> None:
    held, features = subject
    settings = DeactivateSettings(neurons=["L1.N5+L1.N6", "L0.N2"], controls=2, per_label=5)
    picture, table = draw_deactivate(settings, features, [held])
    rows = rows_of(picture)
    assert [(r["neurons"], r["kind"], r["label"]) for r in rows] == [
        (group, kind, label)
        for group in ("L1.N5+L1.N6", "L0.N2")
        for kind in ("deactivated", "random")
        for label in features.label_names
    ]
    assert {row["sequences"] for row in rows if row["kind"] == "deactivated"} == {"5"}
    assert {row["sequences"] for row in rows if row["kind"] == "random"} == {"10"}
    assert "by probing" not in picture.caption
    assert picture.name == "deactivate-pythia-tiny-x"
    assert [row[0] for row in table.rows] == ["L1.N5+L1.N6", "random, same layer", "L0.N2", "random, same layer"]


def test_neurons_found_by_probing_are_measured_on_other_sequences(subject, monkeypatch: pytest.MonkeyPatch) -> None:
    held, features = subject
    settings = DeactivateSettings(top=2, controls=0, per_label=None)
    picture, table = draw_deactivate(settings, features, [held])
    assert "chosen by probing on other sequences" in picture.caption
    rows = rows_of(picture)
    probing = ProbeSettings(solver="newton")
    probes = probe_neurons("m", held.held, features, probing)
    best = best_neurons(probes, 2, by="select_f1_score")
    assert list(dict.fromkeys(row["neurons"] for row in rows)) == [f"L{b.layer}.N{b.neuron}" for b in best]
    own = halves(split(features, probing).test)[1]
    for row in rows:
        mine = np.array([i for i in own if features.label_names[features.labels[i]] == row["label"]])
        plain = sequence_losses(held.model, features, mine)
        with deactivated(held.model, parse_group(row["neurons"])):
            without = sequence_losses(held.model, features, mine)
        assert int(row["sequences"]) == len(mine)
        assert float(row["mean"]) == pytest.approx(np.mean(100 * (without - plain) / plain), abs=1e-4)
    assert len(table.rows) == 2


def test_files_are_written(subject, tmp_path: Path) -> None:
    held, features = subject
    picture, _ = draw_deactivate(DeactivateSettings(neurons=["L0.N2"], controls=1, per_label=3), features, [held])
    save(picture, tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".png", ".svg", ".csv"}

"""Which neurons the studies look at."""

import math
from dataclasses import fields

import numpy as np
import pytest
from made_neurons import LABELS, PLANTS, MadeModel, made_features, made_model

from l2e.analysis import ms, neuron_choice
from l2e.analysis.neuron_choice import BY_MEAN_DIFFERENCE, Ranking, by_mean_difference, random_neurons, shuffled

FEATURES = made_features()
MODEL = made_model(FEATURES)


def test_a_ranking_of_ones_own() -> None:
    given = [one for one in by_mean_difference(MODEL, FEATURES, 20) if (one.layer, one.neuron) not in PLANTS][:2]
    ranking = Ranking("my probe", lambda activations, features, count: given)
    found = ms.measure(ms.MsConfig(top=2, control=False), [MODEL], FEATURES, ranking)
    assert found.ranked_by == "my probe"
    assert [(one.layer, one.neuron) for one in found.models[0].top] == [(one.layer, one.neuron) for one in given]
    assert found.models[0].control == ()


def test_mean_difference_by_loops() -> None:
    values = MODEL.values(1).astype(np.float64).copy()
    values[:, 4] = 2.5
    model = MadeModel("one layer", 1, [values.astype(np.float32)])
    found = by_mean_difference(model, FEATURES, 16)
    gaps = {}
    for neuron in set(range(16)) - {4}:
        column = model.values(0)[:, neuron].astype(np.float64)
        each = [abs(column[FEATURES.labels == k].mean() - column[FEATURES.labels != k].mean()) for k in range(4)]
        gaps[neuron] = (max(each) / column.std(), LABELS[int(np.argmax(each))])
    order = sorted(gaps, key=lambda neuron: -gaps[neuron][0])
    assert [one.neuron for one in found] == [*order, 4]
    assert found[-1].gap == 0
    for one in found[:-1]:
        assert one.gap == pytest.approx(gaps[one.neuron][0], rel=1e-9)
        assert one.feature == gaps[one.neuron][1]
    assert len(by_mean_difference(MODEL, FEATURES, 5)) == 5


def test_mean_difference_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    before, whole = MODEL.values(0).copy(), by_mean_difference(MODEL, FEATURES, 30)
    monkeypatch.setattr(neuron_choice, "_COLUMNS", 3)
    assert by_mean_difference(MODEL, FEATURES, 30) == whole
    np.testing.assert_array_equal(MODEL.values(0), before)


def test_random_neurons_are_a_fair_sample_without_repeats() -> None:
    picked = [(layer, neuron) for layer, some in random_neurons(MODEL, 30, 3) for neuron in some.tolist()]
    assert len(set(picked)) == 30
    assert picked == sorted(picked)
    again = [(layer, neuron) for layer, some in random_neurons(MODEL, 30, 3) for neuron in some.tolist()]
    other = [(layer, neuron) for layer, some in random_neurons(MODEL, 30, 4) for neuron in some.tolist()]
    assert picked == again != other
    assert sum(len(some) for _, some in random_neurons(MODEL, 10_000, 0)) == 48
    times = np.zeros((3, 16))
    for seed in range(600):
        for layer, some in random_neurons(MODEL, 12, seed):
            times[layer, some] += 1
    assert abs(times - 150).max() < 5 * math.sqrt(600 * 0.25 * 0.75)


def test_shuffled_labels_keep_their_numbers() -> None:
    mixed = shuffled(FEATURES, 1)
    assert np.bincount(mixed.labels).tolist() == np.bincount(FEATURES.labels).tolist()
    assert (mixed.labels != FEATURES.labels).mean() > 0.5
    same = {field.name for field in fields(FEATURES)} - {"labels"}
    assert all(getattr(mixed, key) is getattr(FEATURES, key) for key in same)


def test_the_default_ranking_has_a_name() -> None:
    assert ms.measure(ms.MsConfig(top=1, random=1), [MODEL], FEATURES).ranked_by == BY_MEAN_DIFFERENCE.name

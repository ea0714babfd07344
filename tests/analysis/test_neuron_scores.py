"""Every score against loops over exact fractions and against SciPy, on random and on awkward values."""

import statistics
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp

from l2e.analysis import (
    class_scores,
    false_killing_rate,
    ks_statistic,
    relatively_monosemantic_feature,
    scored_values,
)
from l2e.analysis.scores import feature_scores, killing, monosemanticity_scores, rest_scores


def exact_phi(column: np.ndarray) -> list[Fraction]:
    numbers = [Fraction(float(value)) for value in column]
    mean, n = sum(numbers) / len(numbers), len(numbers)
    squares = [(number - mean) ** 2 for number in numbers]
    var = sum(squares) / (n - 1)
    return [square / var if var else Fraction(0) for square in squares]


def exact(values: np.ndarray) -> list[list[Fraction]]:
    """phi, neuron by neuron."""
    return [exact_phi(values[:, neuron]) for neuron in range(values.shape[1])]


def mean_of(phi: list[Fraction], labels: np.ndarray, chosen) -> float:
    return float(statistics.mean([p for p, label in zip(phi, labels, strict=True) if chosen(label)]))


def best_label(phi: list[Fraction], labels: np.ndarray) -> int:
    present = sorted(set(labels.tolist()))
    means = [statistics.mean([p for p, own in zip(phi, labels, strict=True) if own == label]) for label in present]
    return present[means.index(max(means))]


def killing_by_loops(values: np.ndarray, labels: np.ndarray, rate: float, per_input: bool) -> float:
    phis = exact(values)
    best = [best_label(phi, labels) for phi in phis]
    hits = falses = 0
    groups = [[i] for i in range(len(labels))] if per_input else [range(len(labels))]
    for group in groups:
        pairs = [(phi[i], labels[i] != best[j]) for j, phi in enumerate(phis) for i in group]
        k = max(1, round(rate * len(pairs)))
        tau = sorted((phi for phi, _ in pairs), reverse=True)[k - 1]
        hits += sum(phi >= tau for phi, _ in pairs)
        falses += sum(false for phi, false in pairs if phi >= tau)
    return falses / hits


def cases() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    draw = np.random.default_rng(3)
    labels = draw.integers(0, 4, 60)
    noise = draw.standard_normal((60, 7))
    planted = noise.copy()
    planted[labels == 2, 3] += 6
    planted[labels == 1, 4] -= 9
    outlier = noise.copy()
    outlier[17] = 1e4
    mixed = noise.copy()
    mixed[:, 2] = 0.1  # constant, and not exactly a binary fraction
    mixed[:, 5] = labels
    uneven = np.array([0] * 50 + [1] * 9 + [3])  # label 2 is missing, label 3 has one sequence
    return {
        "noise": (noise, labels),
        "single precision": (noise.astype(np.float32), labels),
        "half precision": (noise.astype(np.float16), labels),
        "planted": (planted, labels),
        "outlier": (outlier, labels),
        "far from zero": (noise * 1e-4 + 1e7, labels),
        "tiny": ((noise * 1e-38).astype(np.float32), labels),
        "tiny doubles": (noise * 1e-200, labels),
        "huge": (noise * 1e200, labels),
        "ties": (draw.integers(-2, 3, (60, 7)).astype(float), labels),
        "two values": (draw.integers(0, 2, (60, 7)).astype(float), labels),
        "signs around the mean": (np.repeat([[1.0], [-1.0]], 30, axis=0) * np.ones((1, 7)), labels),
        "constant among others": (mixed, labels),
        "uneven labels": (noise, uneven),
        "two sequences": (noise[:2], np.array([0, 1])),
        "one label": (noise, np.zeros(60, dtype=np.int64)),
        "one neuron": (noise[:, :1], labels),
    }


CASES = cases()


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    return CASES[request.param]


def test_scores_of_single_values(case: tuple[np.ndarray, np.ndarray]) -> None:
    values, _ = case
    expected = np.array(exact(values), dtype=np.float64).T
    np.testing.assert_allclose(monosemanticity_scores(values), expected, rtol=1e-9, atol=1e-15)


def test_class_and_rest_scores(case: tuple[np.ndarray, np.ndarray]) -> None:
    values, labels = case
    own, rest = class_scores(values, labels), rest_scores(values, labels)
    assert own.shape == rest.shape == (labels.max() + 1, values.shape[1])
    for neuron, phi in enumerate(exact(values)):
        for label in range(labels.max() + 1):
            if (labels == label).any():
                expected = mean_of(phi, labels, lambda own, label=label: own == label)
                assert own[label, neuron] == pytest.approx(expected, rel=1e-9, abs=1e-15)
            else:
                assert np.isnan(own[label, neuron])
            if (labels != label).any():
                expected = mean_of(phi, labels, lambda own, label=label: own != label)
                assert rest[label, neuron] == pytest.approx(expected, rel=1e-9, abs=1e-15)
            else:
                assert np.isnan(rest[label, neuron])


def test_relatively_monosemantic_feature(case: tuple[np.ndarray, np.ndarray]) -> None:
    values, labels = case
    best = [best_label(phi, labels) for phi in exact(values)]
    assert relatively_monosemantic_feature(values, labels).tolist() == best
    highest = class_scores(values, labels)[best, range(len(best))]
    np.testing.assert_array_equal(feature_scores(values, labels), highest)


def test_ks_against_scipy(case: tuple[np.ndarray, np.ndarray]) -> None:
    values, labels = case
    found = ks_statistic(values, labels)
    for neuron, phi in enumerate(exact(values)):
        numbers = np.array(phi, dtype=np.float64)
        inside = numbers[labels == best_label(phi, labels)]
        assert found[neuron] == pytest.approx(ks_2samp(inside, numbers, method="asymp").statistic, abs=1e-12)


@pytest.mark.parametrize("per_input", [False, True])
@pytest.mark.parametrize("rate", [1e-9, 0.02, 0.1, 0.5, 0.97, 1.0])
def test_false_killing_rate(case: tuple[np.ndarray, np.ndarray], rate: float, per_input: bool) -> None:
    values, labels = case
    expected = killing_by_loops(values, labels, rate, per_input)
    assert false_killing_rate(values, labels, rate, per_input) == pytest.approx(expected, abs=1e-15)


def test_an_example_worked_by_hand() -> None:
    # Neuron 0: mean 2, squared deviations 4 4 4 4 16, variance 32/4 = 8, phi 1/2 1/2 1/2 1/2 2.
    # Neuron 1: mean 1, squared deviations 1 1 1 1 16, variance 20/4 = 5, phi 1/5 1/5 1/5 1/5 16/5.
    values = np.array([[0, 0], [0, 0], [4, 0], [0, 0], [6, 5.0]])
    labels = np.array([0, 0, 1, 1, 1])
    values[3, 0] = 0
    np.testing.assert_allclose(
        class_scores(values, labels), [[0.5, 0.2], [1.0, 1.2]], rtol=1e-14
    )  # (1/2 + 1/2 + 2)/3 and (1/5 + 1/5 + 16/5)/3
    np.testing.assert_allclose(rest_scores(values, labels), [[1.0, 1.2], [0.5, 0.2]], rtol=1e-14)
    assert relatively_monosemantic_feature(values, labels).tolist() == [1, 1]
    # Of l* 1 a third lies above 1/2 (or 1/5), of everything a fifth: |2/3 - 4/5|.
    np.testing.assert_allclose(ks_statistic(values, labels), [2 / 15, 2 / 15], rtol=1e-12)
    # The two highest of ten (20%) are 16/5 and 2, both of label 1. The third highest is a tie of four 1/2, of which
    # two are of label 0: 2 of 6. Everything: 4 of 10.
    assert [false_killing_rate(values, labels, rate) for rate in (0.2, 0.3, 1.0)] == [0, pytest.approx(1 / 3), 0.4]
    # One of two for each input: neuron 0 for inputs 0 to 3, of which 0 and 1 are false, and neuron 1 for input 4.
    assert false_killing_rate(values, labels, 0.5, per_input=True) == pytest.approx(2 / 5)


def test_arrays_and_tensors_alike() -> None:
    values, labels = CASES["planted"]
    tensors = torch.tensor(values, dtype=torch.float32), torch.tensor(labels)
    arrays = values.astype(np.float32), labels.astype(np.int8)
    kept = tensors[0].clone()
    for score in (class_scores, rest_scores, ks_statistic, feature_scores, relatively_monosemantic_feature):
        one, other = score(*arrays), score(*tensors)
        assert isinstance(one, np.ndarray)
        assert isinstance(other, torch.Tensor)
        np.testing.assert_array_equal(one, other.numpy())
    assert false_killing_rate(*arrays, 0.1) == false_killing_rate(*tensors, 0.1)
    assert torch.equal(tensors[0], kept)
    doubles = torch.tensor(values)
    class_scores(doubles, tensors[1])
    assert torch.equal(doubles, torch.tensor(values))


@pytest.mark.parametrize("block", [1, 61, 200])
def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    values, labels = CASES["ties"]
    rates = [0.05, 0.3]
    whole = [class_scores(values, labels), ks_statistic(values, labels), killing(values, labels, rates).false]
    rows = killing(values, labels, rates, per_input=True).selected
    monkeypatch.setattr(scored_values, "BLOCK", block)
    parts = [class_scores(values, labels), ks_statistic(values, labels), killing(values, labels, rates).false]
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-13)
    np.testing.assert_array_equal(killing(values, labels, rates, per_input=True).selected, rows)


def test_features_chosen_elsewhere() -> None:
    values, labels = CASES["planted"]
    none = killing(values, labels, [1.0], features=np.full(7, 3))
    assert none.rate[0] == pytest.approx((labels != 3).mean())

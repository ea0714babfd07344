"""MS, l* and FKR against r_i: hand-made neurons, hand-worked curves (S01, L04, L05, L10)."""

import math

import numpy as np
import pytest
import torch

from l2e.analysis.toy.config import ToyRun
from l2e.analysis.toy.results import ToyResult
from l2e.analysis.toy.truth import Judged, Labelled, alive, judge, killed, labelled_values, roc

TRIANGLE = torch.tensor([[math.cos(a), math.sin(a)] for a in (0, 2 * math.pi / 3, 4 * math.pi / 3)])
RUN = ToyRun(features=3, inputs=2, neurons=4, density=0.05)


def hand_made(run: ToyRun = RUN) -> ToyResult:
    """Neurons: for feature 0 alone, for features 1 and 2 alike, for feature 2 alone, and a dead one."""
    weight = torch.stack([TRIANGLE[0], -TRIANGLE[0], TRIANGLE[2], TRIANGLE[0]], dim=1)
    bias = torch.tensor([-0.5, 0.0, -0.2, -5.0])
    return ToyResult(run, np.ones(1024), 1.0, np.array([1024]), {}, TRIANGLE, weight, bias, torch.zeros(4, 3))


def test_samples_hold_their_label_and_others_now_and_then() -> None:
    data = labelled_values(hand_made(), per_feature=5000)
    assert torch.bincount(data.labels).tolist() == [5000] * 3
    own = data.features[torch.arange(15_000), data.labels]
    assert own.min() > 0
    assert float(own.mean()) == pytest.approx(0.5, abs=0.01)
    others = (data.features > 0).sum(1) - 1
    assert float(others.double().mean()) == pytest.approx(2 * 0.05, abs=0.01)
    sample = 7
    cosines = data.features[sample] @ TRIANGLE @ TRIANGLE[0]
    assert float(data.values[sample, 0]) == pytest.approx(max(0.0, float(cosines) - 0.5), abs=1e-6)


def test_the_scores_find_what_was_built_in() -> None:
    result = hand_made()
    assert alive(result).tolist() == [True, True, True, False]
    judged = judge(result, labelled_values(result, per_feature=2000))
    np.testing.assert_allclose(judged.r, [1, 0.5, 1], atol=1e-6)
    assert judged.monosemantic.tolist() == [True, False, True]
    assert judged.answers_to.tolist()[::2] == [0, 2]
    assert judged.star.tolist()[::2] == [0, 2]
    for name in ("phi_l*", "K-S", "kurtosis"):
        one, two, other = judged.detectors[name]
        assert min(one, other) > two, name


def test_detectors_by_hand() -> None:
    """Labels 0, 0, 1, 1. Values 0, 0, 3, 3: mean 1.5, variance 3, phi 0.75 each. Values 0, 0, 0, 4: mean 1, variance 4,
    phi 0.25 three times and 2.25; l* = 1 with (0.25 + 2.25) / 2 = 1.25 against 0.25."""
    values = torch.tensor([[0.0, 0.0], [0.0, 0.0], [3.0, 0.0], [3.0, 4.0]])
    result = hand_made()
    two = ToyResult(
        RUN, result.losses, 1.0, result.steps, {}, TRIANGLE, result.weight_in[:, :2], result.bias[:2], torch.zeros(2, 3)
    )
    data = Labelled(values, torch.tensor([0, 0, 1, 1]), torch.zeros(4, 3))
    judged = judge(two, data)
    assert judged.star.tolist() == [0, 1]
    np.testing.assert_allclose(judged.detectors["phi_l*"], [0.75, 1.25], rtol=1e-6)
    np.testing.assert_allclose(judged.detectors["kurtosis"], [0.75**2, (3 * 0.25**2 + 2.25**2) / 4], rtol=1e-6)
    np.testing.assert_allclose(judged.detectors["hits"], [0, 0.25])  # 2% of 8: the one highest
    np.testing.assert_allclose(judged.detectors["hits, active"], [0, 1])
    # Neuron 0: all scores are equal. Neuron 1: one of l*'s two scores, and three of all four, are no larger than 0.25.
    np.testing.assert_allclose(judged.detectors["K-S"], [0, 0.25])


def test_killing_by_hand() -> None:
    """Two neurons, monosemantic for features 0 and 1. The two highest of 8 scores: neuron 0 in sample 3, label 1, but
    feature 0 is there: counted false, truly right; neuron 1 in sample 2, label 0 and no feature 1: false."""
    values = torch.tensor([[0.0, 0.0], [0.1, 0.0], [0.0, 9.0], [9.0, 1.0]])
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.5, 1.0]])
    data = Labelled(values, torch.tensor([0, 0, 0, 1]), features)
    judged = Judged(np.array([1.0, 1.0]), np.array([0, 1]), np.array([0, 1]), {})
    everything = torch.tensor([True, True])
    assert killed(data, judged, everything, 0.25) == (1.0, 0.5)
    swapped = Judged(np.array([1.0, 1.0]), np.array([0, 1]), np.array([1, 0]), {})  # l* is not what they answer to
    assert killed(data, swapped, everything, 0.25) == (0.0, 0.5)
    half = Judged(np.array([1.0, 0.5]), np.array([0, 1]), np.array([0, 1]), {})
    assert killed(data, half, everything, 0.25) == (1.0, 0.0)
    neither = Judged(np.array([0.5, 0.5]), np.array([0, 1]), np.array([0, 1]), {})
    assert all(math.isnan(share) for share in killed(data, neither, everything, 0.25))


def test_roc_by_hand() -> None:
    """Positives at 0.9 and 0.7, negatives at 0.8 and 0.6: three of four pairs are in order."""
    false, true, area = roc(np.array([0.6, 0.9, 0.7, 0.8]), np.array([False, True, True, False]))
    assert false.tolist() == [0, 0, 0.5, 0.5, 1]
    assert true.tolist() == [0, 0.5, 0.5, 1, 1]
    assert area == 0.75


def test_roc_is_the_share_of_pairs_in_order() -> None:
    random = np.random.default_rng(0)
    scores = random.integers(0, 8, 60).astype(float)  # with ties
    positive = random.random(60) < 0.3
    pairs = scores[positive][:, None] - scores[~positive][None]
    expected = ((pairs > 0) + 0.5 * (pairs == 0)).mean()
    assert roc(scores, positive)[2] == pytest.approx(expected)
    assert roc(-scores, positive)[2] == pytest.approx(1 - expected)


def test_without_positives_there_is_no_area() -> None:
    assert math.isnan(roc(np.arange(3.0), np.zeros(3, dtype=bool))[2])


def test_the_absolute_value_has_no_one_label() -> None:
    with pytest.raises(ValueError, match="either sign"):
        labelled_values(hand_made(ToyRun(features=3, inputs=2, neurons=4, task="absolute")))

"""What follows from the definitions, whatever the values (docs/analysis-scores.md)."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from hypothesis.extra.numpy import arrays
from scipy.stats import ks_2samp

from l2e.analysis import class_scores, false_killing_rate, ks_statistic, relatively_monosemantic_feature
from l2e.analysis.scores import feature_scores, killing, monosemanticity_scores, rest_scores

CLASSES = 4
RATES = [0.01, 0.1, 0.4, 1.0]


@some.composite
def labelled_values(draw) -> tuple[np.ndarray, np.ndarray]:
    """Few distinct numbers, so ties and constant neurons are common; some labels may be missing."""
    shape = draw(some.integers(2, 25)), draw(some.integers(1, 5))
    values = draw(arrays(np.float64, shape, elements=some.integers(-4, 4).map(lambda number: number / 2)))
    labels = draw(arrays(np.int64, shape[0], elements=some.integers(0, CLASSES - 1)))
    return values, labels


def present(labels: np.ndarray) -> np.ndarray:
    return np.bincount(labels, minlength=CLASSES)


@settings(max_examples=150, deadline=None)
@given(labelled_values())
def test_sums_and_bounds(case: tuple[np.ndarray, np.ndarray]) -> None:
    values, labels = case
    n, counts = len(labels), present(labels)
    varies = np.ptp(values, axis=0) > 0
    phi, own, rest = (
        monosemanticity_scores(values),
        class_scores(values, labels, CLASSES),
        rest_scores(values, labels, CLASSES),
    )
    # The scores of a neuron sum up to n - 1, so the class scores weighted by their sizes to (n - 1)/n.
    np.testing.assert_allclose(phi.sum(axis=0), (n - 1) * varies, rtol=1e-12)
    weighted = (counts[:, None] * np.nan_to_num(own)).sum(axis=0)
    np.testing.assert_allclose(weighted / n, (n - 1) / n * varies, rtol=1e-12)
    for label in range(CLASSES):
        parts = counts[label] * np.nan_to_num(own[label]) + (n - counts[label]) * np.nan_to_num(rest[label])
        np.testing.assert_allclose(parts, (n - 1) * varies, rtol=1e-12)
    # Samuelson's inequality; a class score is at most what one class would have if it had all; l* is at least average.
    assert (phi <= (n - 1) ** 2 / n * (1 + 1e-12)).all()
    best = feature_scores(values, labels, CLASSES)
    features = relatively_monosemantic_feature(values, labels, CLASSES)
    assert (best <= (n - 1) / counts[features] * (1 + 1e-12)).all()
    assert (best >= (n - 1) / n * varies * (1 - 1e-6)).all()


@settings(max_examples=150, deadline=None)
@given(labelled_values())
def test_ks_against_the_other_sequences_alone(case: tuple[np.ndarray, np.ndarray]) -> None:
    values, labels = case
    found, features = ks_statistic(values, labels), relatively_monosemantic_feature(values, labels)
    share = present(labels)[features] / len(labels)
    assert (found <= 1 - share + 1e-12).all()
    phi = monosemanticity_scores(values).astype(np.float32)
    for neuron, feature in enumerate(features):
        inside, outside = phi[labels == feature, neuron], phi[labels != feature, neuron]
        apart = ks_2samp(inside, outside, method="exact").statistic if len(outside) else 0.0
        assert found[neuron] == pytest.approx((1 - share[neuron]) * apart, abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(labelled_values(), some.booleans())
def test_killing_everything_depends_on_the_labels_alone(case: tuple[np.ndarray, np.ndarray], per_input: bool) -> None:
    values, labels = case
    features = relatively_monosemantic_feature(values, labels)
    expected = np.mean(1 - present(labels)[features] / len(labels))
    assert false_killing_rate(values, labels, 1.0, per_input) == pytest.approx(expected, abs=1e-12)
    found = killing(values, labels, RATES, per_input)
    assert ((found.rate >= 0) & (found.rate <= 1)).all()
    assert (found.false <= found.selected).all()
    assert (np.diff(found.selected, axis=0) >= 0).all()
    ranks = [max(1, round(rate * (values.shape[1] if per_input else values.size))) for rate in RATES]
    reached = found.selected.min(axis=1) if per_input else found.selected.sum(axis=1)
    assert (reached >= ranks).all()


@settings(max_examples=50, deadline=None)
@given(labelled_values(), some.randoms(use_true_random=False))
def test_what_changes_nothing(case: tuple[np.ndarray, np.ndarray], random) -> None:
    """Affine maps of a neuron, the order of the sequences, every sequence twice; a new order of labels or neurons."""
    values, labels = case
    slopes = np.array([random.choice([-3.0, -0.5, 0.25, 2.0]) for _ in range(values.shape[1])])
    shifts = np.array([random.uniform(-5, 5) for _ in range(values.shape[1])])
    order = np.array(random.sample(range(len(labels)), len(labels)))
    neurons = np.array(random.sample(range(values.shape[1]), values.shape[1]))
    own, distance = class_scores(values, labels, CLASSES), ks_statistic(values, labels)
    killed = killing(values, labels, RATES).rate
    for mapped, names in ((values * slopes + shifts, labels), (values[order], labels[order])):
        np.testing.assert_allclose(class_scores(mapped, names, CLASSES), own, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(ks_statistic(mapped, names), distance, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(killing(mapped, names, RATES).rate, killed, rtol=1e-9, atol=1e-12)
    twice = np.concatenate([values, values]), np.concatenate([labels, labels])
    n = len(labels)
    np.testing.assert_allclose(class_scores(*twice, CLASSES), own * (2 * n - 1) / (2 * n - 2), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(ks_statistic(*twice), distance, atol=1e-12)
    new = np.array(random.sample(range(CLASSES), CLASSES))
    np.testing.assert_allclose(class_scores(values, new[labels], CLASSES)[new], own, rtol=1e-9)
    np.testing.assert_allclose(class_scores(values[:, neurons], labels, CLASSES), own[:, neurons], rtol=1e-9)
    np.testing.assert_allclose(killing(values[:, neurons], labels, RATES).rate, killed, rtol=1e-12)


@pytest.mark.parametrize("sizes", [[10, 10, 10, 10], [3, 15, 7, 10]])
@pytest.mark.parametrize("sign", [1, -1])
def test_perfect_neurons(sizes: list[int], sign: int) -> None:
    """One value on a label, another elsewhere: each score is known, and inhibition hits nothing else."""
    labels = np.repeat(np.arange(4), sizes)
    values = 5.0 + sign * 2 * np.eye(4)[labels]  # neuron j answers to label j
    n, p = len(labels), np.array(sizes) / len(labels)
    assert relatively_monosemantic_feature(values, labels).tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(np.diag(class_scores(values, labels)), (1 - p) / p * (n - 1) / n, rtol=1e-12)
    np.testing.assert_allclose(np.diag(rest_scores(values, labels)), p / (1 - p) * (n - 1) / n, rtol=1e-12)
    np.testing.assert_allclose(ks_statistic(values, labels), 1 - p, rtol=1e-12)
    for rate in (0.01, 0.1, min(p)):
        assert false_killing_rate(values, labels, rate) == 0
    assert false_killing_rate(values, labels, 1.0) == pytest.approx(np.mean(1 - p))


def test_a_label_of_more_than_half_of_the_sequences() -> None:
    """Its perfect neuron deviates most where the label is *not*: phi measures distance from the mean, not activity."""
    labels = np.repeat([0, 1, 2], [30, 5, 5])
    neuron = (labels == 0).astype(float)[:, None]
    assert relatively_monosemantic_feature(neuron, labels).tolist() == [1]
    np.testing.assert_allclose(class_scores(neuron, labels)[:, 0] * 40 / 39, [1 / 3, 3, 3], rtol=1e-12)


def test_random_neurons_as_in_the_reference() -> None:
    """method.md 2.24: Gaussian neurons, 9 labels of 200 sequences, 0.82 at 1%, although no neuron knows a label."""
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(9), 200)
    assert false_killing_rate(draw.standard_normal((1800, 400)), labels, 0.01) == pytest.approx(0.82, abs=0.01)


def test_scores_need_torch_and_numpy_alone() -> None:
    script = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top in {"scipy", "sklearn", "transformers", "pydantic", "hydra", "matplotlib", "deepspeed", "yaml"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
import l2e.analysis
assert "torch" not in sys.modules
from l2e.analysis import class_scores, false_killing_rate, ks_statistic, relatively_monosemantic_feature
import numpy as np
values, labels = np.arange(12.0).reshape(6, 2) % 5, np.array([0, 1, 2, 0, 1, 2])
class_scores(values, labels), ks_statistic(values, labels), false_killing_rate(values, labels, 0.5)
ours = {name for name in sys.modules if name.startswith("l2e.")}
own = {f"l2e.analysis.{name}" for name in ("scores", "scored_values", "killing")}
assert ours <= {"l2e.lazy", "l2e.analysis"} | own, ours
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)

"""Scores at their limits: memory, labels without sequences, ties by rounding, and what is refused."""

import os
import subprocess
import sys

import numpy as np
import pytest

from l2e.analysis import (
    class_scores,
    false_killing_rate,
    ks_statistic,
    relatively_monosemantic_feature,
    scored_values,
    scores,
)
from l2e.analysis.scores import killing, monosemanticity_scores

DRAW = np.random.default_rng(3)
VALUES, LABELS = DRAW.standard_normal((60, 7)), DRAW.integers(0, 4, 60)


def test_memory_mapped_values_are_read_only_in_blocks(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    values, labels = VALUES.astype(np.float32), LABELS
    np.save(tmp_path / "values.npy", values)
    mapped = np.load(tmp_path / "values.npy", mmap_mode="r")
    monkeypatch.setattr(scored_values, "BLOCK", 120)
    largest = []
    read = scored_values.ScoredValues._read
    monkeypatch.setattr(
        scored_values.ScoredValues,
        "_read",
        lambda self, rows, columns: largest.append((block := read(self, rows, columns)).numel()) or block,
    )
    np.testing.assert_array_equal(class_scores(mapped, labels), class_scores(values, labels))
    killing(mapped, labels, [0.1])
    assert max(largest) <= 120


def test_what_is_refused() -> None:
    values, labels = VALUES, LABELS
    broken = values.copy()
    broken[4, 3] = np.nan
    with pytest.raises(ValueError, match="neuron 3 has values that are not finite"):
        class_scores(broken, labels)
    broken[4, 3] = np.inf
    with pytest.raises(ValueError, match="neuron 3"):
        ks_statistic(broken, labels)
    for bad in (labels[:-1], labels.astype(float), labels[:, None]):
        with pytest.raises(ValueError, match="labels must be 60 whole numbers"):
            class_scores(values, bad)
    with pytest.raises(ValueError, match="at least 0, not -1 to 3"):
        class_scores(values, np.where(labels == 0, -1, labels))
    with pytest.raises(ValueError, match="0 to 2, not 0 to 3"):
        class_scores(values, labels, classes=3)
    for bad in (values[:1], values[0], values[None]):
        with pytest.raises(ValueError, match="at least 2 sequences"):
            class_scores(bad, labels[: len(bad)])
    for rate in (0.0, -0.1, 1.01, float("nan")):
        with pytest.raises(ValueError, match="rate must lie in"):
            false_killing_rate(values, labels, rate)
    with pytest.raises(ValueError, match="at least one neuron"):
        false_killing_rate(values[:, :0], labels, 0.1)


def test_labels_that_tie_but_for_rounding() -> None:
    """Two labels mirrored at the mean score alike; which sums come out a bit larger must not decide."""
    draw = np.random.default_rng(0)
    half = draw.normal(0.3, 1, (31, 200))
    values, labels = np.concatenate([half, 1.4 - half]), np.repeat([0, 1], 31)
    order = draw.permutation(62)
    own = class_scores(values[order], labels[order])
    assert (own[0] < own[1]).any()  # by rounding
    assert (relatively_monosemantic_feature(values[order], labels[order]) == 0).all()


def test_memory_does_not_grow_with_the_number_of_neurons() -> None:
    script = """
import resource
import numpy as np
from l2e.analysis import class_scores, scored_values
from l2e.analysis.scores import ks_statistic

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

scored_values.BLOCK = 2**20
numbers, labels = np.random.default_rng(0).standard_normal(40_000).astype(np.float32), np.arange(4000) % 9
def many(neurons):  # a table that takes no room
    return np.lib.stride_tricks.as_strided(numbers, (4000, neurons), (4, 4))
found = []
for neurons in (2000, 16000):
    class_scores(many(neurons), labels)
    ks_statistic(many(neurons // 4), labels)
    found.append(peak())
assert found[1] - found[0] < 60, found  # 450 if each block kept its memory
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_no_neurons_have_no_scores() -> None:
    values, labels = np.empty((5, 0)), np.array([0, 1, 2, 0, 1])
    assert class_scores(values, labels).shape == (3, 0)
    assert monosemanticity_scores(values).shape == (5, 0)
    assert ks_statistic(values, labels).shape == relatively_monosemantic_feature(values, labels).shape == (0,)


def test_labels_without_sequences_at_the_end() -> None:
    values, labels = VALUES, LABELS
    found = class_scores(values, labels, classes=6)
    assert found.shape == (6, 7)
    assert np.isnan(found[4:]).all()
    np.testing.assert_array_equal(found[:4], class_scores(values, labels))
    assert (relatively_monosemantic_feature(values, labels, classes=6) < 4).all()
    assert scores.ks_statistic(values, labels, classes=6).tolist() == ks_statistic(values, labels).tolist()

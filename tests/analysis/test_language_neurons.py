"""Language neurons of a small Pythia that was trained on real text, by probing on passages of other sittings."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from language_model import LANGUAGES, Texts, collect, train, untrained
from probing_samples import HeldActivations

from l2e.analysis.probe_table import best_neurons
from l2e.analysis.probing import ProbeSettings, probe_neurons

STEPS = 200


@pytest.fixture(scope="module")
def analysed(real_data: Path) -> Any:
    """Losses, feature set, and the activations of the trained and the untrained model."""
    texts = Texts(real_data)
    model, losses = train(texts.stream, STEPS)
    return losses, texts.features, collect(model, texts.features), collect(untrained().eval(), texts.features)


def class_scores_by_hand(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """phi_l [classes, neurons] from L04, in double precision."""
    values = values.astype(np.float64)
    phi = (values - values.mean(axis=0)) ** 2 / values.var(axis=0, ddof=1)
    return np.stack([phi[labels == label].mean(axis=0) for label in range(len(LANGUAGES))])


@pytest.mark.slow
def test_language_neurons(analysed: Any) -> None:
    losses, features, activations, _ = analysed
    assert np.mean(losses[-20:]) < losses[0] - 2.0
    table = probe_neurons("small", HeldActivations(activations), features, ProbeSettings(solver="newton"))
    top = best_neurons(table, 10)
    print([(r.layer, r.neuron, r.feature, round(r.test_f1_score, 3), round(r.confirm_f1_score, 3)) for r in top])
    assert min(row.test_f1_score for row in top) > 0.95
    fair = best_neurons(table, 10, by="select_f1_score")
    assert np.mean([row.confirm_f1_score for row in fair]) > 0.9
    # Fig 3a: phi_l of the neurons far above phi_l^-, of all other labels; Fig 3b: and above phi_l* of random neurons.
    own, rest = [], []
    for row in top:
        scores = class_scores_by_hand(activations[row.layer][:, [row.neuron]], features.labels)[:, 0]
        label = LANGUAGES.index(row.feature)
        own.append(scores[label])
        rest.append(np.delete(scores, label).mean())
    random = np.random.default_rng(0)
    anywhere = [
        class_scores_by_hand(activations[layer][:, random.choice(512, 250)], features.labels).max(axis=0)
        for layer in range(4)
    ]
    print(np.round(own, 2), np.round(rest, 2), np.mean(anywhere), np.percentile(np.concatenate(anywhere), 95))
    assert all(mine > 5 * other for mine, other in zip(own, rest, strict=True))
    assert np.mean(own) > 1.5 * np.mean(anywhere)

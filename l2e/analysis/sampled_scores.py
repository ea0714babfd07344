"""phi_{l*} and K-S of random neurons of a model, layer by layer: what Figures 4, 5 and 9 are made of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2e.analysis.neuron_choice import random_neurons, shuffled
from l2e.analysis.subjects import FeatureSet, Subject
from l2e.errors import require

Score = Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]
"""Of values [sequences, neurons] and labels [sequences]: one number a neuron."""


@dataclass(kw_only=True)
class SampleSettings:
    """Which neurons, and how sure."""

    neurons: int = 1000
    """Random neurons of each model, from all its layers; all if it has no more."""

    seed: int = 0
    """Of the neurons, the shuffled labels and the resamples."""

    resamples: int = 2000
    """Of the neurons, for the intervals."""

    control: bool = True
    """Also score the same neurons with shuffled labels: what the score says where there is nothing to be found."""

    def __post_init__(self) -> None:
        for key in ("neurons", "resamples"):
            require(getattr(self, key) >= 1, key, "at least 1", getattr(self, key))


@dataclass(frozen=True)
class Sample:
    """One number for each sampled neuron of a model."""

    name: str
    parameters: int
    layers: int
    """Of the model."""
    layer: NDArray[np.int64]
    """[neurons]"""
    neuron: NDArray[np.int64]
    """[neurons], within its layer."""
    scores: NDArray[np.float64]
    """[neurons]"""
    control: NDArray[np.float64]
    """[neurons] with shuffled labels; empty if not asked for."""


def sample(settings: SampleSettings, subject: Subject, features: FeatureSet, score: Score) -> Sample:
    """Score random neurons of one model."""
    activations = subject.activations()
    mixed = shuffled(features, settings.seed).labels
    layers, neurons, scores, control = [], [], [], []
    for layer, chosen in random_neurons(activations, settings.neurons, settings.seed):
        values = activations.values(layer)[:, chosen]
        layers.append(np.full(len(chosen), layer))
        neurons.append(chosen)
        scores.append(score(values, features.labels))
        if settings.control:
            control.append(score(values, mixed))
    return Sample(
        subject.name,
        subject.parameters,
        activations.layers,
        np.concatenate(layers),
        np.concatenate(neurons),
        np.concatenate(scores),
        _joined(control),
    )


def _joined(parts: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.concatenate(parts) if parts else np.empty(0)

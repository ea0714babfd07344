"""Is MS a valid score? Neurons that tell a label against the other labels, and against random neurons (L06, L07)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from l2e.analysis.bootstrap import Interval, difference_interval, mean_interval
from l2e.analysis.neuron_choice import BY_MEAN_DIFFERENCE, Ranking, random_neurons, shuffled
from l2e.analysis.scores import class_scores, relatively_monosemantic_feature, rest_scores
from l2e.analysis.subjects import Activations, FeatureSet, Subject
from l2e.errors import require


@dataclass(kw_only=True)
class MsConfig:
    """Figures 3, 7 and 8."""

    kind: Literal["ms"] = "ms"

    top: int = 10
    """Neurons that tell a label best, of all layers."""

    random: int = 10
    """Random neurons of all layers."""

    ranking: Literal["probes", "mean_difference"] = "probes"
    """How the neurons that tell a label best are found: the published probes, or faster."""

    seed: int = 0
    """Of the random neurons, the shuffled labels and the resamples."""

    resamples: int = 2000
    """Of the neurons, for the intervals."""

    control: bool = True
    """Also choose as many neurons in the same way with shuffled labels: what choosing alone makes."""

    def __post_init__(self) -> None:
        for key in ("top", "random", "resamples"):
            require(getattr(self, key) >= 1, key, "at least 1", getattr(self, key))


@dataclass(frozen=True)
class NeuronScores:
    """One neuron: phi_l and phi_l^- of its label."""

    layer: int
    neuron: int
    label: str
    own: float
    rest: float


@dataclass(frozen=True)
class ModelScores:
    """One model: the top neurons with the label they tell, random ones with l*, and the control."""

    name: str
    parameters: int
    top: tuple[NeuronScores, ...]
    random: tuple[NeuronScores, ...]
    control: tuple[NeuronScores, ...]
    own: Interval
    """Mean phi_l of the top neurons, over resampled neurons."""
    rest: Interval
    """Mean phi_l^- of the same."""
    chance: Interval
    """Mean phi_{l*} of the random neurons."""
    over_rest: Interval
    """phi_l - phi_l^-, neuron by neuron."""
    over_random: Interval
    """phi_l of the top neurons minus phi_{l*} of the random ones."""


@dataclass(frozen=True)
class MsResult:
    """All models on one feature set."""

    features: str
    ranked_by: str
    models: tuple[ModelScores, ...]


def measure(
    settings: MsConfig, subjects: Sequence[Subject], features: FeatureSet, ranking: Ranking = BY_MEAN_DIFFERENCE
) -> MsResult:
    """Score the neurons that `ranking` puts first, and random ones.

    Args:
        settings: how many, and so on.
        subjects: models with activations on `features`.
        features: labelled sequences.
        ranking: how the top neurons are found.
    """
    models = [_model(settings, subject, features, ranking) for subject in subjects]
    return MsResult(features.name, ranking.name, tuple(models))


def _model(settings: MsConfig, subject: Subject, features: FeatureSet, ranking: Ranking) -> ModelScores:
    activations = subject.activations()
    top = _top(activations, features, ranking, settings.top)
    mixed = shuffled(features, settings.seed)
    control = _top(activations, mixed, ranking, settings.top) if settings.control else ()
    random = _random(activations, features, settings)
    own, rest, chance = (
        np.array([getattr(one, field) for one in group])
        for group, field in ((top, "own"), (top, "rest"), (random, "own"))
    )
    how = settings.resamples, settings.seed
    return ModelScores(
        name=subject.name,
        parameters=subject.parameters,
        top=top,
        random=random,
        control=control,
        own=mean_interval(own, *how),
        rest=mean_interval(rest, *how),
        chance=mean_interval(chance, *how),
        over_rest=mean_interval(own - rest, *how),
        over_random=difference_interval(own, chance, *how),
    )


def _top(activations: Activations, features: FeatureSet, ranking: Ranking, count: int) -> tuple[NeuronScores, ...]:
    found = []
    for one in ranking.find(activations, features, count):
        column = activations.values(one.layer)[:, one.neuron : one.neuron + 1]
        label = features.label_names.index(one.feature)
        found.append(_scores(column, features, one.layer, one.neuron, label))
    return tuple(found)


def _random(activations: Activations, features: FeatureSet, settings: MsConfig) -> tuple[NeuronScores, ...]:
    found = []
    for layer, neurons in random_neurons(activations, settings.random, settings.seed):
        for neuron in neurons.tolist():
            column = activations.values(layer)[:, neuron : neuron + 1]
            label = int(relatively_monosemantic_feature(column, features.labels)[0])
            found.append(_scores(column, features, layer, neuron, label))
    return tuple(found)


def _scores(column: NDArray[np.floating], features: FeatureSet, layer: int, neuron: int, label: int) -> NeuronScores:
    own = class_scores(column, features.labels, len(features.label_names))[label, 0]
    rest = rest_scores(column, features.labels, len(features.label_names))[label, 0]
    return NeuronScores(layer, neuron, features.label_names[label], float(own), float(rest))

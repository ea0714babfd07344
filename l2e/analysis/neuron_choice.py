"""Which neurons a study looks at: random ones, and those that tell a label best."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from l2e.analysis.subjects import Activations, FeatureSet

_COLUMNS = 256
"""Neurons that are in memory at a time: 58 MB for the 28,084 sequences of the largest set."""


class Chosen(Protocol):
    """A neuron with the label that it tells from the others."""

    @property
    def layer(self) -> int:
        """From 0."""
        ...

    @property
    def neuron(self) -> int:
        """Within its layer, from 0."""
        ...

    @property
    def feature(self) -> str:
        """Name of the label."""
        ...


class Ranking(NamedTuple):
    """A way to find the neurons that tell a label best."""

    name: str
    """For captions: what they are ranked by."""

    find: Callable[[Activations, FeatureSet, int], Sequence[Chosen]]
    """The best so many neurons over all layers and labels, each once, best first."""


@dataclass(frozen=True)
class Gap:
    """A neuron by how far its mean on one label lies from its mean on the others."""

    layer: int
    neuron: int
    feature: str
    gap: float
    """|mean of the label - mean of the rest| in standard deviations of the neuron."""


def by_mean_difference(activations: Activations, features: FeatureSet, count: int) -> list[Gap]:
    """The neurons with the widest gap between a label's mean and the rest's (Gurnee's ranking, without a probe).

    Constant neurons have no gap. Ties go to the lower layer, then the lower neuron.
    """
    found: list[Gap] = []
    for layer in range(activations.layers):
        gaps = _gaps(activations.values(layer), features)
        label = gaps.argmax(axis=0)
        best = gaps[label, np.arange(gaps.shape[1])]
        for neuron in np.argsort(-best, kind="stable")[:count].tolist():
            found.append(Gap(layer, neuron, features.label_names[label[neuron]], float(best[neuron])))
    return sorted(found, key=lambda one: (-one.gap, one.layer, one.neuron))[:count]


BY_MEAN_DIFFERENCE = Ranking("mean difference", by_mean_difference)


def random_neurons(activations: Activations, count: int, seed: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """`count` neurons of all layers, each as likely as any other, none twice; all neurons if there are no more.

    Yields:
        Layers that have some, ascending, with their neurons, ascending.
    """
    total = activations.layers * activations.width
    picked = np.sort(np.random.default_rng(seed).permutation(total)[:count])
    for layer in range(activations.layers):
        neurons = picked[picked // activations.width == layer] % activations.width
        if len(neurons):
            yield layer, neurons


def shuffled(features: FeatureSet, seed: int) -> FeatureSet:
    """The same sequences with their labels dealt out anew: what a score says when there is nothing to be found."""
    return replace(features, labels=np.random.default_rng(seed).permutation(features.labels))


def _gaps(values: NDArray[np.floating], features: FeatureSet) -> NDArray[np.float64]:
    """[labels, neurons], in standard deviations; 0 for constant neurons and for labels without sequences."""
    classes, n = len(features.label_names), len(features.labels)
    counts = np.bincount(features.labels, minlength=classes)[:, None]
    member = np.eye(classes)[features.labels].T
    gaps = []
    for start in range(0, values.shape[1], _COLUMNS):
        block = np.array(values[:, start : start + _COLUMNS], dtype=np.float64)
        block -= block[0].copy()
        sums = member @ block
        std = block.std(axis=0)
        inside, outside = sums / np.maximum(counts, 1), (block.sum(axis=0) - sums) / np.maximum(n - counts, 1)
        usable = (std > 0) & (counts > 0) & (counts < n)
        gaps.append(np.where(usable, np.abs(inside - outside) / np.where(std > 0, std, 1), 0.0))
    return np.concatenate(gaps, axis=1)

"""Feature sets and models made up for the tests: their neurons are known."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from l2e.analysis.subjects import FeatureSet

LABELS = ("en", "fr", "de", "es")


def made_features(
    sequences: int = 400, labels: tuple[str, ...] = LABELS, seed: int = 0, name: str = "made up"
) -> FeatureSet:
    """As many sequences of each label, to one, in random order."""
    order = np.random.default_rng(seed).permutation(sequences)
    zeros, ones = np.zeros(sequences, dtype=np.int64), np.ones(sequences, dtype=np.int64)
    return FeatureSet(name, np.zeros((sequences, 2), dtype=np.int32), zeros, ones, order % len(labels), labels)


class MadeModel:
    """Its activations are the tables it is given, one for each layer."""

    def __init__(self, name: str, parameters: int, tables: Sequence[NDArray[np.float32]]) -> None:
        self.name = name
        self.parameters = parameters
        self.tables = tables
        self.layers = len(tables)
        self.width = tables[0].shape[1]

    def activations(self) -> "MadeModel":
        return self

    def values(self, layer: int) -> NDArray[np.float32]:
        return self.tables[layer]

    def load(self) -> nn.Module:
        raise AssertionError("the scores need no model")


Plants = dict[tuple[int, int], tuple[int, float]]
"""(layer, neuron) -> (label, how far it moves there, in standard deviations)."""

PLANTS: Plants = {(0, 5): (1, 8.0), (1, 2): (3, -8.0), (2, 11): (0, 8.0)}


def made_model(
    features: FeatureSet,
    plants: Plants | None = None,
    name: str = "tiny",
    parameters: int = 1_000_000,
    shape: tuple[int, int] = (3, 16),
    seed: int = 1,
) -> MadeModel:
    """Gaussian neurons, each with its own mean and spread, and the planted ones among them."""
    draw = np.random.default_rng(seed)
    layers, width = shape
    tables = []
    for layer in range(layers):
        values = draw.standard_normal((len(features.labels), width))
        for (where, neuron), (label, move) in (PLANTS if plants is None else plants).items():
            if where == layer:
                values[features.labels == label, neuron] += move
        tables.append((values * draw.uniform(0.1, 3, width) + draw.normal(0, 5, width)).astype(np.float32))
    return MadeModel(name, parameters, tables)

"""Made-up activations with known neurons, for tests of the analysis."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from l2e.analysis.subjects import FeatureSet


@dataclass
class HeldActivations:
    """Activations that are in memory."""

    table: NDArray[np.float32]
    """[layers, sequences, width]."""

    @property
    def layers(self) -> int:
        return self.table.shape[0]

    @property
    def width(self) -> int:
        return self.table.shape[2]

    def values(self, layer: int) -> NDArray[np.float32]:
        return self.table[layer]


def labelled(labels: NDArray[np.int64], names: tuple[str, ...], dataset: str = "languages") -> FeatureSet:
    """A feature set with these labels and no text worth mentioning."""
    count = len(labels)
    return FeatureSet(
        name=dataset,
        tokens=np.zeros((count, 4), np.int32),
        starts=np.ones(count, np.int64),
        ends=np.full(count, 4, np.int64),
        labels=labels,
        label_names=names,
    )


def sample(
    layers: int = 2, count: int = 300, width: int = 40, classes: int = 3, seed: int = 0
) -> tuple[HeldActivations, FeatureSet]:
    """Noise; neuron 2 x label + layer leans to the label, by more the deeper it lies."""
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=count)
    table = random.normal(size=(layers, count, width)).astype(np.float32)
    for layer in range(layers):
        for label in range(classes):
            table[layer, :, 2 * label + layer] += (1.5 + layer) * (labels == label)
    names = tuple("abcdefghi"[:classes])
    return HeldActivations(table), labelled(labels, names)

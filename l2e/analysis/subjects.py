"""What an analysis is given: labelled sequences, and models with what their neurons answered to them."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn


@dataclass(frozen=True)
class FeatureSet:
    """Labelled sequences of tokens, as in Gurnee et al. (method.md section 3)."""

    name: str
    tokens: NDArray[np.int32]
    """[sequences, window]; padded on the right."""

    starts: NDArray[np.int64]
    """[sequences]: the first valid position of each."""

    ends: NDArray[np.int64]
    """[sequences]: one past the last valid position; always above `starts`."""

    labels: NDArray[np.int64]
    """[sequences]: index into `label_names`."""

    label_names: tuple[str, ...]


class Activations(Protocol):
    """One value per sequence and neuron: the mean (or maximum) of the neuron over the sequence's valid positions."""

    layers: int
    width: int
    """Neurons of a layer."""

    def values(self, layer: int) -> NDArray[np.float32]:
        """[sequences, width] of block `layer` (0-based), in the order of the feature set; may be memory-mapped."""


class Subject(Protocol):
    """A model under analysis."""

    name: str
    parameters: int
    """For the axis of scale."""

    def activations(self) -> Activations:
        """What its neurons answered to the feature set; collected on the first call, then read from disk."""

    def load(self) -> nn.Module:
        """The GPTNeoXForCausalLM itself, in evaluation mode, on the device of the analysis."""

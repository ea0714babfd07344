"""The Monosemanticity Score of every value of many neurons, a bounded block at a time. Needs torch and numpy alone."""

from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any] | Tensor
A = TypeVar("A", NDArray[Any], Tensor)

BLOCK = 2**22
"""Values of one block: 32 MB in the double precision that they are computed in; a few such arrays exist at a time."""


class ScoredValues:
    """phi = (z - mean)^2 / S^2 of labelled values, mean and sample variance S^2 from all sequences (L03).

    Each neuron is first shifted by its first value and divided by its largest distance from it. That changes no score,
    and a constant neuron comes out as exact zeros: it never deviates, so all its scores are 0. Nothing over- or
    underflows, and a mean far from 0 costs no digits.

    Args:
        values: [sequences, neurons] of any float type, at least 2 sequences; may be memory-mapped. Read block by block
            and never changed; a tensor is worked on where it is.
        labels: [sequences] whole numbers from 0.
        classes: how many labels there are; by default one more than the highest given.

    Raises:
        ValueError: wrong shapes or labels, fewer than 2 sequences, a neuron with a value that is not finite.
    """

    def __init__(self, values: Array, labels: Array, classes: int | None = None) -> None:
        self._values = values if isinstance(values, Tensor) else np.asarray(values)
        if self._values.ndim != 2 or self._values.shape[0] < 2:
            raise ValueError(
                f"values must be [sequences, neurons] with at least 2 sequences, not {tuple(self._values.shape)}"
            )
        self.sequences = int(self._values.shape[0])
        self.neurons = int(self._values.shape[1])
        self.device = values.device if isinstance(values, Tensor) else torch.device("cpu")
        self.labels, self.classes = self._checked(labels, classes)
        self.counts = torch.bincount(self.labels, minlength=self.classes)
        """[classes]: sequences of each label."""
        self._shift, self._scale, self._mean, self._inverse = self.room(4, self.neurons)
        for columns in self._columns():
            self._measure(columns)

    def room(self, *shape: int) -> Tensor:
        """Where results of blocks are gathered, in double precision.

        Made before the blocks, because a small tensor that is made between two of them and kept settles in the memory
        that the first has left; the second then needs new memory (0.2 MB for each neuron of 28,084 sequences).
        """
        return torch.empty(shape, dtype=torch.float64, device=self.device)

    def by_neuron(self) -> Iterator[tuple[slice, Tensor]]:
        """Blocks of neurons with their scores [sequences, neurons of the block], double precision."""
        for columns in self._columns():
            yield columns, self._scores(slice(None), columns)

    def by_sequence(self) -> Iterator[tuple[slice, Tensor]]:
        """Blocks of sequences with their scores [sequences of the block, neurons], double precision."""
        for rows in _slices(self.sequences, max(1, BLOCK // max(1, self.neurons))):
            yield rows, self._scores(rows, slice(None))

    def class_sums(self) -> Tensor:
        """Sum of the scores of the sequences of each label, [classes, neurons]."""
        member = torch.nn.functional.one_hot(self.labels, self.classes).double().T
        sums = self.room(self.classes, self.neurons)
        for columns, phi in self.by_neuron():
            sums[:, columns] = member @ phi
        return sums

    def highest(self) -> tuple[Tensor, Tensor]:
        """phi_{l*} and l* of each neuron (L05), [neurons] each. Labels without sequences are left out."""
        means = self.class_sums() / self.counts[:, None]
        scores = torch.where(self.counts[:, None] > 0, means, -torch.inf)
        features = scores.float().argmax(dim=0)  # single precision: see scores.py
        return scores.gather(0, features[None])[0], features

    def _checked(self, labels: Array, classes: int | None) -> tuple[Tensor, int]:
        given = torch.as_tensor(labels if isinstance(labels, Tensor) else np.asarray(labels), device=self.device)
        if given.shape != (self.sequences,) or given.is_floating_point():
            raise ValueError(
                f"labels must be {self.sequences} whole numbers, one a sequence, not {given.dtype} {tuple(given.shape)}"
            )
        given = given.long()
        lowest, highest = int(given.min()), int(given.max())
        if lowest < 0 or (classes is not None and highest >= classes):
            allowed = "at least 0" if classes is None else f"0 to {classes - 1}"
            raise ValueError(f"labels must be {allowed}, not {lowest} to {highest}")
        return given, highest + 1 if classes is None else classes

    def _columns(self) -> Iterator[slice]:
        return _slices(self.neurons, max(1, BLOCK // self.sequences))

    def _read(self, rows: slice, columns: slice) -> Tensor:
        block = self._values[rows, columns]
        if isinstance(block, Tensor):
            return block.detach().double()
        return torch.from_numpy(np.array(block, dtype=np.float64))

    def _measure(self, columns: slice) -> None:
        """Shift, scale, mean and inverse variance of the neurons of a block, the last two of the scaled values."""
        values = self._read(slice(None), columns)
        shift = values[0].clone()
        values = values - shift
        scale = values.abs().amax(dim=0)
        if not bool(scale.isfinite().all()):
            neuron = (columns.start or 0) + int(scale.isfinite().logical_not().nonzero()[0])
            raise ValueError(f"neuron {neuron} has values that are not finite (NaN or infinite)")
        scale = torch.where(scale > 0, scale, 1.0)
        values = values.div_(scale)
        mean = values.mean(dim=0)
        var = values.sub_(mean).square_().sum(dim=0) / (self.sequences - 1)
        self._shift[columns], self._scale[columns], self._mean[columns] = shift, scale, mean
        self._inverse[columns] = torch.where(var > 0, 1 / var, 0.0)

    def _scores(self, rows: slice, columns: slice) -> Tensor:
        values = self._read(rows, columns) - self._shift[columns]
        return values.div_(self._scale[columns]).sub_(self._mean[columns]).square_().mul_(self._inverse[columns])


def like(given: A, result: Tensor) -> A:
    """`result` as what `given` is: a tensor, or a NumPy array."""
    if isinstance(given, Tensor):
        return result
    return result.cpu().numpy()


def _slices(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))

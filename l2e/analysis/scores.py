"""How much of a neuron's deviation belongs to one label: the scores of L2E, sections 2 and 3 (L03-L05, L08, L10).

One value for each sequence and neuron (method.md 2.1): the mean of the neuron's output over the sequence's valid
tokens. NumPy arrays and tensors (also on a GPU) are taken, and what comes back is of the same kind, in double
precision. Needs torch and numpy alone; memory is bounded by `scored_values.BLOCK`, whatever the number of neurons.

What holds for every function (docs/analysis-scores.md has the identities):

- A constant neuron scores 0 everywhere.
- A label without sequences has the score NaN and is never l*.
- Where scores are compared (l*, K-S, thresholds) they are rounded to single precision first: what is equal but for the
  rounding of its computation is a tie. Of tied labels the first is l*.
- NaN or infinite values raise ValueError.
"""

import numpy as np
import torch
from torch import Tensor

from l2e.analysis.killing import Killing, killing
from l2e.analysis.scored_values import A, Array, ScoredValues, like

__all__ = [
    "Killing",
    "class_scores",
    "false_killing_rate",
    "feature_scores",
    "killing",
    "ks_statistic",
    "monosemanticity_scores",
    "relatively_monosemantic_feature",
    "rest_scores",
]


def monosemanticity_scores(values: A) -> A:
    """phi of every value, [sequences, neurons] like `values`: (z - mean)^2 / sample variance (L03)."""
    scored = ScoredValues(values, torch.zeros(len(values), dtype=torch.long))
    found = scored.room(scored.sequences, scored.neurons)
    for columns, phi in scored.by_neuron():
        found[:, columns] = phi
    return like(values, found)


def class_scores(values: A, labels: Array, classes: int | None = None) -> A:
    """phi_l: the mean score of the sequences of each label (L04, Eq. 2).

    Mean and variance come from *all* sequences. Weighted by their numbers of sequences, a neuron's phi_l sum up to
    (n - 1)/n, so the highest is never lower than that.

    Args:
        values: [sequences, neurons], finite, at least 2 sequences.
        labels: [sequences], whole numbers from 0.
        classes: how many labels there are; by default one more than the highest given.

    Returns:
        [classes, neurons]; NaN for a label without sequences.

    Raises:
        ValueError: see `ScoredValues`.
    """
    scored = ScoredValues(values, labels, classes)
    return like(values, scored.class_sums() / scored.counts[:, None])


def rest_scores(values: A, labels: Array, classes: int | None = None) -> A:
    """phi_l^-: the mean score of the sequences of all other labels (L04, Eq. 2).

    Returns:
        [classes, neurons]; NaN for a label that all sequences have.
    """
    scored = ScoredValues(values, labels, classes)
    sums = scored.class_sums()
    # Summed over the others, not total minus own: a difference of large sums would lose small scores.
    others = 1 - torch.eye(scored.classes, dtype=sums.dtype, device=sums.device)
    return like(values, others @ sums / (scored.sequences - scored.counts)[:, None])


def relatively_monosemantic_feature(values: A, labels: Array, classes: int | None = None) -> A:
    """l*: the label with the highest phi_l (L05, Eq. 3, which prints max for argmax).

    Returns:
        [neurons], whole numbers. Of tied labels the first; so for a constant neuron the first that has sequences.
    """
    return like(values, ScoredValues(values, labels, classes).highest()[1])


def feature_scores(values: A, labels: Array, classes: int | None = None) -> A:
    """phi_{l*}: the highest phi_l of each neuron (L05), [neurons]."""
    return like(values, ScoredValues(values, labels, classes).highest()[0])


def ks_statistic(values: A, labels: Array, classes: int | None = None) -> A:
    """Kolmogorov-Smirnov D between the scores of the sequences of l* and those of all sequences (L08).

    The second set contains the first, so D is (1 - n_{l*}/n) times the D against the other sequences alone, and can
    exceed 1 - n_{l*}/n for no neuron.

    Returns:
        [neurons], in [0, 1).
    """
    scored = ScoredValues(values, labels, classes)
    features = scored.highest()[1]
    found = scored.room(scored.neurons)
    for columns, phi in scored.by_neuron():
        found[columns] = _ks(phi, scored.labels, features[columns])
    return like(values, found)


def false_killing_rate(values: Array, labels: Array, rate: float, per_input: bool = False) -> float:
    """FKR: of the values that inhibition at `rate` would hit, the share outside their neuron's l* (L10, Eq. 4).

    Args:
        values: [sequences, neurons] of one layer.
        labels: [sequences].
        rate: inhibited share, in (0, 1].
        per_input: one threshold for each sequence, in place of one over all values (method.md 2.24).

    Returns:
        In [0, 1]. At rate 1 it is the mean of 1 - n_{l*}/n over neurons, whatever the model.

    Raises:
        ValueError: no neurons, a rate outside (0, 1], or see `ScoredValues`.
    """
    return float(killing(values, labels, [rate], per_input=per_input).rate[0])


def _ks(phi: Tensor, labels: Tensor, features: Tensor) -> Tensor:
    """D of each neuron of a block; phi [sequences, neurons]."""
    inside = labels == features[:, None]
    # One whole number for each score: bits of floats that are not negative are ordered like the floats, and the lowest
    # bit tells whether the sequence is of l*. Sorting these is several times as fast as sorting with places.
    keys = _sorted(phi.float().T.contiguous().view(torch.int32).long() * 2 + inside - 2**31)
    ours = (keys & 1).cumsum(dim=1, dtype=torch.int32) / inside.sum(dim=1, keepdim=True, dtype=torch.float64)
    everything = torch.arange(1, len(labels) + 1, device=phi.device, dtype=torch.float64) / len(labels)
    gap = ours.sub_(everything).abs_()
    # Within a tie the distribution functions have no values of their own: only its last place counts.
    gap[:, :-1].masked_fill_(keys[:, :-1] >> 1 == keys[:, 1:] >> 1, 0.0)
    return gap.amax(dim=1)


def _sorted(keys: Tensor) -> Tensor:
    """Each row in ascending order, as int32. On a CPU by NumPy, which here takes a tenth of torch's time."""
    keys = keys.int()
    return keys.sort(dim=1).values if keys.is_cuda else torch.from_numpy(np.sort(keys.numpy(), axis=1))

"""The False Killing Rate (L10, Eq. 4): what inhibition of the highest scores would hit outside its aim."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from l2e.analysis.scored_values import Array, ScoredValues

_HALF = 16  # bits of a single-precision score that one pass over the values looks at


@dataclass(frozen=True)
class Killing:
    """What is hit at each of some inhibition rates, sequence by sequence.

    Attributes:
        selected: [rates, sequences] neurons whose score reaches the threshold in a sequence.
        false: [rates, sequences] those of them whose l* is not the sequence's label.
    """

    selected: NDArray[np.int64]
    false: NDArray[np.int64]

    @property
    def rate(self) -> NDArray[np.float64]:
        """The False Killing Rate at each inhibition rate, [rates]."""
        return self.false.sum(axis=1) / self.selected.sum(axis=1)


def killing(
    values: Array,
    labels: Array,
    rates: Sequence[float],
    per_input: bool = False,
    features: Array | None = None,
    classes: int | None = None,
) -> Killing:
    """Count what inhibition hits, at several rates in the same three passes over the values.

    The threshold tau_k is the k-th highest score, k = rate x values, rounded, at least 1; selected is phi >= tau_k, so
    a tie at the threshold is selected whole (method.md 2.10).

    Args:
        values: [sequences, neurons] of one layer.
        labels: [sequences].
        rates: inhibited shares, each in (0, 1].
        per_input: k and tau_k for each sequence over its neurons, in place of one over all values (2.24).
        features: [neurons] l* of each neuron, chosen on other sequences; by default chosen on these.
        classes: see `ScoredValues`.

    Raises:
        ValueError: no neurons, a rate outside (0, 1], or see `ScoredValues`.
    """
    scored = ScoredValues(values, labels, classes)
    if not scored.neurons:
        raise ValueError("a False Killing Rate needs at least one neuron")
    for rate in rates:
        if not 0 < rate <= 1:
            raise ValueError(f"rate must lie in (0, 1], not {rate}")
    if features is None:
        features = scored.highest()[1]
    wanted = torch.as_tensor(features, device=scored.device)
    ranks = [_rank(rate, scored.neurons if per_input else scored.sequences * scored.neurons) for rate in rates]
    taus = None if per_input else _thresholds(scored, ranks)[:, None]
    counts = torch.empty(2, len(ranks), scored.sequences, dtype=torch.long, device=scored.device)
    for rows, phi in _in_single_precision(scored):
        limits = _rowwise(phi, ranks) if taus is None else taus
        counts[..., rows] = _count(phi, limits, scored.labels[rows], wanted)
    selected, false = counts.cpu().numpy()
    return Killing(selected, false)


def _in_single_precision(scored: ScoredValues) -> Iterator[tuple[slice, Tensor]]:
    return ((rows, phi.float()) for rows, phi in scored.by_sequence())


def _rank(rate: float, count: int) -> int:
    return max(1, round(rate * count))


def _rowwise(phi: Tensor, ranks: Sequence[int]) -> Tensor:
    """The ranks' highest scores of each row of phi, [ranks, rows]."""
    ordered = phi.sort(dim=1, descending=True).values
    return ordered[:, [rank - 1 for rank in ranks]].T


def _count(phi: Tensor, taus: Tensor, labels: Tensor, features: Tensor) -> Tensor:
    """How many of each row reach the thresholds, and how many of those are false, [2, thresholds, rows]."""
    wrong = labels[:, None] != features
    selected, false = [], []
    for tau in taus:
        hit = phi >= tau[:, None]
        selected.append(_row_sums(hit))
        false.append(_row_sums(hit & wrong))
    return torch.stack([torch.stack(selected), torch.stack(false)])


def _row_sums(mask: Tensor) -> Tensor:
    """How often a mask holds in each row. As bytes: a sum of booleans takes five times as long on a CPU."""
    return mask.view(torch.int8).sum(dim=1, dtype=torch.int32).long()


def _thresholds(scored: ScoredValues, ranks: Sequence[int]) -> Tensor:
    """The ranks' highest scores of all, exactly, [ranks].

    Bits of floats that are not negative are ordered like the floats, so a first pass counts the upper halves, which
    tells each rank's upper half, and a second the lower halves below those. No value is kept.
    """
    upper_counts = torch.zeros(2**_HALF, dtype=torch.long, device=scored.device)
    for _, phi in _in_single_precision(scored):
        upper_counts += torch.bincount(_bits(phi) >> _HALF, minlength=2**_HALF)
    uppers, left = zip(*(_locate(upper_counts, rank) for rank in ranks), strict=True)
    lower_counts = {upper: torch.zeros_like(upper_counts) for upper in uppers}
    for _, phi in _in_single_precision(scored):
        bits = _bits(phi)
        upper_bits = bits >> _HALF
        for upper, counts in lower_counts.items():
            counts += torch.bincount(bits[upper_bits == upper] & (2**_HALF - 1), minlength=2**_HALF)
    found = [upper << _HALF | _locate(lower_counts[upper], rank)[0] for upper, rank in zip(uppers, left, strict=True)]
    return torch.tensor(found, dtype=torch.int32, device=scored.device).view(torch.float32)


def _bits(phi: Tensor) -> Tensor:
    return phi.flatten().view(torch.int32)


def _locate(counts: Tensor, rank: int) -> tuple[int, int]:
    """The bin that holds the rank-th highest, and its rank within the bin."""
    at_least = counts.flip(0).cumsum(0).flip(0)
    place = int((at_least >= rank).nonzero()[-1])
    return place, rank - int(at_least[place] - counts[place])

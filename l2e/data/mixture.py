"""Several sources in one training order, by weight."""

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from math import gcd, lcm
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from l2e.data.rows import ShuffledRows

BLOCK = 64


class _Block(NamedTuple):
    """The sources of BLOCK positions, int64 [BLOCK], and the number in its source of each, int64 [BLOCK]."""

    sources: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]


class MixedRows:
    """An endless sequence over sources, each going through its own shuffled epochs.

    Positions come in blocks of BLOCK = 64. How many of the first n a source has at a border of blocks is a formula
    of n (see `counts_before`); within a block they are shuffled by (seed, block). So row and source are functions of
    (seed, position) alone, and position 10^9 costs what position 0 costs. Of K sources, the number of rows that one
    with share w has among the first p differs from p x w by less than BLOCK / 4 + K.

    Args:
        sources: where rows come from; all have the same length of row.
        weights: of each, positive; decimals are taken as they are written.
        seed: of the order in blocks.
    """

    def __init__(self, sources: Sequence[ShuffledRows], weights: Sequence[float], seed: int) -> None:
        self.sources = sources
        self.weights = whole_weights(weights)
        self.seed = seed
        self._block = lru_cache(maxsize=64)(self._make_block)

    def __len__(self) -> int:
        """Rows of all sources; no pass over them in particular."""
        return sum(len(source) for source in self.sources)

    def place(self, position: int) -> tuple[int, int]:
        """The source of `position`, and how many of its rows came before."""
        number, within = divmod(position, BLOCK)
        block = self._block(number)
        return int(block.sources[within]), int(block.numbers[within])

    def gather(self, positions: Sequence[int]) -> npt.NDArray[np.int64]:
        """The rows at `positions`, int64 [len(positions), seq_length + 1]."""
        places = [self.place(position) for position in positions]
        return np.concatenate([self.sources[source].gather([number]) for source, number in places])

    def prefetch(self, positions: Sequence[int]) -> None:
        """Nothing: the rows lie in local files."""

    def fingerprint(self) -> dict[str, Any]:
        """That of every source, the weights and the seed."""
        each = [source.fingerprint() for source in self.sources]
        return {"weights": self.weights, **{key: [one[key] for one in each] for key in each[0]}, "mixed_by": self.seed}

    def _make_block(self, number: int) -> _Block:
        before = counts_before(number * BLOCK, self.weights)
        after = counts_before((number + 1) * BLOCK, self.weights)
        counts = [stop - start for start, stop in zip(before, after, strict=True)]
        sources = np.repeat(np.arange(len(counts)), counts)
        # The third number keeps these apart from the sources' own epochs.
        np.random.default_rng([self.seed, number, 1]).shuffle(sources)
        numbers = np.empty(BLOCK, np.int64)
        for source, (start, stop) in enumerate(zip(before, after, strict=True)):
            numbers[sources == source] = np.arange(start, stop)
        return _Block(sources, numbers)


def whole_weights(weights: Sequence[float]) -> list[int]:
    """The smallest whole numbers in the proportions of `weights`, each read as the decimal it prints as."""
    exact = [Fraction(repr(float(weight))) for weight in weights]
    scale = lcm(*(fraction.denominator for fraction in exact))
    whole = [int(fraction * scale) for fraction in exact]
    return [weight // gcd(*whole) for weight in whole]


def counts_before(position: int, weights: Sequence[int]) -> list[int]:
    """How many of the first `position` rows each source has, at a border of blocks.

    Each source in turn takes its share, rounded down, of what those before it have left, and the last one takes the
    rest. The counts add up to `position`, none falls as it rises, and of K sources each is less than 1 below and
    less than K above its exact share: every rounding leaves less than 1 too much for those that follow.
    """
    counts, left, total = [], position, sum(weights)
    for weight in weights:
        counts.append(left * weight // total)
        left -= counts[-1]
        total -= weight
    return counts

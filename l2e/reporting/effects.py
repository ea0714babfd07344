"""How far a difference between two methods can be trusted: over items, and over seeds.

With one seed a method is one model, and only its items are a sample. With several seeds the same items are answered
by several models of each method, and both are samples: a number for "another seed" and "other items" has to carry
both errors. The seeds of both methods are pairs (the same initial weights and the same order of rows).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest
from scipy.stats import t as student

_RESAMPLES = 20_000


@dataclass(frozen=True)
class Effect:
    """A difference of two accuracies, in shares.

    Attributes:
        difference: mean over items and seeds.
        error: its standard error; NaN where there is too little to tell.
        low: lower end of the 95% interval.
        high: upper end.
        p_value: two-sided, of no difference.
        seeds: pairs of models.
        items: items that both answered.
        seed_sd: standard deviation over seeds of the difference; NaN for one seed.
    """

    difference: float
    error: float
    low: float
    high: float
    p_value: float
    seeds: int
    items: int
    seed_sd: float


def effect(change: npt.ArrayLike) -> Effect:
    """The effect from `change` [seeds, items]: what each item gained, -1, 0 or 1.

    One seed: bootstrap interval over the items and McNemar's exact test, both for these two models only. Several:
    seeds and items as crossed random effects. The variance of the mean is estimated from the mean squares of a
    two-way table, (MS_seeds + MS_items - MS_rest) / (seeds x items), with Satterthwaite's degrees of freedom and
    no variance component below zero.

    Raises:
        ValueError: no items, or not a table.
    """
    table = np.asarray(change, dtype=np.float64)
    if table.ndim != 2 or not table.size:
        raise ValueError(f"changes must be a table [seeds, items] with at least one item, not {table.shape}")
    return _one_seed(table[0]) if len(table) == 1 else _several_seeds(table)


def mcnemar(gained: int, lost: int) -> float:
    """McNemar's exact two-sided p: as many items gained as lost, if nothing but chance moved them."""
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def bootstrap_interval(change: npt.NDArray[np.float64], level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the mean over resampled items.

    Items gain, lose or keep their answer, so a resample of the items is a draw of three counts. The seed is fixed:
    the same items give the same interval.
    """
    n = len(change)
    shares = [float((change == value).mean()) for value in (1, -1)]
    counts = np.random.default_rng(0).multinomial(n, [*shares, max(0.0, 1 - sum(shares))], size=_RESAMPLES)
    low, high = np.quantile((counts[:, 0] - counts[:, 1]) / n, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction: p-values that may be held against a level together, in the order given."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


def _one_seed(change: npt.NDArray[np.float64]) -> Effect:
    n = len(change)
    low, high = bootstrap_interval(change)
    return Effect(
        difference=float(change.mean()),
        error=float(change.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan,
        low=low,
        high=high,
        p_value=mcnemar(int((change > 0).sum()), int((change < 0).sum())),
        seeds=1,
        items=n,
        seed_sd=math.nan,
    )


def _several_seeds(table: npt.NDArray[np.float64]) -> Effect:
    mean, of_seed = table.mean(), table.mean(axis=1)
    error, dof = _crossed_error(table)
    reach = float(student.ppf(0.975, dof)) * error if error > 0 else 0.0
    p_value = 2 * float(student.sf(abs(mean) / error, dof)) if error > 0 else float(mean == 0)
    return Effect(
        difference=float(mean),
        error=error,
        low=float(mean) - reach,
        high=float(mean) + reach,
        p_value=p_value,
        seeds=table.shape[0],
        items=table.shape[1],
        seed_sd=float(of_seed.std(ddof=1)),
    )


def mean_squares(table: npt.NDArray[np.float64]) -> tuple[tuple[float, int], ...]:
    """(mean square, degrees of freedom) of the rows, the columns and the rest of a two-way table."""
    rows, columns = table.shape
    mean, of_row, of_column = table.mean(), table.mean(axis=1), table.mean(axis=0)
    rest = table - of_row[:, None] - of_column[None, :] + mean
    sums = (columns * ((of_row - mean) ** 2).sum(), rows * ((of_column - mean) ** 2).sum(), (rest**2).sum())
    freedom = (rows - 1, columns - 1, (rows - 1) * (columns - 1))
    return tuple((float(total) / max(dof, 1), dof) for total, dof in zip(sums, freedom, strict=True))


def _crossed_error(table: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Standard error of the mean over both seeds and items, and its degrees of freedom."""
    (of_seeds, seed_dof), (of_items, item_dof), (rest, rest_dof) = mean_squares(table)
    if of_seeds <= rest:  # no spread between seeds beyond that of the items within them
        parts = [(max(of_items, rest), item_dof)]
    elif of_items <= rest:
        parts = [(of_seeds, seed_dof)]
    else:
        parts = [(of_seeds, seed_dof), (of_items, item_dof), (-rest, rest_dof)]
    variance = sum(part for part, _ in parts)
    if variance <= 0:
        return 0.0, 1.0
    dof = variance**2 / sum(part**2 / max(freedom, 1) for part, freedom in parts)
    return math.sqrt(variance / table.size), dof

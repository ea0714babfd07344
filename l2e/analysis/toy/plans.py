"""Which runs each experiment compares, under the names of the paper's batches (method.md 1.4)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from l2e.analysis.toy.config import ToyRun

RATES = (0.001, 0.003, 0.005, 0.007, 0.01, 0.03)
"""Learning rates of the published code's sweep."""


@dataclass(frozen=True)
class Size:
    """The defaults of a size, and what was chosen with it."""

    base: ToyRun
    decay: float
    """Of the biases after a negative start."""

    sweep_lr: float
    """Where the learning rate itself is not swept and monosemantic neurons are counted."""

    bias_lr: float
    """Where the initial bias is swept: too low for monosemantic neurons without a negative start."""

    memory: int | None = None
    """batch_size x neurons, where it is kept as in the paper when k is swept."""


SIZES = {
    "scaled": Size(ToyRun(), decay=0.16, sweep_lr=0.03, bias_lr=0.01),
    "paper": Size(
        ToyRun(features=512, inputs=64, neurons=1024, batch_size=2**13, steps=2**17, lr=0.007),
        decay=0.03,
        sweep_lr=0.007,
        bias_lr=0.003,
        memory=2**23,
    ),
}


@dataclass(frozen=True)
class Series:
    """Runs that differ in one setting.

    Attributes:
        name: for the legend. key: the setting. runs: by its value, one for each seed.
    """

    name: str
    key: str
    runs: dict[float, list[ToyRun]]


@dataclass(frozen=True)
class Asked:
    """What the user asked of an experiment.

    Attributes:
        seeds: of each value.
        values: in place of the experiment's own, or None.
        batch_size: whether one was given.
    """

    seeds: Sequence[int]
    values: Sequence[float] | None
    batch_size: bool


def _series(
    name: str, key: str, values: Sequence[float], base: ToyRun, asked: Asked, setting: str | None = None
) -> Series:
    """Runs of each value and seed; `setting` is the field of the run, where it is not called as the axis is."""
    own = values if asked.values is None else asked.values
    typed = {value: _typed(base, setting or key, value) for value in own}
    return Series(
        name,
        key,
        {value: [replace(base, seed=seed, **{setting or key: typed[value]}) for seed in asked.seeds] for value in own},
    )


def _typed(base: ToyRun, setting: str, value: float) -> Any:
    return type(getattr(base, setting))(value)


def _lr(size: Size, asked: Asked) -> list[Series]:
    """LR1 and LR3: biases start around 0, or around -1 and decay."""
    return [
        _series("zero start", "lr", RATES, size.base, asked),
        _series("negative start", "lr", RATES, _negative(size, size.base), asked),
    ]


def _bias(size: Size, asked: Asked) -> list[Series]:
    """B2 to B4: initial biases, for three densities."""
    offsets = (-1.5, -1.0, -0.5, -0.25, 0.0)
    base = replace(size.base, lr=size.bias_lr, bias_decay=size.decay)
    bases = [replace(base, density=factor * base.density) for factor in (0.5, 1.0, 2.0)]
    return [_series(f"eps = 1/{1 / b.density:.0f}", "bias_offset", offsets, b, asked) for b in bases]


def _k(size: Size, asked: Asked) -> list[Series]:
    """K0: neurons per feature."""
    ratios = (0.25, 0.5, 1.0, 2.0, 4.0) if asked.values is None else asked.values
    base = replace(size.base, lr=size.sweep_lr)
    runs = {}
    for ratio in ratios:
        neurons = round(ratio * base.features)
        batch = base.batch_size if size.memory is None or asked.batch_size else size.memory // neurons
        sized = replace(base, neurons=neurons, batch_size=batch)
        runs[ratio] = [replace(sized, seed=seed) for seed in asked.seeds]
    return [Series("zero start", "k / N", runs)]


def _eps(size: Size, asked: Asked) -> list[Series]:
    """E1 to E4: density of the features, as a multiple of the size's own."""
    factors = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0) if asked.values is None else asked.values
    base = replace(size.base, lr=size.sweep_lr)
    runs = {
        factor * base.density: [replace(base, density=factor * base.density, seed=seed) for seed in asked.seeds]
        for factor in factors
    }
    return [Series("zero start", "density", runs)]


def _l1(size: Size, asked: Asked) -> list[Series]:
    """RG1 with a zero start, as the paper's text has it."""
    base = replace(size.base, lr=0.005)
    return [_series("zero start", "l1", (0.0, 0.003, 0.01, 0.03, 0.1), base, asked)]


def _tasks(size: Size, asked: Asked) -> list[Series]:
    """LR2, RP1, LR5, B3: other features, tasks and activations, at three learning rates."""
    base, rates = size.base, (0.003, 0.01, 0.03)
    kinds = {
        "decoder": base,
        "power law": replace(base, distribution="power_law"),
        "re-projector": replace(base, task="reprojector"),
        "absolute value": replace(base, task="absolute", neurons=4 * base.features),
        "GELU": replace(base, activation="gelu"),
        "SoLU-like": replace(base, activation="solu"),
    }
    return [_series(name, "lr", rates, kind, asked) for name, kind in kinds.items()]


def _bridge(size: Size, asked: Asked) -> list[Series]:
    """L2E's penalty at held strengths, and MEmeL's deactivation of growing shares; 0 is without either."""
    base = replace(size.base, lr=size.sweep_lr)
    penalty = _series("L2E", "strength", (0.01, 0.03, 0.1, 0.3), replace(base, inhibition="l2e"), asked).runs
    without = [replace(base, seed=seed) for seed in asked.seeds]

    def deactivated(name: str, delta: float) -> Series:
        memel = replace(base, inhibition="memel", strength=delta)
        shares = (0.004, 0.01, 0.04)
        runs = {rate: [replace(memel, rate=rate, seed=seed) for seed in asked.seeds] for rate in shares}
        return Series(name, "rate", {0.0: without, **runs})

    return [
        Series("L2E", "strength", {0.0: without} | {value: runs for value, runs in penalty.items() if value}),
        deactivated("Delta = 1, reversed gradient", 1.0),
        deactivated("Delta = 0, no gradient", 0.0),
    ]


def _negative(size: Size, base: ToyRun) -> ToyRun:
    return replace(base, bias_offset=-1.0, bias_decay=size.decay)


PLANS: dict[str, Callable[[Size, Asked], list[Series]]] = {
    "lr": _lr,
    "bias": _bias,
    "k": _k,
    "eps": _eps,
    "l1": _l1,
    "tasks": _tasks,
    "bridge": _bridge,
}
"""By name of the experiment."""

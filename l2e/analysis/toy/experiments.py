"""The experiments: which runs each of them compares, at the scaled size and at the paper's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch

from l2e.analysis.toy.config import ToyRun
from l2e.analysis.toy.results import ToyResult
from l2e.analysis.toy.sweep import SIDE_BY_SIDE, run_sweep

RATES = (0.001, 0.003, 0.005, 0.007, 0.01, 0.03)
"""Learning rates of the published code's sweep."""


@dataclass(kw_only=True)
class ShapeSettings:
    """What may be changed in all runs of an experiment; null leaves the size's own."""

    features: int | None = None
    inputs: int | None = None
    neurons: int | None = None
    density: float | None = None
    batch_size: int | None = None
    steps: int | None = None
    half_cycle: int | None = None


@dataclass(kw_only=True)
class ToySettings:
    """One experiment with toy models."""

    experiment: Literal["lr", "bias", "k", "eps", "l1", "tasks", "bridge"] = "lr"
    """What is compared; experiment=toy_lr and so on choose it."""

    size: Literal["scaled", "paper"] = "scaled"
    """`scaled` ends in minutes on 2 cores, `paper` is for a GPU."""

    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])
    """Of projection, weights and features."""

    values: list[float] | None = None
    """Of what is swept, in place of the experiment's own; k in neurons per feature, eps over the size's density."""

    shape: ShapeSettings = field(default_factory=ShapeSettings)

    folder: str = "cache/toy"
    """Finished runs and restart points; a run that is there is not trained again."""

    side_by_side: int = SIDE_BY_SIDE
    """Most runs of one batched model."""

    save_every: float = 30.0
    """Seconds between restart points."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes the GPU if there is one."""

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds must be whole numbers, each once, not {self.seeds}")
        if self.values is not None and (not self.values or len(set(self.values)) != len(self.values)):
            raise ValueError(f"values must be numbers, each once, not {self.values}")
        if self.side_by_side < 1:
            raise ValueError(f"side_by_side must be at least 1, not {self.side_by_side}")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device: torch sees no GPU here; take cpu")
        plan(self)  # so that an impossible run is refused before any is trained

    @property
    def on(self) -> torch.device:
        """Where to train."""
        gpu = self.device == "cuda" or (self.device == "auto" and torch.cuda.is_available())
        return torch.device("cuda" if gpu else "cpu")


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
class Finished:
    """A series with its results, by value, one for each seed."""

    name: str
    key: str
    results: dict[float, list[ToyResult]]

    def numbers(self, measure: Callable[[ToyResult], float]) -> dict[float, list[float]]:
        """One number of each run, by value."""
        return {value: [measure(result) for result in results] for value, results in self.results.items()}


def plan(settings: ToySettings) -> list[Series]:
    """The series of an experiment.

    Raises:
        ValueError: a run that cannot be.
    """
    size = SIZES[settings.size]
    shape = {item.name: getattr(settings.shape, item.name) for item in fields(ShapeSettings)}
    given = {name: value for name, value in shape.items() if value is not None}
    size = replace(size, base=replace(size.base, **given))
    return _PLANS[settings.experiment](size, settings)


def run(settings: ToySettings) -> list[Finished]:
    """Train what an experiment needs and has not been trained yet."""
    found = plan(settings)
    runs = [run for series in found for runs in series.runs.values() for run in runs]
    trained = iter(
        run_sweep(
            runs,
            Path(settings.folder),
            settings.on,
            side_by_side=settings.side_by_side,
            save_every=settings.save_every,
        )
    )
    return [
        Finished(each.name, each.key, {value: [next(trained) for _ in runs] for value, runs in each.runs.items()})
        for each in found
    ]


def _series(
    name: str, key: str, values: Sequence[float], base: ToyRun, settings: ToySettings, setting: str | None = None
) -> Series:
    """Runs of each value and seed; `setting` is the field of the run, where it is not called as the axis is."""
    own = values if settings.values is None else settings.values
    typed = {value: _typed(base, setting or key, value) for value in own}
    return Series(
        name,
        key,
        {
            value: [replace(base, seed=seed, **{setting or key: typed[value]}) for seed in settings.seeds]
            for value in own
        },
    )


def _typed(base: ToyRun, setting: str, value: float) -> Any:
    return type(getattr(base, setting))(value)


def _lr(size: Size, settings: ToySettings) -> list[Series]:
    """LR1 and LR3: biases start around 0, or around -1 and decay."""
    return [
        _series("zero start", "lr", RATES, size.base, settings),
        _series("negative start", "lr", RATES, _negative(size, size.base), settings),
    ]


def _bias(size: Size, settings: ToySettings) -> list[Series]:
    """B2 to B4: initial biases, for three densities."""
    offsets = (-1.5, -1.0, -0.5, -0.25, 0.0)
    base = replace(size.base, lr=size.bias_lr, bias_decay=size.decay)
    bases = [replace(base, density=factor * base.density) for factor in (0.5, 1.0, 2.0)]
    return [_series(f"eps = 1/{1 / b.density:.0f}", "bias_offset", offsets, b, settings) for b in bases]


def _k(size: Size, settings: ToySettings) -> list[Series]:
    """K0: neurons per feature."""
    ratios = (0.25, 0.5, 1.0, 2.0, 4.0) if settings.values is None else settings.values
    base = replace(size.base, lr=size.sweep_lr)
    runs = {}
    for ratio in ratios:
        neurons = round(ratio * base.features)
        batch = base.batch_size if size.memory is None or settings.shape.batch_size else size.memory // neurons
        sized = replace(base, neurons=neurons, batch_size=batch)
        runs[ratio] = [replace(sized, seed=seed) for seed in settings.seeds]
    return [Series("zero start", "k / N", runs)]


def _eps(size: Size, settings: ToySettings) -> list[Series]:
    """E1 to E4: density of the features, as a multiple of the size's own."""
    factors = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0) if settings.values is None else settings.values
    base = replace(size.base, lr=size.sweep_lr)
    runs = {
        factor * base.density: [replace(base, density=factor * base.density, seed=seed) for seed in settings.seeds]
        for factor in factors
    }
    return [Series("zero start", "density", runs)]


def _l1(size: Size, settings: ToySettings) -> list[Series]:
    """RG1 with a zero start, as the paper's text has it."""
    base = replace(size.base, lr=0.005)
    return [_series("zero start", "l1", (0.0, 0.003, 0.01, 0.03, 0.1), base, settings)]


def _tasks(size: Size, settings: ToySettings) -> list[Series]:
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
    return [_series(name, "lr", rates, kind, settings) for name, kind in kinds.items()]


def _bridge(size: Size, settings: ToySettings) -> list[Series]:
    """L2E's penalty at held strengths, and MEmeL's deactivation of growing shares; 0 is without either."""
    base = replace(size.base, lr=size.sweep_lr)
    penalty = _series("L2E", "strength", (0.0, 0.01, 0.03, 0.1, 0.3), replace(base, inhibition="l2e"), settings)
    without = [replace(base, seed=seed) for seed in settings.seeds]

    def deactivated(name: str, delta: float) -> Series:
        memel = replace(base, inhibition="memel", strength=delta)
        shares = (0.004, 0.01, 0.04)
        runs = {rate: [replace(memel, rate=rate, seed=seed) for seed in settings.seeds] for rate in shares}
        return Series(name, "rate", {0.0: without, **runs})

    return [
        Series("L2E", "strength", {value: runs if value else without for value, runs in penalty.runs.items()}),
        deactivated("Delta = 1, reversed gradient", 1.0),
        deactivated("Delta = 0, no gradient", 0.0),
    ]


def _negative(size: Size, base: ToyRun) -> ToyRun:
    return replace(base, bias_offset=-1.0, bias_decay=size.decay)


_PLANS: dict[str, Callable[[Size, ToySettings], list[Series]]] = {
    "lr": _lr,
    "bias": _bias,
    "k": _k,
    "eps": _eps,
    "l1": _l1,
    "tasks": _tasks,
    "bridge": _bridge,
}

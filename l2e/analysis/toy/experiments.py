"""Experiments with toy models: their settings, and running them."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

import torch

from l2e.analysis.toy.plans import PLANS, SIZES, Asked, Series
from l2e.analysis.toy.results import ToyResult
from l2e.analysis.toy.sweep import SIDE_BY_SIDE, run_sweep


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
    """Of what is swept, in place of the experiment's own; k in neurons per feature, eps over the size's density,
    in bridge L2E's strengths."""

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
    asked = Asked(settings.seeds, settings.values, settings.shape.batch_size is not None)
    return PLANS[settings.experiment](size, asked)


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

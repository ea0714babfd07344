"""How many values inhibition hits outside their neuron's label, by rate and by layer (L11, L12; Figures 6 and 11)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from l2e.analysis.bootstrap import Interval, percentiles, weights
from l2e.analysis.killing import Killing, killing
from l2e.analysis.layers import depth
from l2e.analysis.scores import relatively_monosemantic_feature
from l2e.analysis.subjects import Activations, FeatureSet, Subject
from l2e.errors import require

log = logging.getLogger(__name__)

RATES = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(kw_only=True)
class FkrConfig:
    """Figures 6 and 11."""

    kind: Literal["fkr"] = "fkr"

    rates: list[float] = field(default_factory=lambda: list(RATES))
    """Inhibited shares, ascending, in (0, 1]."""

    rate: float = 0.02
    """The one that is shown by layer."""

    neurons: int | None = None
    """Random neurons of each layer; null: all, as in the paper. The threshold is that of the neurons looked at."""

    per_input: bool = False
    """A threshold for each sequence over the neurons, in place of one over all values of a layer (method.md 2.24)."""

    held_out: bool = False
    """Choose each neuron's l* on a random half of the sequences and count on the other; else both on all, as in the
    paper, which flatters the rate."""

    seed: int = 0
    """Of the neurons, the halves and the resamples."""

    resamples: int = 200
    """Of the sequences, for the intervals; thresholds and l* stay."""

    def __post_init__(self) -> None:
        require(len(self.rates) > 0, "rates", "at least one", self.rates)
        ordered = self.rates == sorted(set(self.rates)) and self.rates[0] > 0 and self.rates[-1] <= 1
        require(ordered, "rates", "ascending, above 0 and at most 1", self.rates)
        require(0 < self.rate <= 1, "rate", "in (0, 1]", self.rate)
        require(self.neurons is None or self.neurons >= 1, "neurons", "at least 1 or null", self.neurons)
        require(self.resamples >= 2, "resamples", "at least 2", self.resamples)


@dataclass(frozen=True)
class LayerRate:
    """One layer at `rate`."""

    layer: int
    depth: float
    """0 for the first layer, 1 for the last."""
    rate: Interval
    chance: float
    """The rate at which everything is killed: the mean of 1 - n_{l*}/n."""


@dataclass(frozen=True)
class ModelRates:
    """One model."""

    name: str
    parameters: int
    by_rate: tuple[Interval, ...]
    """Mean over the layers at each of `rates`, over resampled sequences."""
    by_layer: tuple[LayerRate, ...]
    all_layers: NDArray[np.float64]
    """[layers, rates]"""
    minimum: Interval
    """The rate of the lowest mean, and where it lies over resampled sequences."""

    @property
    def chance(self) -> float:
        """Mean over the layers of what killing everything gives."""
        return float(np.mean([layer.chance for layer in self.by_layer]))


@dataclass(frozen=True)
class FkrResult:
    """All models on one feature set."""

    features: str
    settings: FkrConfig
    rates: tuple[float, ...]
    models: tuple[ModelRates, ...]


def measure(settings: FkrConfig, subjects: Sequence[Subject], features: FeatureSet) -> FkrResult:
    """The False Killing Rate of every layer of every model at every rate.

    Figure 6 does not say which layer it shows; here it is the mean over all.
    """
    models = tuple(_model(settings, subject, features) for subject in subjects)
    return FkrResult(features.name, settings, tuple(settings.rates), models)


def _model(settings: FkrConfig, subject: Subject, features: FeatureSet) -> ModelRates:
    activations = subject.activations()
    rates = sorted({*settings.rates, settings.rate, 1.0})
    found, resampled = [], []
    n = len(features.labels)
    drawn = weights(n - n // 2 if settings.held_out else n, settings.resamples, settings.seed)
    for layer in range(activations.layers):
        counts = _layer(settings, activations, layer, features, rates)
        found.append(counts.rate)
        resampled.append(_ratio(drawn @ counts.false.T, drawn @ counts.selected.T))
        log.info("%s: false killing rate of layer %d of %d", subject.name, layer + 1, activations.layers)
    table, drawn_table = np.array(found), np.array(resampled)  # [layers, rates], [layers, resamples, rates]
    shown = [rates.index(rate) for rate in settings.rates]
    told = np.isfinite(drawn_table)  # layers that a resample says something about
    mean, means = table.mean(axis=0), _ratio(np.where(told, drawn_table, 0.0).sum(axis=0), told.sum(axis=0))
    at = rates.index(settings.rate)
    lowest = np.array(settings.rates)[np.nan_to_num(means[:, shown], nan=np.inf).argmin(axis=1)]
    return ModelRates(
        name=subject.name,
        parameters=subject.parameters,
        by_rate=tuple(percentiles(float(mean[place]), means[:, place]) for place in shown),
        by_layer=tuple(
            LayerRate(
                layer,
                depth(layer, activations.layers),
                percentiles(float(table[layer, at]), drawn_table[layer, :, at]),
                float(table[layer, -1]),
            )
            for layer in range(activations.layers)
        ),
        all_layers=table[:, shown],
        minimum=percentiles(settings.rates[int(mean[shown].argmin())], lowest, between=False),
    )


def _ratio(false: NDArray[np.float64], selected: NDArray[Any]) -> NDArray[np.float64]:
    """[resamples, rates]; NaN for a resample without a sequence that was hit."""
    return np.divide(false, selected, out=np.full_like(false, np.nan), where=selected > 0)


def _layer(
    settings: FkrConfig, activations: Activations, layer: int, features: FeatureSet, rates: Sequence[float]
) -> Killing:
    values = activations.values(layer)
    draw = np.random.default_rng([settings.seed, layer])
    if settings.neurons is not None and settings.neurons < activations.width:
        values = values[:, np.sort(draw.permutation(activations.width)[: settings.neurons])]
    labels, classes = features.labels, len(features.label_names)
    if not settings.held_out:
        return killing(values, labels, rates, settings.per_input, classes=classes)
    order = np.random.default_rng(settings.seed).permutation(len(labels))
    choose, count = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
    chosen = relatively_monosemantic_feature(values[choose], labels[choose], classes)
    return killing(values[count], labels[count], rates, settings.per_input, chosen, classes)

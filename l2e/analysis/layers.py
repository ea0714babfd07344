"""phi_{l*} of random neurons by layer and scale (L09, Figures 5 and 9)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from l2e.analysis.bootstrap import Interval, mean_interval
from l2e.analysis.sampled_scores import Sample, SampleSettings, sample
from l2e.analysis.scores import feature_scores
from l2e.analysis.subjects import FeatureSet, Subject


@dataclass(kw_only=True)
class LayersConfig(SampleSettings):
    """Figures 5 and 9."""

    kind: Literal["layers"] = "layers"


@dataclass(frozen=True)
class LayerMean:
    """Mean phi_{l*} of the sampled neurons of one layer, over resampled neurons."""

    layer: int
    depth: float
    """0 for the first layer, 1 for the last."""
    neurons: int
    mean: Interval


@dataclass(frozen=True)
class ModelLayers:
    """One model: its layers that have sampled neurons, the mean over all of these neurons, and the control's."""

    sample: Sample
    layers: tuple[LayerMean, ...]
    mean: Interval
    control: Interval | None


@dataclass(frozen=True)
class LayersResult:
    """All models on one feature set."""

    features: str
    models: tuple[ModelLayers, ...]


def measure(settings: LayersConfig, subjects: Sequence[Subject], features: FeatureSet) -> LayersResult:
    """Mean phi_{l*} of random neurons, layer by layer and over each model."""
    samples = [sample(settings, subject, features, feature_scores) for subject in subjects]
    return LayersResult(features.name, tuple(_model(settings, one) for one in samples))


def depth(layer: int, layers: int) -> float:
    """Where a layer lies between the first (0) and the last (1); the only one of a model in the middle."""
    return layer / (layers - 1) if layers > 1 else 0.5


def _model(settings: LayersConfig, one: Sample) -> ModelLayers:
    how = settings.resamples, settings.seed
    means = []
    for layer in sorted(set(one.layer.tolist())):
        scores = one.scores[one.layer == layer]
        means.append(LayerMean(layer, depth(layer, one.layers), len(scores), mean_interval(scores, *how)))
    control = mean_interval(one.control, *how) if settings.control else None
    return ModelLayers(one, tuple(means), mean_interval(one.scores, *how), control)

"""How far the scores on l* stand out from all scores, by scale (L08, Figure 4)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from l2e.analysis.bootstrap import Interval, mean_interval
from l2e.analysis.sampled_scores import Sample, SampleSettings, sample
from l2e.analysis.scores import ks_statistic
from l2e.analysis.subjects import FeatureSet, Subject


@dataclass(kw_only=True)
class KsConfig(SampleSettings):
    """Figure 4."""

    kind: Literal["ks"] = "ks"


@dataclass(frozen=True)
class ModelDistances:
    """One model: K-S of each neuron, their mean over resampled neurons, and the control's."""

    sample: Sample
    mean: Interval
    control: Interval | None


@dataclass(frozen=True)
class KsResult:
    """All models on one feature set."""

    features: str
    models: tuple[ModelDistances, ...]


def measure(settings: KsConfig, subjects: Sequence[Subject], features: FeatureSet) -> KsResult:
    """The K-S statistic of random neurons of each model, averaged over the neurons (method.md 2.25)."""
    samples = [sample(settings, subject, features, ks_statistic) for subject in subjects]
    how = settings.resamples, settings.seed
    return KsResult(
        features.name,
        tuple(
            ModelDistances(
                one, mean_interval(one.scores, *how), mean_interval(one.control, *how) if settings.control else None
            )
            for one in samples
        ),
    )

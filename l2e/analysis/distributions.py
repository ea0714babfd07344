"""What single neurons answer to each label (L33, Figures 1 and 2)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from l2e.analysis.neuron_choice import BY_MEAN_DIFFERENCE, Ranking, random_neurons
from l2e.analysis.scores import class_scores, relatively_monosemantic_feature
from l2e.analysis.subjects import FeatureSet, Subject
from l2e.errors import UserError, require


@dataclass(kw_only=True)
class NeuronName:
    """One neuron."""

    layer: int
    """From 0."""

    neuron: int
    """Within the layer, from 0."""

    model: str | None = None
    """Name of its model; null: of every model."""


@dataclass(kw_only=True)
class DistributionsConfig:
    """Figures 1 and 2."""

    kind: Literal["distributions"] = "distributions"

    neurons: list[NeuronName] = field(default_factory=list)
    """Which; with none named, `top` and `random` neurons of each model."""

    top: int = 1
    """Neurons that tell a label best."""

    random: int = 1
    """Random neurons."""

    ranking: Literal["probes", "mean_difference"] = "probes"
    """How those are found: the published probes, or faster."""

    bins: int = 40
    """Of the histograms; an even number, so that one ends at the mean."""

    reach: float | None = None
    """How far from the mean the histograms go, in standard deviations of the neuron; what lies beyond is counted in the
    last bin. Null: so far that 99.9% of the values of every neuron lie within."""

    seed: int = 0
    """Of the random neurons."""

    def __post_init__(self) -> None:
        require(self.bins >= 2 and self.bins % 2 == 0, "bins", "even and at least 2", self.bins)
        require(self.reach is None or self.reach > 0, "reach", "above 0 or null", self.reach)
        require(min(self.top, self.random) >= 0, "top and random", "at least 0", (self.top, self.random))
        require(bool(self.neurons) or self.top + self.random > 0, "top + random", "at least 1", 0)


@dataclass(frozen=True)
class Outputs:
    """The outputs of one neuron by label."""

    model: str
    layer: int
    neuron: int
    why: str
    """How it was come by: named, random, or the ranking."""
    mean: float
    deviation: float
    """Sample standard deviation over all sequences, in the unit of the outputs."""
    feature: int | None
    """l*; None for a constant neuron."""
    scores: NDArray[np.float64]
    """[labels] phi_l"""
    label_means: NDArray[np.float64]
    """[labels], in standard deviations from the mean."""
    shares: NDArray[np.float64]
    """[labels, bins]: share of the label's sequences in each bin."""


@dataclass(frozen=True)
class DistributionsResult:
    """All neurons on one feature set; the bins are the same for all."""

    features: str
    label_names: tuple[str, ...]
    edges: NDArray[np.float64]
    """[bins + 1], in standard deviations from the mean; the first and the last bin also hold what lies beyond."""
    neurons: tuple[Outputs, ...]


@dataclass(frozen=True)
class _Column:
    model: str
    layer: int
    neuron: int
    why: str
    values: NDArray[np.float64]

    @property
    def standardised(self) -> NDArray[np.float64]:
        """Deviations from the mean, in standard deviations; zeros for a constant neuron."""
        deviations = self.values - self.values.mean()
        spread = self.values.std(ddof=1)
        return deviations / spread if np.ptp(self.values) > 0 else np.zeros_like(deviations)


def measure(
    settings: DistributionsConfig,
    subjects: Sequence[Subject],
    features: FeatureSet,
    ranking: Ranking = BY_MEAN_DIFFERENCE,
) -> DistributionsResult:
    """Histograms of the named neurons, or of the best and of random ones.

    Raises:
        UserError: a neuron that no model has.
    """
    unknown = {name.model for name in settings.neurons} - {None, *(subject.name for subject in subjects)}
    if unknown:
        names = ", ".join(subject.name for subject in subjects)
        raise UserError(f"analysis.neurons: no model is called {sorted(map(str, unknown))[0]}; there are {names}")
    columns = [column for subject in subjects for column in _columns(settings, subject, features, ranking)]
    reach = settings.reach or max(float(np.quantile(np.abs(column.standardised), 0.999)) for column in columns) or 1.0
    edges = np.linspace(-reach, reach, settings.bins + 1)
    outputs = tuple(_outputs(column, features, edges) for column in columns)
    return DistributionsResult(features.name, features.label_names, edges, outputs)


def _columns(
    settings: DistributionsConfig, subject: Subject, features: FeatureSet, ranking: Ranking
) -> Iterator[_Column]:
    activations = subject.activations()

    def column(layer: int, neuron: int, why: str) -> _Column:
        values = np.asarray(activations.values(layer)[:, neuron], dtype=np.float64)
        return _Column(subject.name, layer, neuron, why, values)

    for name in settings.neurons:
        if name.model in (None, subject.name):
            if not (0 <= name.layer < activations.layers and 0 <= name.neuron < activations.width):
                raise UserError(
                    f"analysis.neurons: {subject.name} has layers 0 to {activations.layers - 1} with neurons 0 to "
                    f"{activations.width - 1}, not layer {name.layer}, neuron {name.neuron}"
                )
            yield column(name.layer, name.neuron, "named")
    if not settings.neurons:
        for one in ranking.find(activations, features, settings.top):
            yield column(one.layer, one.neuron, f"first by {ranking.name}")
        for layer, neurons in random_neurons(activations, settings.random, settings.seed):
            for neuron in neurons.tolist():
                yield column(layer, neuron, "random")


def _outputs(column: _Column, features: FeatureSet, edges: NDArray[np.float64]) -> Outputs:
    classes = len(features.label_names)
    inside = np.clip(column.standardised, edges[0], edges[-1])
    counts = np.stack([np.histogram(inside[features.labels == label], edges)[0] for label in range(classes)])
    sizes = np.bincount(features.labels, minlength=classes)[:, None]
    sums = np.bincount(features.labels, weights=column.standardised, minlength=classes)
    values = column.values[:, None]
    constant = not np.ptp(column.values) > 0
    return Outputs(
        model=column.model,
        layer=column.layer,
        neuron=column.neuron,
        why=column.why,
        mean=float(column.values.mean()),
        deviation=float(column.values.std(ddof=1)),
        feature=None if constant else int(relatively_monosemantic_feature(values, features.labels, classes)[0]),
        scores=class_scores(values, features.labels, classes)[:, 0],
        label_means=_over(sums, sizes[:, 0]),
        shares=_over(counts, sizes),
    )


def _over(above: NDArray[Any], below: NDArray[np.integer]) -> NDArray[np.float64]:
    """A quotient that is NaN where there are no sequences."""
    shape = np.broadcast_shapes(above.shape, below.shape)
    return np.divide(above, below, out=np.full(shape, np.nan), where=np.broadcast_to(below > 0, shape))

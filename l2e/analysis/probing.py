"""Which neuron tells a label from the others: single-neuron probes (Gurnee et al., method.md section 3).

The published protocol, per layer and label (one against the rest):

1. 30% of the sequences are the test part, `train_test_split(test_size=0.3, random_state=42)`.
2. Values are divided by 10 x the neuron's standard deviation over the train part, which is floored at 1e-3.
3. The 30 neurons with the largest |mean of the label - mean of the rest| on the train part are probed.
4. Each gets a logistic regression on its one value: balanced classes, L2, C = 1, saga, at most 200 passes.
5. F1, MCC, precision and recall of its predictions on the test part.

Whoever then picks the neurons with the best test F1 picks luck, too: the best of many is worth less on new data.
So the test part is also cut into two halves: `select_f1_score` is for choosing, and `confirm_f1_score` says what the
chosen are worth. The published numbers stay as they are.
"""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from l2e.analysis.probe_fits import Floats, fit, ignore_unconverged, score
from l2e.analysis.probe_settings import ProbeSettings, Solver
from l2e.analysis.probe_table import Choice, Probe, best_neurons
from l2e.analysis.subjects import Activations, FeatureSet
from l2e.errors import UserError

Progress = Callable[[int, int], None]
"""Told how many layers are done, of how many."""

_FLOOR = 1e-3
_SHRINK = 10
_ROWS = 1024  # sequences that are in memory as float64 at a time


class Split(NamedTuple):
    """Positions of the sequences of each part."""

    train: NDArray[np.intp]
    test: NDArray[np.intp]


def split(features: FeatureSet, config: ProbeSettings) -> Split:
    """The published split; the same for every layer and label.

    Raises:
        UserError: a label is missing in a part of it.
    """
    train, test = train_test_split(
        np.arange(len(features.labels)), test_size=config.test_share, random_state=config.split_seed
    )
    for name, part in (("train part", train), *zip(("one half of the test part",) * 2, halves(test), strict=True)):
        counts = np.bincount(features.labels[part], minlength=len(features.label_names))
        for label, count in zip(features.label_names, counts.tolist(), strict=True):
            if count == 0 or count == len(part):
                raise UserError(
                    f"features {features.name}: {count} of the {len(part)} sequences in the {name} are of label "
                    f"{label}; a probe needs some of it and some of others, so give more sequences a label"
                )
    return Split(train, test)


def halves(test: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The test part (in random order) as the half for choosing and the half for confirming."""
    return test[: len(test) // 2], test[len(test) // 2 :]


def probe_neurons(
    model: str,
    activations: Activations,
    features: FeatureSet,
    config: ProbeSettings | None = None,
    progress: Progress | None = None,
) -> list[Probe]:
    """Probe the best-ranked neurons of every layer for every label.

    Args:
        model: its name, for the table.
        activations: of the model on `features`.
        features: labelled sequences.
        config: the published protocol by default.
        progress: called after each layer.

    Returns:
        layers x labels x `config.ranked` rows, by layer, label and neuron.

    Raises:
        UserError: too few sequences of a label.
    """
    config = config or ProbeSettings()
    parts = split(features, config)
    rows: list[Probe] = []
    for layer in range(activations.layers):
        measured = _Layer(activations.values(layer), features, parts)
        chosen = [np.sort(np.argsort(gap)[-config.ranked :]) for gap in measured.gaps]
        rows += _probe_layer(model, layer, measured, list(enumerate(chosen)), config)
        if progress:
            progress(layer + 1, activations.layers)
    return rows


def probe_listed(
    model: str,
    activations: Activations,
    features: FeatureSet,
    listed: Iterable[tuple[int, int, str]],
    config: ProbeSettings | None = None,
) -> list[Probe]:
    """Probe neurons that somebody named, whatever their rank.

    Args:
        model: see `probe_neurons`, also for the other arguments.
        activations: likewise.
        features: likewise.
        listed: (layer, neuron, label) each; those outside the model are left out.
        config: likewise.

    Returns:
        A row for each, by layer, label and neuron.
    """
    config = config or ProbeSettings()
    wanted = {one for one in listed if one[0] < activations.layers and one[1] < activations.width}
    parts, rows = split(features, config), []
    for layer in sorted({layer for layer, _, _ in wanted}):
        measured = _Layer(activations.values(layer), features, parts)
        by_label = [
            (label, np.array(sorted(n for at, n, feature in wanted if (at, feature) == (layer, name)), np.intp))
            for label, name in enumerate(features.label_names)
        ]
        rows += _probe_layer(model, layer, measured, [one for one in by_label if len(one[1])], config)
    return rows


def top_neurons(
    activations: Activations,
    features: FeatureSet,
    count: int = 10,
    *,
    model: str = "",
    config: ProbeSettings | None = None,
    by: Choice = "test_f1_score",
) -> list[Probe]:
    """The `count` neurons that tell a label best, over all layers and labels: `best_neurons` of `probe_neurons`."""
    return best_neurons(probe_neurons(model, activations, features, config), count, by)


class _Layer:
    """A layer's values with the train part's statistics; memory is bounded by some rows and the probed columns."""

    def __init__(self, values: NDArray[np.float32], features: FeatureSet, parts: Split) -> None:
        self.values = values
        self.features = features
        self.parts = parts
        self._rows = np.sort(parts.train)  # read in the order of the file
        labels, classes = features.labels[self._rows], len(features.label_names)
        member = (labels == np.arange(classes)[:, None]).astype(np.float64)
        counts = member.sum(axis=1, keepdims=True)
        sums = np.zeros((classes, values.shape[1]))
        for block, rows in self._train_blocks():
            sums += member[:, rows] @ block
        mean = sums.sum(axis=0) / counts.sum()
        squares = sum(((block - mean) ** 2).sum(axis=0) for block, _ in self._train_blocks())
        self.scale = _SHRINK * np.maximum(np.sqrt(squares / counts.sum()), _FLOOR)
        rest = (sums.sum(axis=0) - sums) / (counts.sum() - counts)
        self.gaps: Floats = np.abs(sums / counts - rest) / self.scale
        """[labels, neurons]: |mean of the label - mean of the rest|, normalised."""

    def columns(self, neurons: NDArray[np.intp]) -> NDArray[np.float32]:
        """[sequences, neurons]: normalised values."""
        return (self.values[:, neurons] / self.scale[neurons]).astype(np.float32)

    def _train_blocks(self) -> Iterator[tuple[Floats, slice]]:
        for start in range(0, len(self._rows), _ROWS):
            rows = slice(start, start + _ROWS)
            yield self.values[self._rows[rows]].astype(np.float64), rows


def _probe_layer(
    model: str, layer: int, measured: _Layer, chosen: list[tuple[int, NDArray[np.intp]]], config: ProbeSettings
) -> list[Probe]:
    """Probes of (label, neurons) pairs, a thread each: saga works outside of Python's lock."""
    with warnings.catch_warnings(), ThreadPoolExecutor(config.jobs or os.cpu_count()) as pool:
        ignore_unconverged()
        tables = pool.map(partial(_probe_label, model, layer, measured, solver=config.solver), chosen)
        return [row for table in tables for row in table]


def _probe_label(
    model: str, layer: int, measured: _Layer, chosen: tuple[int, NDArray[np.intp]], solver: Solver
) -> list[Probe]:
    label, neurons = chosen
    values, positive = measured.columns(neurons), measured.features.labels == label
    train, test = measured.parts
    fits = fit(values[train], positive[train], solver)
    whole, select, confirm = (score(fits.predict(values[part]), positive[part]) for part in (test, *halves(test)))
    published = [whole.mcc, whole.f1, whole.precision, whole.recall, fits.coef]
    columns = [*published, measured.gaps[label, neurons], select.f1, confirm.f1]
    names = (model, measured.features.name, measured.features.label_names[label], layer)
    return [
        Probe(*names, int(neuron), *map(float, numbers))
        for neuron, *numbers in zip(neurons, *columns, strict=True)
    ]  # fmt: skip

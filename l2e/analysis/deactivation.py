"""What a model loses without a neuron, label by label (M24; Fig 2 of MEmeL; run_ablation.py of Gurnee et al.).

The neuron is 0 at all positions; a sequence's loss is the sum over its tokens of -log p(token | those before), and its
increase is 100 x (loss without the neuron - loss) / loss. Random neurons of the same layers are the control: without
them nobody could tell what a neuron means from what any neuron costs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from l2e.analysis.neurons import Neuron, Place, check_neurons, deactivated, mlps, parse_group
from l2e.analysis.subjects import FeatureSet
from l2e.errors import UserError

Floats = NDArray[np.float64]
Progress = Callable[[int, int], None]
"""Told how many passes over the sequences are done, of how many."""


@dataclass(kw_only=True)
class DeactivateSettings:
    """Which neurons are switched off, and on what the loss is measured."""

    neurons: list[str] = field(default_factory=list)
    """Like L3.N609; L3.N609+L4.N12 are switched off together. Empty: the `top` by probing."""

    top: int = 3
    """How many are found by probing where none is named; the loss is then measured on the probes' test part."""

    place: Place = "hidden_post"
    """What is set to 0: after the GELU, or before it."""

    controls: int = 3
    """Random groups of the same layers and size, for each group."""

    per_label: int | None = 50
    """Sequences of each label, drawn by `seed`; null: all."""

    batch_size: int = 8
    """Sequences of one forward pass."""

    seed: int = 0
    """Of the sequences and the random neurons."""

    def __post_init__(self) -> None:
        for text in self.neurons:
            parse_group(text)
        for key, least in (("top", 1), ("controls", 0), ("batch_size", 1)):
            if getattr(self, key) < least:
                raise ValueError(f"{key} must be at least {least}, not {getattr(self, key)}")
        if self.per_label is not None and self.per_label < 1:
            raise ValueError(f"per_label must be at least 1 or null, not {self.per_label}")


@dataclass(frozen=True)
class Deactivation:
    """What one group of neurons is worth."""

    group: tuple[Neuron, ...]
    control_of: tuple[Neuron, ...] | None
    """The group for which this one is a random control; None for a group that was asked for."""
    increase: Floats
    """[sequences] in percent (M24)."""


@dataclass(frozen=True)
class DeactivationStudy:
    """All groups of one model on one feature set."""

    model: str
    features: FeatureSet
    rows: NDArray[np.intp]
    """[sequences]: positions in the feature set."""
    nominal: Floats
    """[sequences]: loss of the whole model, summed over the tokens, in nats."""
    found: list[Deactivation]

    @property
    def labels(self) -> NDArray[np.int64]:
        """[sequences]."""
        return self.features.labels[self.rows]


def token_losses(model: nn.Module, tokens: Tensor) -> Tensor:
    """-log p of each token but the first, fp32 [batch, length - 1], for tokens [batch, length]."""
    logits = model(input_ids=tokens, use_cache=False).logits[:, :-1]
    return F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten(), reduction="none").view(
        len(tokens), -1
    )


@torch.no_grad()
def sequence_losses(
    model: nn.Module, features: FeatureSet, rows: NDArray[np.intp] | None = None, batch_size: int = 8
) -> Floats:
    """Sum of the losses of each sequence's valid tokens; a sequence's first token is never predicted.

    Args:
        model: a GPTNeoXForCausalLM in evaluation mode.
        features: the sequences.
        rows: which; all by default.
        batch_size: sequences of a forward pass, those of like lengths together.

    Returns:
        [rows] in nats, in the order of `rows`.

    Raises:
        UserError: a sequence has no valid token after its first.
    """
    rows = np.arange(len(features.labels)) if rows is None else rows
    first = np.maximum(features.starts, 1)
    if (empty := rows[first[rows] >= features.ends[rows]]).size:
        raise UserError(f"features {features.name}: sequence {empty[0]} has no valid token after its first")
    device = next(model.parameters()).device
    losses = np.zeros(len(rows))
    for places in _batches(features.ends[rows], batch_size):
        batch = rows[places]
        length = int(features.ends[batch].max())
        found = token_losses(model, torch.from_numpy(features.tokens[batch, :length]).long().to(device))
        position = np.arange(1, length)
        valid = (position >= first[batch, None]) & (position < features.ends[batch, None])
        losses[places] = np.where(valid, found.double().cpu().numpy(), 0).sum(axis=1)
    return losses


def measure(
    model: nn.Module,
    name: str,
    features: FeatureSet,
    groups: Sequence[tuple[Neuron, ...]],
    config: DeactivateSettings | None = None,
    among: NDArray[np.intp] | None = None,
    progress: Progress | None = None,
) -> DeactivationStudy:
    """Switch each group off, and random ones of the same layers; one pass over the sequences for each.

    Args:
        model: a GPTNeoXForCausalLM in evaluation mode, on its device.
        name: of the model.
        features: labelled sequences.
        groups: neurons that are switched off together.
        config: the controls, the sequences and their seed; `neurons` and `top` are not looked at.
        among: positions that sequences are drawn from, for neurons that were chosen on others; all by default.
        progress: called after each pass.

    Raises:
        UserError: the model has no such neuron.
    """
    config = config or DeactivateSettings()
    check_neurons(model, (neuron for group in groups for neuron in group))
    random = np.random.default_rng(config.seed)
    rows = _draw(features, among, config.per_label, random)
    controls = [(draw_control(model, groups, group, random), group) for group in groups for _ in range(config.controls)]
    planned = [*((group, None) for group in groups), *controls]
    nominal = sequence_losses(model, features, rows, config.batch_size)
    found = []
    for done, (group, control_of) in enumerate(planned, start=1):
        with deactivated(model, group, config.place):
            losses = sequence_losses(model, features, rows, config.batch_size)
        found.append(Deactivation(group, control_of, loss_increase(nominal, losses)))
        if progress:
            progress(done, len(planned))
    return DeactivationStudy(name, features, rows, nominal, found)


def loss_increase(nominal: Floats, ablated: Floats) -> Floats:
    """100 x (ablated - nominal) / nominal (M24)."""
    return 100 * (ablated - nominal) / nominal


def draw_control(
    model: nn.Module, groups: Sequence[tuple[Neuron, ...]], group: tuple[Neuron, ...], random: np.random.Generator
) -> tuple[Neuron, ...]:
    """A random group with as many neurons of each layer as `group`, none of which is in any of `groups`.

    Raises:
        UserError: a layer has too few others.
    """
    width, drawn = mlps(model)[0].dense_4h_to_h.in_features, []
    for layer in sorted({neuron.layer for neuron in group}):
        taken = {neuron.number for each in groups for neuron in each if neuron.layer == layer}
        others = np.array([index for index in range(width) if index not in taken])
        count = sum(neuron.layer == layer for neuron in group)
        if count > len(others):
            raise UserError(f"controls: layer {layer} has no {count} other neurons; set controls=0")
        drawn += [Neuron(layer, int(index)) for index in np.sort(random.choice(others, count, replace=False))]
    return tuple(drawn)


@dataclass(frozen=True)
class LabelSummary:
    """The increases of one label: what a box plot shows, and the mean with its standard error."""

    label: str
    count: int
    mean: float
    error: float
    """Of the mean, over sequences; NaN for one."""
    low: float
    """Smallest within 1.5 x (q3 - q1) of the box, matplotlib's lower whisker."""
    q1: float
    median: float
    q3: float
    high: float


def summarise(names: Sequence[str], labels: NDArray[np.int64], increase: Floats) -> list[LabelSummary]:
    """Increases [sequences] by label [sequences], in the order of the names; labels without sequences are left out."""
    found = []
    for index, name in enumerate(names):
        values = increase[labels == index]
        if not len(values):
            continue
        q1, median, q3 = np.percentile(values, [25, 50, 75])
        reach = 1.5 * (q3 - q1)
        error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
        low, high = values[values >= q1 - reach].min(), values[values <= q3 + reach].max()
        numbers = (values.mean(), error, min(low, q1), q1, median, q3, max(high, q3))
        found.append(LabelSummary(name, len(values), *map(float, numbers)))
    return found


def _draw(
    features: FeatureSet, among: NDArray[np.intp] | None, per_label: int | None, random: np.random.Generator
) -> NDArray[np.intp]:
    among = np.arange(len(features.labels)) if among is None else among
    rows = []
    for label in range(len(features.label_names)):
        own = np.sort(among[features.labels[among] == label])
        few = per_label is not None and per_label < len(own)
        rows.append(random.choice(own, per_label, replace=False) if few else own)
    return np.sort(np.concatenate(rows)).astype(np.intp)


def _batches(ends: NDArray[np.int64], batch_size: int) -> Iterator[NDArray[np.intp]]:
    """Places of the sequences of each forward pass, from short to long: little of it is padding."""
    order = np.argsort(ends, kind="stable")
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]

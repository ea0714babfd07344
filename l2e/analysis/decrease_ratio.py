"""Does Reverse Deactivation lower monosemanticity? MEmeL's Table 4 (rows M19, M20) on a small network.

The protocol is V1 of the reference. Per seed: 20 Gaussian classes in R^32, an MLP 32-64-64-64-20 with GELU, whose
second hidden layer's *output* (after its GELU) is hooked. The network is trained by Adam, and at each of some numbers
of Adam steps it is measured what one plain SGD step with each method (M05-M07) does to the neurons it inhibits.

How the text is read where it leaves a choice:

- **Which neurons**: of each sample the one neuron with the highest Monosemanticity Score, as MEmeL's code does (2.9).
  "Original" inhibits nothing, but is measured on the same neurons.
- **Statistics**: mean and unbiased variance of each neuron over fresh samples of the network at that point. They stay
  fixed during the measurement, so a change of the score is a change of the output. No compensation (plain M01).
- **One update** is one SGD step on the mean loss of one batch, in which every sample has its neuron inhibited. So the
  gradients of the other samples of the batch move a sample's output, too; `batch_size=1` is the other reading.
- **After the update** the same input gives z' with the new weights. Each update starts from the same weights.
- **The averages** are over all samples of all batches of a seed; standard errors are over seeds.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter, sub
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from l2e.inhibition import deactivate, monosemanticity_score
from l2e.inhibition.update_ratios import decrease_ratio, total_update_ratio

# What M08 calls Delta, by method of Table 4; None is "Original", which leaves the outputs alone.
DELTAS: Mapping[str, float | None] = {
    "original": None,
    "naive_a": 0.0,
    "naive_b": -1.0,
    "rd": 1.0,
}
BASES = ("original", "naive_b")  # what Reverse Deactivation is claimed to exceed


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """The protocol of V1."""

    adam_steps: tuple[int, ...] = (0, 100, 1000, 4000)
    """Training steps after which is measured, ascending."""
    adam_lr: float = 1e-3
    adam_batch: int = 64
    statistics_samples: int = 20_000
    batches: int = 100
    """Measured batches (updates) for each method."""
    batch_size: int = 64
    """Samples of a measured update."""
    sgd_lr: float = 1e-3
    """Learning rate of the measured update."""
    classes: int = 20
    inputs: int = 32
    width: int = 64
    noise: float = 1.6
    """Standard deviation within a class; that of the centres is 1. With less the loss saturates."""

    def __post_init__(self) -> None:
        if not self.adam_steps or list(self.adam_steps) != sorted(set(self.adam_steps)) or self.adam_steps[0] < 0:
            raise ValueError(f"adam_steps must be ascending and at least 0, not {self.adam_steps}")


class LayerStatistics(NamedTuple):
    """Mean and unbiased variance of each neuron of a layer."""

    mean: Tensor
    var: Tensor


class UpdateRatios(NamedTuple):
    """What one update did to the inhibited neuron of each sample, in percent, [batch]."""

    decrease: Tensor
    update: Tensor


@dataclass(frozen=True)
class MeanRatios:
    """One method at one point of the training of one seed, in percent."""

    decrease: float
    """Average Decrease Ratio (M19)."""
    update: float
    """Average Total Update Ratio (M20)."""
    median_update: float
    """Median Total Update Ratio, which outputs near 0 do not dominate."""


@dataclass(frozen=True)
class Measurement:
    """All methods at one point of the training of one seed."""

    accuracy: float
    ratios: dict[str, MeanRatios]


def measure_update(
    lower: nn.Module,
    upper: nn.Module,
    batch: tuple[Tensor, Tensor],
    layer: LayerStatistics,
    delta: float | None,
    lr: float,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> UpdateRatios:
    """Measure what one SGD step does to the neuron with the highest score of each sample.

    The weights are left as they are: the step is taken on a copy. Only `lower` is stepped, because the measured
    outputs are its own.

    Args:
        lower: from the inputs to the hooked layer, [batch, neurons].
        upper: from there to the output.
        batch: inputs and labels.
        layer: statistics of the hooked layer.
        delta: see `l2e.inhibition.deactivate`; None inhibits nothing.
        lr: learning rate of the step.
        loss: of output and labels.
    """
    inputs, labels = batch
    hidden = lower(inputs)
    before = hidden.detach()
    scores = monosemanticity_score(before, *layer)
    top = scores.argmax(dim=1, keepdim=True)
    mask = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, top, True)
    inhibited = hidden if delta is None else deactivate(hidden, layer.mean, mask, delta)
    stepped = _sgd_step(lower, loss(upper(inhibited), labels), lr)
    with torch.no_grad():
        after = functional_call(lower, stepped, (inputs,))
        new_scores = monosemanticity_score(after, *layer)
    return UpdateRatios(decrease_ratio(scores[mask], new_scores[mask]), total_update_ratio(before[mask], after[mask]))


def run_seed(seed: int, config: StudyConfig | None = None) -> dict[int, Measurement]:
    """Train one network and measure all methods along the way, on the same batches.

    Args:
        seed: of the classes, the weights and all samples. The global random state is left alone.
        config: the protocol; V1's by default.

    Returns:
        Measurement by number of Adam steps.
    """
    config = config or StudyConfig()
    generator = torch.Generator().manual_seed(seed)
    network = _network(config, generator)
    data = _GaussianClasses(config, generator)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.adam_lr)
    found, done = {}, 0
    for steps in config.adam_steps:
        for _ in range(steps - done):
            _adam_step(network, optimizer, data.sample(config.adam_batch))
        done = steps
        found[steps] = _measure(network, data, config)
    return found


@dataclass(frozen=True)
class Estimate:
    """One number per seed."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return statistics.fmean(self.values)

    @property
    def error(self) -> float:
        """Standard error of the mean; NaN with one seed."""
        return statistics.stdev(self.values) / math.sqrt(len(self.values)) if len(self.values) > 1 else math.nan

    @property
    def errors_away(self) -> float:
        """How many standard errors the mean lies from 0."""
        return self.mean / self.error if self.error > 0 else math.nan

    @property
    def positive(self) -> int:
        """How many seeds lie above 0."""
        return sum(value > 0 for value in self.values)


@dataclass(frozen=True)
class StudyRow:
    """All seeds at one number of Adam steps. Ratios in percent, by method."""

    accuracy: Estimate
    decrease: dict[str, Estimate]
    update: dict[str, Estimate]
    median_update: dict[str, Estimate]
    lead: dict[str, Estimate]
    """Decrease Ratio of Reverse Deactivation minus that of each of `BASES`, paired by seed."""


def aggregate(runs: Sequence[Mapping[int, Measurement]]) -> dict[int, StudyRow]:
    """Put the seeds together.

    Args:
        runs: what `run_seed` returned, one for each seed, all of one config.

    Returns:
        Row by number of Adam steps.
    """
    return {steps: _row([run[steps] for run in runs]) for steps in runs[0]}


def _row(measurements: Sequence[Measurement]) -> StudyRow:
    decrease = _by_method(measurements, attrgetter("decrease"))
    ours = decrease["rd"].values
    return StudyRow(
        accuracy=Estimate(tuple(measurement.accuracy for measurement in measurements)),
        decrease=decrease,
        update=_by_method(measurements, attrgetter("update")),
        median_update=_by_method(measurements, attrgetter("median_update")),
        lead={base: Estimate(tuple(map(sub, ours, decrease[base].values))) for base in BASES},
    )


def _by_method(measurements: Sequence[Measurement], value: Callable[[MeanRatios], float]) -> dict[str, Estimate]:
    return {name: Estimate(tuple(value(found.ratios[name]) for found in measurements)) for name in DELTAS}


class _GaussianClasses:
    """Endless samples of classes that are Gaussians around random centres."""

    def __init__(self, config: StudyConfig, generator: torch.Generator) -> None:
        self.noise = config.noise
        self.generator = generator
        self.centres = torch.randn(config.classes, config.inputs, generator=generator)

    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        """Inputs [count, inputs] and labels [count]."""
        labels = torch.randint(len(self.centres), (count,), generator=self.generator)
        deviation = torch.randn(count, self.centres.shape[1], generator=self.generator)
        return self.centres[labels] + self.noise * deviation, labels


def _network(config: StudyConfig, generator: torch.Generator) -> nn.Sequential:
    """The MLP in two parts: up to the hooked outputs, and from there on."""
    width = config.width
    with torch.random.fork_rng(devices=[]):
        # A seed of their own: from the same one, weights and centres would be made of the same random bits.
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        lower = nn.Sequential(nn.Linear(config.inputs, width), nn.GELU(), nn.Linear(width, width), nn.GELU())
        upper = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, config.classes))
    return nn.Sequential(lower, upper)


def _adam_step(network: nn.Module, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, Tensor]) -> None:
    inputs, labels = batch
    optimizer.zero_grad()
    F.cross_entropy(network(inputs), labels).backward()
    optimizer.step()


def _sgd_step(module: nn.Module, loss: Tensor, lr: float) -> dict[str, Tensor]:
    """The module's weights after a step; its own are unchanged."""
    names, weights = zip(*module.named_parameters(), strict=True)
    gradients = torch.autograd.grad(loss, weights)
    return {
        name: (weight - lr * gradient).detach()
        for name, weight, gradient in zip(names, weights, gradients, strict=True)
    }


def _measure(network: nn.Sequential, data: _GaussianClasses, config: StudyConfig) -> Measurement:
    lower, upper = network
    inputs, labels = data.sample(config.statistics_samples)
    with torch.no_grad():
        hidden = lower(inputs)
        accuracy = (upper(hidden).argmax(dim=1) == labels).float().mean().item()
    layer = LayerStatistics(hidden.mean(dim=0), hidden.var(dim=0))
    batches = [data.sample(config.batch_size) for _ in range(config.batches)]
    ratios = {}
    for name, delta in DELTAS.items():
        updates = [measure_update(lower, upper, batch, layer, delta, config.sgd_lr) for batch in batches]
        ratios[name] = _mean_ratios(updates)
    return Measurement(accuracy, ratios)


def _mean_ratios(updates: Sequence[UpdateRatios]) -> MeanRatios:
    decrease = torch.cat([ratios.decrease for ratios in updates]).double()
    update = torch.cat([ratios.update for ratios in updates]).double()
    return MeanRatios(decrease.mean().item(), update.mean().item(), update.median().item())

"""What is kept of a finished toy run, in memory and on disk."""

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from l2e.analysis.toy.config import ToyRun
from l2e.analysis.toy.measures import linear_map, monosemanticity, responses
from l2e.analysis.toy.training import Training
from l2e.errors import UserError
from l2e.files import write_atomically

Numbers = NDArray[np.float64]

_TENSORS = ("projection", "weight_in", "bias", "weight_out")
_COUNTS = ("monosemantic", "mean_bias", "positive", "dead")


@dataclass(frozen=True)
class ToyResult:
    """A finished run.

    Attributes:
        losses: of each step. clean_loss: mean over the last cycle without the inhibition at work.
        steps: after which counts were taken. counts: by name, one number per entry of `steps`.
        projection: P [features, inputs]; weight_in [inputs, neurons]; bias [neurons]; weight_out [neurons, outputs].
    """

    run: ToyRun
    losses: Numbers
    clean_loss: float
    steps: NDArray[np.int64]
    counts: dict[str, Numbers]
    projection: Tensor
    weight_in: Tensor
    bias: Tensor
    weight_out: Tensor

    @property
    def cycle_losses(self) -> Numbers:
        """Mean loss of each whole cycle of the learning rate; single losses lie at its top or bottom."""
        return np.asarray(self.losses.reshape(-1, 2 * self.run.half_cycle).mean(1))

    @property
    def loss(self) -> float:
        """Mean loss over the last whole cycle."""
        return float(self.cycle_losses[-1])

    def count(self, name: str, half_cycles_before_end: int = 0) -> float:
        """A count at the end of training, or at the bottom of the last cycle (1 half cycle before it)."""
        step = self.run.steps - half_cycles_before_end * self.run.half_cycle
        return float(self.counts[name][self.steps.tolist().index(step)])

    @property
    def per_feature(self) -> float:
        """Monosemantic neurons over features at the end (J08)."""
        return self.count("monosemantic") / self.run.features

    @property
    def per_neuron(self) -> float:
        """Monosemantic neurons over neurons at the end (J08)."""
        return self.count("monosemantic") / self.run.neurons

    def responses(self) -> Tensor:
        """h_i(F_j), [features, neurons]."""
        tensors = self.projection[None], self.weight_in[None], self.bias[None, None]
        return responses(*tensors, self.run.activation, self.run.task)[0]

    def monosemanticity(self) -> Tensor:
        """r_i, [neurons]."""
        return monosemanticity(self.responses())

    def linear_map(self) -> Tensor:
        """See `l2e.analysis.toy.measures.linear_map`."""
        return linear_map(self.projection, self.weight_in, self.bias, self.weight_out)


def finished(training: Training) -> list[ToyResult]:
    """The results of a training that has made all its steps."""
    losses, clean = training.losses.cpu().double().numpy(), training.clean_losses().tolist()
    steps = np.array(sorted(training.records))
    model = training.model
    tensors = [training.task.projection, model.weight_in, model.bias.squeeze(1), model.weight_out]
    found = []
    for index, run in enumerate(training.runs):
        own = [tensor[index].detach().cpu().clone() for tensor in tensors]
        series = {name: np.array([float(training.records[s][name][index]) for s in steps]) for name in _COUNTS}
        found.append(ToyResult(run, losses[:, index], clean[index], steps, series, *own))
    return found


def save(result: ToyResult, path: Path) -> None:
    """Keep a result; losses in single precision, as they were computed."""
    arrays = {name: getattr(result, name).numpy() for name in _TENSORS} | result.counts
    buffer = io.BytesIO()
    np.savez(
        buffer,
        settings=np.array(json.dumps(asdict(result.run))),
        losses=result.losses.astype(np.float32),
        clean_loss=np.array(result.clean_loss),
        steps=result.steps,
        **arrays,
    )
    write_atomically(path, buffer.getvalue())


def load(path: Path, run: ToyRun) -> ToyResult:
    """Read back what `save` kept.

    Raises:
        UserError: the file is damaged or holds another run.
    """
    try:
        with np.load(path) as kept:
            arrays = {name: kept[name] for name in kept.files}
        settings = json.loads(str(arrays["settings"]))
        if settings != asdict(run):
            raise ValueError("it holds another run")
        counts = {name: arrays[name] for name in _COUNTS}
        tensors = [torch.from_numpy(arrays[name]) for name in _TENSORS]
        losses = arrays["losses"].astype(np.float64)
        return ToyResult(run, losses, float(arrays["clean_loss"]), arrays["steps"], counts, *tensors)
    except Exception as error:  # a damaged archive can fail in any of its layers
        raise UserError(f"{path} cannot be read ({error}): delete it, and the run is trained again") from error

"""The two-layer model (J05), many runs side by side."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from l2e.analysis.toy.config import ToyRun
from l2e.analysis.toy.features import generator


def activate(values: Tensor, name: str) -> Tensor:
    """ReLU, GELU, or the published code's x exp(x) under the name `solu`."""
    if name == "relu":
        return torch.relu(values)
    return F.gelu(values) if name == "gelu" else values * torch.exp(values)


class ToyModel(nn.Module):
    """e = x L1 + b, h = act(e), y = h L2 for each run (J05); one batched product does for all.

    Initial weights and biases are those of `torch.nn.Linear`, uniform within 1 / sqrt(inputs of the layer), and the
    same for all runs of one seed; the biases are then moved by each run's offset (J10).

    Attributes:
        weight_in: [runs, inputs, neurons]. bias: [runs, 1, neurons]. weight_out: [runs, neurons, outputs].
        taps: for an inhibited model one module per run, whose output is that run's h [batch, neurons].
    """

    def __init__(self, runs: Sequence[ToyRun], device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.activation = runs[0].activation
        parts = [_initial(run) for run in runs]
        tensors = (torch.stack(part).to(device) for part in zip(*parts, strict=True))
        self.weight_in, self.bias, self.weight_out = (nn.Parameter(tensor) for tensor in tensors)
        inhibited = runs[0].inhibition != "none"
        self.taps = nn.ModuleList(nn.Identity() for _ in runs) if inhibited else None

    def hidden(self, inputs: Tensor) -> Tensor:
        """h [runs, batch, neurons] of inputs [runs, batch, inputs]."""
        hidden = activate(torch.baddbmm(self.bias, inputs, self.weight_in), self.activation)
        if self.taps is None:
            return hidden
        return torch.stack([tap(one) for tap, one in zip(self.taps, hidden, strict=True)])

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs [runs, batch, outputs] and h."""
        hidden = self.hidden(inputs)
        return torch.bmm(hidden, self.weight_out), hidden


def _initial(run: ToyRun) -> tuple[Tensor, Tensor, Tensor]:
    random = generator("cpu", "weights", run.seed)

    def uniform(rows: int, columns: int, fan_in: int) -> Tensor:
        return (2 * torch.rand(rows, columns, generator=random) - 1) / fan_in**0.5

    weight_in = uniform(run.inputs, run.neurons, run.inputs)
    bias = uniform(1, run.neurons, run.inputs) + run.bias_offset
    return weight_in, bias, uniform(run.neurons, run.outputs, run.neurons)

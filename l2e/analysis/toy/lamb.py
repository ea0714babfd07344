"""LAMB as the toy models were trained with it (J09), and its cyclic learning rate."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

BETAS = (0.9, 0.999)
EPS = 1e-6
LARGEST_NORM = 10.0


def cosine_cycle(step: int, half_cycle: int) -> float:
    """Factor of the learning rate in step 0, 1, ...: cosine annealing that is stepped on past its end (J09).

    It falls from 1 to 0 in `half_cycle` steps and rises again in as many.
    """
    return (1 + math.cos(math.pi * step / half_cycle)) / 2


class Lamb:
    """LAMB in torch_optimizer's variant: no bias correction, weight norms clipped at 10 (J09).

    Each parameter holds one tensor per run in its first dimension, and each of these has its own trust ratio, its
    norm over the norm of its Adam step; 1 where either norm is 0.

    Args:
        parameters: each [runs, ...].
        lr: of each run, [runs].
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: Tensor) -> None:
        self.parameters = list(parameters)
        self.lr = lr
        self.means = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.squares = [torch.zeros_like(parameter) for parameter in self.parameters]

    @torch.no_grad()
    def step(self, gradients: Iterable[Tensor], factor: float = 1.0) -> None:
        """One update with the learning rates times `factor`."""
        for parameter, gradient, mean, square in zip(self.parameters, gradients, self.means, self.squares, strict=True):
            mean.mul_(BETAS[0]).add_(gradient, alpha=1 - BETAS[0])
            square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
            update = mean / (square.sqrt() + EPS)
            size = factor * trust_ratio(parameter, update) * self.lr
            parameter.addcmul_(update, size.view(-1, *[1] * (update.dim() - 1)), value=-1)

    def state_dict(self) -> dict[str, Any]:
        """The two moments of each parameter."""
        return {"means": self.means, "squares": self.squares}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over saved moments."""
        for name, own in (("means", self.means), ("squares", self.squares)):
            for mine, saved in zip(own, state[name], strict=True):
                mine.copy_(saved)


def trust_ratio(parameter: Tensor, update: Tensor) -> Tensor:
    """|parameter| clipped at 10, over |update|, for each run; 1 where either is 0. [runs]."""
    weight, step = (tensor.flatten(1).norm(dim=1) for tensor in (parameter, update))
    return torch.where((weight == 0) | (step == 0), 1.0, weight.clamp(max=LARGEST_NORM) / step)

"""What is measured on a toy model: r_i, monosemantic neurons, biases, the linear map (J07, J08, J12)."""

import torch
from torch import Tensor

from l2e.analysis.toy.model import activate

MONOSEMANTIC = 0.999
"""A neuron with a higher r_i counts as monosemantic (J08)."""
POSITIVE = 0.05
"""A higher bias counts as positive."""


def responses(projection: Tensor, weight_in: Tensor, bias: Tensor, activation: str, task: str = "decoder") -> Tensor:
    """h of each unit feature alone, h_i(F_j); for the absolute value h_i(F_j) + h_i(-F_j) (J07).

    Args:
        projection: P [runs, features, inputs].
        weight_in: [runs, inputs, neurons].
        bias: [runs, 1, neurons].
        activation: of the model.
        task: of the model.

    Returns:
        [runs, features, neurons].
    """
    linear = torch.bmm(projection, weight_in)
    found = activate(linear + bias, activation)
    return found + activate(bias - linear, activation) if task == "absolute" else found


def monosemanticity(responses: Tensor) -> Tensor:
    """r_i = max_j h_i(F_j) / (1e-10 + sum_j max(0, h_i(F_j))) (J07).

    Args:
        responses: h_i(F_j), [..., features, neurons].

    Returns:
        [..., neurons], 1 for a neuron that answers to one feature alone, 0 for one that answers to none.
    """
    return responses.amax(-2).clamp(min=0) / (1e-10 + responses.clamp(min=0).sum(-2))


def counts(responses: Tensor, bias: Tensor) -> dict[str, Tensor]:
    """Of each run: monosemantic neurons, mean bias, neurons of positive bias, dead neurons. Each [runs].

    Args:
        responses: [runs, features, neurons].
        bias: [runs, 1, neurons].
    """
    return {
        "monosemantic": (monosemanticity(responses) > MONOSEMANTIC).sum(-1),
        "mean_bias": bias.mean((1, 2)),
        "positive": (bias > POSITIVE).sum((1, 2)),
        "dead": (responses <= 0).all(-2).sum(-1),
    }


def linear_map(projection: Tensor, weight_in: Tensor, bias: Tensor, weight_out: Tensor) -> Tensor:
    """What neurons of positive bias do to the features if their activation is left out (J12).

    Args:
        projection: P of one run, [features, inputs].
        weight_in: [inputs, neurons].
        bias: [1, neurons] or [neurons].
        weight_out: [neurons, outputs].

    Returns:
        [features, outputs]; row j is the answer to feature j.
    """
    positive = bias.flatten() > POSITIVE
    return projection @ weight_in[:, positive] @ weight_out[positive]

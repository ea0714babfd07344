"""The Monosemanticity Score (rows L03, M01)."""

import torch
from torch import Tensor


def monosemanticity_score(values: Tensor, mean: Tensor, var: Tensor, compensation: float = 0.0) -> Tensor:
    """phi = (z - mean)^2 / (var + compensation * mean(var)), in fp32.

    Args:
        values: [batch, *shape] outputs z.
        mean: [*shape] mean of each neuron over the samples *before* these.
        var: [*shape] unbiased variance, likewise.
        compensation: share of the layer's mean variance that is added to each neuron's own (M04, 2.8).

    Returns:
        Scores, same shape as `values`, at least 0. A neuron that never varied (and gets no compensation)
        scores 0: without a spread there is nothing to measure a deviation by.
    """
    deviation = values.float() - mean
    return deviation * deviation * inverse_spread(var, compensation)


def inverse_spread(var: Tensor, compensation: float, typical: Tensor | None = None) -> Tensor:
    """1 / (var + compensation * typical), 0 where there is no spread; shape of `var`.

    Args:
        var: [*shape] variance of each neuron.
        compensation: see `monosemanticity_score`.
        typical: the layer's mean variance; None: the mean of `var`.
    """
    if compensation:
        var = var + compensation * (var.mean() if typical is None else typical)
    return torch.where(var > 0, 1 / var, torch.zeros_like(var))

"""The methods, and what they do to the selected outputs: log penalty (L15), deactivation (M05-M08)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Method:
    """One row of the papers: how outputs are selected, and what is done to them."""

    selection: Literal["moving", "exact"] | None
    """`moving` threshold (L13, L14), or the `exact` top k of each sample (2.9)."""

    action: Literal["penalty", "deactivate", "dropout"] | None
    delta: float | None = None
    """Of deactivation (M08); None: the user's, 1 by default."""


METHODS = {
    "none": Method(None, None),
    "dropout": Method(None, "dropout"),  # L18
    "l2e": Method("moving", "penalty"),  # L13-L15
    "l2e_no_threshold": Method("exact", "penalty"),  # L24, "No-Thr" of Table 7
    "memel": Method("exact", "deactivate"),  # M07
    "reverse_deactivation": Method("moving", "deactivate"),  # L25, "RD" of Table 8 (2.27)
    "naive_a": Method("exact", "deactivate", delta=0.0),  # M05
    "naive_b": Method("exact", "deactivate", delta=-1.0),  # M06
}


def log_penalty(values: Tensor, mean: Tensor, mask: Tensor) -> Tensor:
    """L_MS = sum over the selected of log (z - mean)^2 (Eq. 5 of L2E), in fp32.

    The mean is a constant (2.14). The selection happens before the log, because 0 x infinity would turn
    the gradient of unselected outputs at z == mean into NaN (2.15); a selected one there adds nothing.

    Args:
        values: [batch, *shape] outputs z.
        mean: [*shape] running mean.
        mask: [batch, *shape] boolean.

    Returns:
        0-dim fp32. Its gradient is 2 / (z - mean) on the selected and 0 elsewhere.
    """
    return sum_of_logs(values.float() - mean.detach(), mask)


def sum_of_logs(deviation: Tensor, mask: Tensor) -> Tensor:
    """Sum over the selected of log deviation^2, as 2 log |deviation|: a square could under- or overflow."""
    used = mask & (deviation != 0)
    return 2 * torch.where(used, deviation, 1.0).abs_().log_().sum()


def deactivate(values: Tensor, mean: Tensor, mask: Tensor, delta: float) -> Tensor:
    """Put the selected outputs at the mean: z' = -delta z + (mean + delta z without gradient) (M08).

    Args:
        values: [batch, *shape] outputs z.
        mean: [*shape] running mean.
        mask: [batch, *shape] boolean.
        delta: 1 Reverse Deactivation (M07), 0 naive (a) (M05), -1 naive (b) (M06).

    Returns:
        z', shape and type of `values`: exactly the mean on the selected (a choice, not a product, so no
        rounding of delta * z is left over) with -delta times the gradient; z itself elsewhere.
    """
    target = mean.detach().to(values.dtype).expand_as(values)
    moved = _ScaledGradient.apply(values, target, -delta)
    return torch.where(mask, moved, values)


class _ScaledGradient(torch.autograd.Function):
    """The value of `target` with `factor` times the gradient of `values`."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, values: Tensor, target: Tensor, factor: float) -> Tensor:
        ctx.factor = factor  # type: ignore[attr-defined]
        return target.clone()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0] * ctx.factor, None, None  # type: ignore[attr-defined]

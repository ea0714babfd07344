"""The work on a tap's outputs in plain PyTorch: any device, any floating type. `triton_ops` does the same.

In place wherever it can be: on a CPU fresh memory costs several times what is computed in it.
"""

from dataclasses import replace

import torch
from torch import Tensor

from l2e.inhibition.methods import sum_of_logs
from l2e.inhibition.rule import FindLimit, Purpose, Rule, View
from l2e.inhibition.strength import Rounding, round_at_random


def look(values: Tensor, rule: Rule, purpose: Purpose, find_limit: FindLimit | None) -> View:
    """Score, select and count.

    Args:
        values: [batch, *shape] outputs.
        rule: what selects.
        purpose: what the selected are found for.
        find_limit: from the scores to the limit, where it depends on them; None: the rule's.
    """
    deviation, scores = rule.scores(values)
    if find_limit is not None:
        rule = replace(rule, limit=find_limit(scores))
    mask = scores > rule.limit
    view = View(rule, mask.count_nonzero(), scores)
    if purpose == "penalty":
        return replace(view, logs=sum_of_logs(deviation, mask))
    if purpose == "deactivate":
        return replace(view, mask=mask, edited=torch.where(mask, rule.mean.to(values.dtype), values))
    return view


def join_gradients(
    other: Tensor, values: Tensor, rule: Rule, scale: Tensor, weight: Tensor, rounding: Rounding | None
) -> tuple[Tensor, Tensor]:
    """Add the gradient of the log penalty (L15) to that of the rest of the loss.

    Args:
        other: [batch, *shape], gradient of the rest of the loss with respect to the outputs.
        values: [batch, *shape] outputs.
        rule: what selected them.
        scale: 0-dim fp32; 2 x scale / (value - mean) is the gradient at weight 1.
        weight: 0-dim fp32, of the penalty.
        rounding: of the sum; None rounds to the nearest.

    Returns:
        The sum, of the type of `other`, and float64 [4]: |penalty gradient at weight 1|^2, |other|^2, how many
        elements have a penalty gradient, and how many of those the rounding left unchanged.
    """
    deviation, mask = rule.select(values)
    used = mask.logical_and_(deviation != 0)
    unit = deviation.masked_fill_(used.logical_not(), torch.inf)
    torch.div(2 * scale, unit, out=unit)  # 0 where nothing is selected
    total = (weight * unit).add_(other)
    rounded = total.to(other.dtype) if rounding is None else round_at_random(total, other.dtype, rounding.generator)
    unchanged = (rounded == other).logical_and_(used)
    parts = (unit.norm() ** 2, other.float().norm() ** 2, used.count_nonzero(), unchanged.count_nonzero())
    return rounded, torch.stack([part.double() for part in parts])


def scale_selected(gradient: Tensor, mask: Tensor, factor: float) -> Tensor:
    """`gradient` [batch, *shape], times `factor` where the mask is set (M08)."""
    return torch.where(mask, gradient * factor, gradient)

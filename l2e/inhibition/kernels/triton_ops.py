"""The work on a tap's outputs with Triton: what `torch_ops` does, in one pass over the memory."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from l2e.inhibition.kernels.backward import join_kernel, scale_kernel
from l2e.inhibition.kernels.forward import look_kernel
from l2e.inhibition.moments import ShiftedSums
from l2e.inhibition.rule import FindLimit, Purpose, Rule, View
from l2e.inhibition.strength import Rounding

BLOCK = 1024
"""Neurons of one program: 8 for each thread of 4 warps, 16 bytes in half precision."""

ROWS = 64
"""Most samples of one program, 127 at most (`look_kernel`); more are split into parts, whose sums are added in a fixed
order."""


FUSE = True
"""Multiply and add in one instruction; said because Triton's default changes with 3.10. No score adds to a product."""


@dataclass(frozen=True)
class Grid:
    """How values [rows, size] are split over programs."""

    rows: int
    size: int

    @classmethod
    def of(cls, values: Tensor, mean: Tensor) -> "Grid":
        """For values whose last dimensions are those of their mean, but for ones before them."""
        return cls(values.numel() // mean.numel(), mean.numel())

    @property
    def blocks(self) -> int:
        """Programs side by side."""
        return -(-self.size // BLOCK)

    @property
    def parts(self) -> int:
        """Programs one below the other."""
        return -(-self.rows // ROWS)

    @property
    def shape(self) -> tuple[int, int]:
        """As Triton wants it."""
        return self.blocks, self.parts

    @property
    def programs(self) -> int:
        """All of them."""
        return self.blocks * self.parts


def gather(values: Tensor, sums: ShiftedSums, mean: Tensor) -> None:
    """Add the outputs [batch, *shape] to the sums of an update, about `mean`, which broadcasts against them."""
    _launch(values.contiguous(), Rule(mean, mean, mean), sums, {})


def look(values: Tensor, rule: Rule, purpose: Purpose, find_limit: FindLimit | None, sums: ShiftedSums | None) -> View:
    """Score, select and count, and gather the sums in the same pass.

    Args:
        values: [batch, *shape] outputs.
        rule: what selects; its mean is what the sums are about.
        purpose: what the selected are found for.
        find_limit: from the scores to the limit, where it depends on them; None: the rule's.
        sums: None: nothing is gathered.
    """
    values = values.contiguous()
    if find_limit is not None:
        rule = replace(rule, limit=find_limit(rule.scores(values)[1]))
    programs = Grid.of(values, rule.mean).programs
    found = {"selected": values.new_empty(programs, dtype=torch.int32)}
    if purpose == "penalty":
        found["logs"] = values.new_empty(programs, dtype=torch.float32)
    if purpose == "deactivate":
        found |= {"mask": torch.empty_like(values, dtype=torch.int8), "edited": torch.empty_like(values)}
    _launch(values, rule, sums, found)
    if purpose == "penalty":
        return View(rule, found["selected"].sum(), logs=found["logs"].sum())
    if purpose == "deactivate":
        return View(rule, found["selected"].sum(), mask=found["mask"].view(torch.bool), edited=found["edited"])
    return View(rule, found["selected"].sum())


def _launch(values: Tensor, rule: Rule, sums: ShiftedSums | None, found: dict[str, Tensor]) -> None:
    """The forward kernel, with what it finds written to `sums` and `found`."""
    grid = Grid.of(values, rule.mean)
    first = second = None
    if sums is not None:
        sums.size[: values.shape[1]] += grid.rows
        first, second = sums.first.view(-1), sums.second.view(-1)
    partial = sums is not None and grid.parts > 1
    if partial:
        first, second = values.new_empty(2, grid.parts, grid.size, dtype=torch.float32)
    with torch.cuda.device_of(values):
        look_kernel[grid.shape](
            values,
            rule.mean,
            rule.inverse_spread,
            rule.limit,
            first,
            second,
            found.get("selected"),
            found.get("logs"),
            found.get("mask"),
            found.get("edited"),
            grid.rows,
            grid.size,
            ROWS,
            grid.rows // len(values),
            SUMS=sums is not None,
            SCORES="selected" in found,
            LOGS="logs" in found,
            EDITS="mask" in found,
            LIMIT_STRIDE=_stride(rule.limit),
            PARTIAL=partial,
            BLOCK=BLOCK,
            enable_fp_fusion=FUSE,
        )
    if partial and sums is not None and first is not None and second is not None:
        sums.first.view(-1)[: grid.size] += first.sum(0)
        sums.second.view(-1)[: grid.size] += second.sum(0)


def join_gradients(
    other: Tensor, values: Tensor, rule: Rule, scale: Tensor, weight: Tensor, rounding: Rounding | None
) -> tuple[Tensor, Tensor]:
    """See `torch_ops.join_gradients`; random rounding draws by Philox from a seed and an element's place."""
    other, values = other.contiguous(), values.contiguous()
    grid = Grid.of(values, rule.mean)
    result = torch.empty_like(other)
    totals = values.new_empty(4, grid.programs, dtype=torch.float32)
    with torch.cuda.device_of(values):
        join_kernel[grid.shape](
            other,
            values,
            rule.mean,
            rule.inverse_spread,
            rule.limit,
            scale,
            weight,
            result,
            totals,
            grid.rows,
            grid.size,
            ROWS,
            grid.rows // len(values),
            grid.programs,
            0 if rounding is None else rounding.next_seed(),
            ROUND_AT_RANDOM=rounding is not None and other.dtype != torch.float32,
            LIMIT_STRIDE=_stride(rule.limit),
            BLOCK=BLOCK,
            enable_fp_fusion=FUSE,
        )
    return result, totals.sum(1, dtype=torch.float64)


def scale_selected(gradient: Tensor, mask: Tensor, factor: float) -> Tensor:
    """See `torch_ops.scale_selected`."""
    gradient = gradient.contiguous()
    result = torch.empty_like(gradient)
    with torch.cuda.device_of(gradient):
        scale_kernel[(-(-gradient.numel() // BLOCK),)](
            gradient, mask.view(torch.int8), result, factor, gradient.numel(), BLOCK=BLOCK, enable_fp_fusion=FUSE
        )
    return result


def _stride(limit: Tensor) -> int:
    """From one sample's limit to the next one's; 0 where all share one."""
    return 1 if limit.numel() > 1 else 0

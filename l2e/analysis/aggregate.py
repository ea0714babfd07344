"""Mean and maximum over the valid positions of each sequence of a batch, in one pass over the values."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from l2e.analysis.activation_settings import Aggregation

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Spans:
    """Which positions of a batch are valid, made once and used for every layer.

    Attributes:
        core: first position that is valid in every sequence, and one past the last; None if there is none.
        edges: ranges of the other positions that are valid in some, with a mask [batch, range, 1].
        lengths: [batch, 1] valid positions of each.
    """

    core: tuple[int, int] | None
    edges: tuple[tuple[int, int, Tensor], ...]
    lengths: Tensor


def make_spans(starts: Positions, ends: Positions, device: torch.device) -> Spans:
    """The spans of sequences whose valid positions are `starts` to `ends` (exclusive), all of them above 0 long."""
    bounds = to_device(np.stack([starts, ends]), device)
    first, last = int(starts.min()), int(ends.max())
    low, high = int(starts.max()), int(ends.min())
    ranges = [(first, low), (high, last)] if low < high else [(first, last)]
    edges = tuple((begin, end, _mask(bounds, begin, end)) for begin, end in ranges if begin < end)
    return Spans((low, high) if low < high else None, edges, (bounds[1] - bounds[0]).float()[:, None])


def aggregate(values: Tensor, spans: Spans, how: Aggregation) -> Tensor:
    """[batch, positions, width] of any precision to fp32 [batch, width].

    The core is read where it lies: a mask over the whole would copy it, which on a GPU costs as much as everything
    else of the collection. Sequences of one batch are of nearly one length, so that the edges are narrow.
    """
    parts = [] if spans.core is None else [_reduce(values[:, spans.core[0] : spans.core[1]], how)]
    outside = 0.0 if how == "mean" else -torch.inf
    for begin, end, mask in spans.edges:
        parts.append(_reduce(torch.where(mask, values[:, begin:end], outside), how))
    joined = parts[0]
    for part in parts[1:]:
        joined = joined.add_(part) if how == "mean" else torch.maximum(joined, part)
    return joined.div_(spans.lengths) if how == "mean" else joined


def to_device(array: NDArray[np.int64], device: torch.device) -> Tensor:
    """A copy on the device; on a GPU by way of pinned memory, because a copy from elsewhere waits for the device."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _reduce(values: Tensor, how: Aggregation) -> Tensor:
    return values.sum(1, dtype=torch.float32) if how == "mean" else values.amax(1).float()


def _mask(bounds: Tensor, begin: int, end: int) -> Tensor:
    positions = torch.arange(begin, end, device=bounds.device)
    return ((positions >= bounds[0][:, None]) & (positions < bounds[1][:, None]))[..., None]

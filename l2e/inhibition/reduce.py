"""Sums over the ranks of a data-parallel run."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of data-parallel ranks; 1 outside torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class SumOverRanks:
    """Adds up tensors over the ranks in place, beside what the caller does next, until `wait`."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._under_way = [dist.all_reduce(tensor, async_op=True) for tensor in tensors] if world_size() > 1 else []

    def wait(self) -> None:
        """The sums are there, for what the device is asked next."""
        for work in self._under_way:
            work.wait()


def sum_over_ranks(tensors: Sequence[Tensor]) -> None:
    """Add up each tensor over the ranks, in place."""
    SumOverRanks(tensors).wait()


def largest_over_ranks(numbers: Sequence[int]) -> list[int]:
    """The largest of each number over the ranks; waits for the device."""
    device = "cuda" if "nccl" in dist.get_backend() else "cpu"
    tensor = torch.tensor(numbers, device=device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return tensor.tolist()


def rank() -> int:
    """Number of this rank; 0 outside torch.distributed."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0

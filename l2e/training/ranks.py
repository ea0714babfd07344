"""What ranks tell each other beside the training: by the host, so that no device is waited for."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from l2e.errors import LostRankError, RunError, Stopped

# How gloo and NCCL say that the other end is gone or does not answer.
_GONE = (
    r"closed by peer|[Cc]onnection reset|[Bb]roken pipe|[Tt]imed out|[Cc]onnection refused|"
    r"remote process exited|Socket Timeout|Connection was likely closed|\bNCCL\b.*(abort|timeout)"
)


class HostGroup:
    """All ranks by way of gloo, whatever the devices use. A process on its own talks to nobody.

    A message of the whole group took 0.34 ms (median; 0.18 at least) between two processes of a busy machine,
    during which a device goes on with what it has been given. It also fails within moments when a process of
    the group has ended, which a collective operation of NCCL does only at its time limit.

    Args:
        wait: how long a rank waits for the others.
    """

    def __init__(self, wait: timedelta) -> None:
        self.size = dist.get_world_size()
        self._group = dist.new_group(backend="gloo", timeout=wait) if self.size > 1 else None

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank; every rank must ask."""
        if self._group is None:
            return flag
        flags = torch.tensor([int(flag)])
        dist.all_reduce(flags, dist.ReduceOp.MAX, group=self._group)
        return bool(flags[0])

    def largest(self, values: list[float]) -> list[float]:
        """The largest over ranks of each value; every rank must ask."""
        if self._group is None:
            return values
        largest = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=self._group)
        return largest.tolist()

    def gather(self, thing: Any) -> list[Any]:
        """Everybody's `thing`, by rank; every rank must ask."""
        if self._group is None:
            return [thing]
        things: list[Any] = [None] * self.size
        dist.all_gather_object(things, thing, group=self._group)
        return things


def limit_waiting(wait: timedelta) -> None:
    """Give every process group that there is this time limit (DeepSpeed makes some with PyTorch's own)."""
    for group in list(dist.distributed_c10d._world.pg_map):
        dist.distributed_c10d._set_pg_timeout(wait, group)


@contextmanager
def leaving_together() -> Iterator[None]:
    """Around the work of several ranks: all leave at the same time where all know of the end.

    After an error of one rank nobody waits, because the others may never come; they find its connections closed.

    Raises:
        LostRankError: another rank is gone or does not answer.
        RunError: tapped outputs are not finite (`Inhibition.step` says so on every rank).
    """
    try:
        yield
        dist.barrier()
    except (RunError, Stopped):
        dist.barrier()
        raise
    except FloatingPointError as error:
        dist.barrier()
        raise RunError(str(error)) from error
    except RuntimeError as error:
        if re.search(_GONE, str(error)) is None:
            raise
        raise LostRankError(_lost(error, dist.get_rank())) from error


def _lost(error: RuntimeError, rank: int) -> str:
    # Without the source file in front and gloo's advice behind.
    reason = re.sub(r"^\[[^\]]*\] |\. This is typically.*", "", str(error).strip().splitlines()[0])
    return (
        f"rank {rank} has lost another process of this run ({reason}); what that one printed last says "
        f"why. Start the run again: it goes on from its newest restart point"
    )

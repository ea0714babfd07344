"""How fast a run is, what it needs, and how far through its data it is."""

import resource
from pathlib import Path
from typing import Protocol

import torch

from l2e.data import ShuffledRows
from l2e.data.document_order import DocumentRows
from l2e.data.rows import TrainingRows
from l2e.training.device_peak import peak_tflops
from l2e.training.ranks import HostGroup
from l2e.training.trainer import Trainer

GIB = 1 << 30


class Measure(Protocol):
    """Numbers for the last row of a hand-over of metrics; asked on every rank."""

    def __call__(self, trainer: Trainer, tokens_per_second: float) -> dict[str, float]:
        """The numbers by name."""


class Telemetry:
    """MFU, memory, loss scale and data position.

    ``mfu = tokens_per_second x flops_per_token / (ranks x peak_tflops x 10^12)``, with the FLOPs of
    `l2e.models.flops`. Nothing here waits for the device.

    Args:
        flops_per_token: forward and backward pass of one token.
        peak: of one device, in 10^12 FLOP/s; None reports no MFU rather than a made-up one.
        ranks: finds the process that needs most memory.
    """

    def __init__(self, flops_per_token: float, peak: float | None, ranks: HostGroup) -> None:
        self.flops_per_token = flops_per_token
        self.peak = peak
        self.ranks = ranks

    def __call__(self, trainer: Trainer, tokens_per_second: float) -> dict[str, float]:
        """See the class; every rank must ask."""
        loader = trainer.loader
        consumed = trainer.step * loader.batch_size
        found: dict[str, float] = {"rows": consumed}
        epoch = rows_per_epoch(loader.rows)
        if epoch is not None:
            found["epoch"] = consumed / epoch
        if self.peak is not None:
            available = self.ranks.size * self.peak * 1e12
            found["mfu"] = tokens_per_second * self.flops_per_token / available
        if trainer.engine.loss_scale is not None:
            found["loss_scale"] = trainer.engine.loss_scale
        return found | memory(trainer.engine.device, self.ranks)


def rows_per_epoch(rows: TrainingRows) -> float | None:
    """Rows of one epoch: all of a shuffled file, a share of documents' joint order; None for the Pile's own rows."""
    if isinstance(rows, ShuffledRows):
        return len(rows)
    if isinstance(rows, DocumentRows):
        return len(rows) * len(rows.file) / len(rows.order.doc_idx)
    return None


def peak_of(device: torch.device, precision: str, stated: float | None) -> float | None:
    """The peak that the settings state, else that of a known GPU, in 10^12 FLOP/s."""
    if stated is not None or device.type != "cuda":
        return stated
    return peak_tflops(torch.cuda.get_device_name(device), precision)


def memory(device: torch.device, ranks: HostGroup) -> dict[str, float]:
    """The most memory that any rank has needed so far, in GiB; every rank must ask.

    On a GPU what tensors took (`memory_allocated_gib`) and what PyTorch held for them (`memory_reserved_gib`);
    the CUDA context and NCCL's buffers come on top. On a CPU the largest resident size of a process
    (`memory_resident_gib`), all that it has loaded included.
    """
    if device.type == "cuda":
        peaks = {
            "memory_allocated_gib": torch.cuda.max_memory_allocated(device) / GIB,
            "memory_reserved_gib": torch.cuda.max_memory_reserved(device) / GIB,
        }
    else:
        peaks = {"memory_resident_gib": _most_resident() / GIB}
    return dict(zip(peaks, ranks.largest(list(peaks.values())), strict=True))


def _most_resident() -> int:
    """Bytes that this process held at most."""
    try:
        # Not ru_maxrss, which begins with what the process held that started this one.
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

"""Peak memory of a piece of work, counted by torch's allocator on either kind of device."""

import gc
import json
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

T = TypeVar("T")

MEMORY_METHODS = {
    "cuda": "torch.cuda.max_memory_allocated of one step, everything on the device included",
    "cpu": "weights, optimizer state and what torch's CPU allocator holds above them in one step, from the "
    "profiler's record of every allocation (the counterpart of max_memory_allocated; exact, but blind to "
    "scratch memory that libraries such as oneDNN take for themselves)",
}
"""Kind of device to how `peak_bytes` measures there."""

_MARK = "l2e peak memory"


def peak_bytes(
    device: torch.device, resident: Iterable[Tensor], prepare: Callable[[], T], work: Callable[[T], object]
) -> tuple[T, int]:
    """Most bytes of tensors alive at a time during `work`.

    The process's own peak (VmHWM) would not do on a CPU: the C library keeps freed memory for later, so that
    it depends on what ran before, and the interpreter's and the libraries' share blurs a ratio.

    Args:
        device: where the work happens.
        resident: the tensors that exist before `prepare` and outlive `work`.
        prepare: run before `work`; what it allocates and keeps counts as well.
        work: what is measured, called with what `prepare` returned.

    Returns:
        What `prepare` returned, and the bytes.
    """
    gc.collect()
    if device.type == "cuda":
        prepared = prepare()
        torch.cuda.reset_peak_memory_stats(device)
        work(prepared)
        return prepared, torch.cuda.max_memory_allocated(device)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else each profile prints when it began and ended
    existing = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in resident}
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        prepared = prepare()
        with record_function(_MARK):
            work(prepared)
    return prepared, sum(existing.values()) + _peak_allocated(_events(profiler))


def _events(profiler: profile) -> list[dict]:
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        return json.loads(trace.read_text())["traceEvents"]


def _peak_allocated(events: list[dict]) -> int:
    """Most bytes held within the marked span, of those allocated since the profile began."""
    mark = next(event for event in events if event.get("name") == _MARK)
    allocations = sorted((event for event in events if event.get("name") == "[memory]"), key=lambda event: event["ts"])
    held = peak = 0
    for event in allocations:
        if event["ts"] > mark["ts"] + mark["dur"]:
            break
        before, held = held, held + event["args"]["Bytes"]
        if event["ts"] >= mark["ts"]:
            peak = max(peak, before, held)
    return peak

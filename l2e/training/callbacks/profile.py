"""PyTorch's profiler over chosen updates."""

import logging
import os
from pathlib import Path

import torch
import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile

from l2e.files import write_atomically
from l2e.training.events import Callback
from l2e.training.profile_config import ProfileConfig
from l2e.training.trainer import Trainer

log = logging.getLogger("l2e.training")

_TOP = 30  # operators in the table


class ProfileCallback(Callback):
    """Write a Chrome trace and a table of the costliest operators.

    `steps<first>-<last>.rank<r>.json` opens in ui.perfetto.dev or chrome://tracing, `.txt` anywhere. What lies
    between two of the updates (validation, a restart point) is in the trace too; before the first and after
    the last nothing is recorded, and a run without `steps` never loads the profiler.

    Args:
        config: which updates and processes.
        folder: the run's `profile`.
    """

    priority = -1000  # starts before all that an update does

    def __init__(self, config: ProfileConfig, folder: Path) -> None:
        self.config = config
        self.folder = folder
        self._profiler: profile | None = None

    def before_step(self, trainer: Trainer) -> None:
        """Start at the first of the updates."""
        if self.config.steps and trainer.step + 1 == self.config.steps[0] and dist.get_rank() in self.config.ranks:
            activities = [ProfilerActivity.CPU]
            if trainer.engine.device.type == "cuda":
                activities.append(ProfilerActivity.CUDA)
            self._profiler = profile(activities=activities)
            self._profiler.start()

    def after_step(self, trainer: Trainer) -> None:
        """Stop after the last and write."""
        if self.config.steps and trainer.step >= self.config.steps[1]:
            self._write(trainer)

    def close(self, trainer: Trainer) -> None:
        """Write what there is when the run stops in the middle."""
        self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        if self._profiler is None or self.config.steps is None:
            return
        profiler, self._profiler = self._profiler, None
        if trainer.engine.device.type == "cuda":
            torch.cuda.synchronize(trainer.engine.device)  # else the last update's kernels would be missing
        profiler.stop()
        self.folder.mkdir(parents=True, exist_ok=True)
        trace = self.folder / f"steps{self.config.steps[0]}-{trainer.step}.rank{dist.get_rank()}.json"
        temporary = trace.with_name(f".{trace.name}.tmp.json")
        profiler.export_chrome_trace(str(temporary))
        os.replace(temporary, trace)
        key = "self_cuda_time_total" if trainer.engine.device.type == "cuda" else "self_cpu_time_total"
        table = profiler.key_averages().table(sort_by=key, row_limit=_TOP)
        write_atomically(trace.with_suffix(".txt"), table)
        log.info("profile: %s", trace)

"""A live bar on a terminal, plain lines elsewhere and in the log file."""

import logging
import sys
import time

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from l2e.training.callbacks.metrics import Row
from l2e.training.events import Callback
from l2e.training.trainer import Trainer

log = logging.getLogger("l2e.training")

_LINES = 20  # plain lines over a whole run, besides those with a validation loss


class ProgressCallback(Callback):
    """Show loss, learning rate, tokens/s and the time that is left. Also a sink for metrics."""

    priority = 50

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self._bar: Progress | None = None
        self._started = time.perf_counter()
        self._first_step = 0
        self._next_line = 0
        if sys.stderr.isatty():
            self._bar = Progress(
                BarColumn(bar_width=12),
                TextColumn("{task.completed}/{task.total}  {task.fields[numbers]}"),
                TextColumn("left"),
                TimeRemainingColumn(),
            )
            self._task = self._bar.add_task("", total=steps, numbers="")

    def before_training(self, trainer: Trainer) -> None:
        """Start the clock."""
        self._started, self._first_step = time.perf_counter(), trainer.step
        if self._bar:
            self._bar.start()

    def close(self, trainer: Trainer) -> None:
        """Leave the bar where it is."""
        if self._bar:
            self._bar.stop()

    def __call__(self, rows: list[Row]) -> None:
        """Show the newest numbers."""
        row = rows[-1]
        step = int(row["step"] or 0)
        if self._bar:
            self._bar.update(self._task, completed=step, numbers=_numbers(row))
        if step >= self._next_line or "validation_loss" in row:
            self._next_line = step + max(1, self.steps // _LINES)
            # On a terminal the bar has said it; the record still goes to the log file.
            log.info("%s", self._line(step, row), extra={"file_only": self._bar is not None})

    def _line(self, step: int, row: Row) -> str:
        done = step - self._first_step
        left = (time.perf_counter() - self._started) / done * (self.steps - step) if done else None
        eta = f"  left {_clock(left)}" if left is not None else ""
        return f"step {step:>6}/{self.steps}  {step / self.steps:4.0%}  {_numbers(row)}{eta}"


def _numbers(row: Row) -> str:
    parts = []
    for key, name, style in (
        ("loss", "loss", "{:.4f}"),
        ("validation_loss", "validation", "{:.4f}"),
        ("learning_rate", "lr", "{:.2e}"),
        ("tokens_per_second", "tok/s", "{:,.0f}"),
        ("mfu", "MFU", "{:.1%}"),
        ("memory_allocated_gib", "GiB", "{:.1f}"),
    ):
        value = row.get(key)
        if value is not None:
            parts.append(f"{name} {style.format(value)}")
    return "  ".join(parts)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

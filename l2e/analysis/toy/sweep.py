"""Sweeps of toy runs: side by side, resumable, each result kept on disk and never computed twice."""

import hashlib
import io
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from l2e.analysis.toy import results
from l2e.analysis.toy.config import ToyRun
from l2e.analysis.toy.results import ToyResult
from l2e.analysis.toy.training import Training
from l2e.files import write_atomically

logger = logging.getLogger("l2e.analysis.toy")

SIDE_BY_SIDE = 24
"""Most runs of one batched model; beyond that nothing is gained, and memory and caches fill up."""


def run_sweep(
    runs: Sequence[ToyRun],
    folder: Path,
    device: torch.device | str = "cpu",
    *,
    side_by_side: int = SIDE_BY_SIDE,
    save_every: float = 30.0,
    clock: Callable[[], float] = time.monotonic,
) -> list[ToyResult]:
    """Train what has not been trained yet and return the results of all, in the order asked.

    Args:
        runs: any, of any shapes.
        folder: holds a file for each finished run and, while a batch is trained, its restart point.
        device: where to train.
        side_by_side: most runs of one batched model.
        save_every: seconds between restart points, and between lines of progress.
        clock: for the two.

    Raises:
        UserError: a kept result cannot be read.
    """
    missing = [run for run in dict.fromkeys(runs) if not _file(folder, run).exists()]
    batches = split(missing, side_by_side)
    progress = Progress(sum(map(cost, missing)), clock)
    if missing:
        logger.info("%d of %d toy runs to train, in %d batches", len(missing), len(set(runs)), len(batches))
    for batch in batches:
        for result in _train(batch, folder, device, save_every, clock, progress):
            results.save(result, _file(folder, result.run))
        _restart_point(folder, batch).unlink(missing_ok=True)
    return [results.load(_file(folder, run), run) for run in runs]


def split(runs: Sequence[ToyRun], most: int = SIDE_BY_SIDE) -> list[list[ToyRun]]:
    """Batches of runs of one shape, at most so many in each and as equal as can be."""
    by_shape: dict[tuple[object, ...], list[ToyRun]] = defaultdict(list)
    for run in runs:
        by_shape[run.shape].append(run)
    batches = []
    for alike in by_shape.values():
        parts = -(-len(alike) // most)
        batches += [alike[len(alike) * part // parts : len(alike) * (part + 1) // parts] for part in range(parts)]
    return batches


def cost(run: ToyRun) -> float:
    """Multiplications of a run, up to a factor: what its time is about proportional to."""
    return run.steps * run.batch_size * run.neurons * (run.outputs + run.inputs)


class Progress:
    """Share of the work done, and the time that the rest will take at the speed so far."""

    def __init__(self, total: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self.done = total, 0.0
        self._clock, self._start = clock, clock()

    def add(self, work: float) -> None:
        """Count work done now; what a restart point had done already is no measure of speed."""
        self.done += work

    def skip(self, work: float) -> None:
        """Count work that was done before."""
        self.total -= work

    def text(self) -> str:
        """E.g. "41% done, about 3 min 20 s left"."""
        seconds = (self._clock() - self._start) * (self.total - self.done) / self.done if self.done else 0.0
        return f"{100 * self.done / self.total:.0f}% done, about {int(seconds // 60)} min {int(seconds % 60)} s left"


def _train(
    runs: Sequence[ToyRun],
    folder: Path,
    device: torch.device | str,
    save_every: float,
    clock: Callable[[], float],
    progress: Progress,
) -> list[ToyResult]:
    training = Training(runs, device)
    point = _restart_point(folder, runs)
    work = sum(map(cost, runs)) / training.steps
    if point.exists():
        training.load_state_dict(torch.load(point, map_location=device, weights_only=True))
        progress.skip(work * training.done)
        logger.info("%d runs go on at step %d", len(runs), training.done)
    saved = clock()
    while training.done < training.steps:
        training.step()
        progress.add(work)
        if clock() - saved >= save_every:
            buffer = io.BytesIO()
            torch.save(training.state_dict(), buffer)
            write_atomically(point, buffer.getvalue())
            saved = clock()
            logger.info("%d runs at step %d of %d; %s", len(runs), training.done, training.steps, progress.text())
    return results.finished(training)


def _file(folder: Path, run: ToyRun) -> Path:
    return folder / f"{run.identity}.npz"


def _restart_point(folder: Path, runs: Sequence[ToyRun]) -> Path:
    names = hashlib.sha256("".join(run.identity for run in runs).encode()).hexdigest()[:16]
    return folder / f"training-{names}.pt"

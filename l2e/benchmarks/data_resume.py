"""How long a resumed run waits for its first row."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from l2e.benchmarks.data_config import DataBenchmarkConfig
from l2e.benchmarks.data_files import MadeUpRows, write_published_sizes
from l2e.benchmarks.data_readers import stream_parquet
from l2e.benchmarks.pairing import median, quartiles
from l2e.data import PileShards, StepLoader

_PYTHIA_BATCH, _MICRO_BATCH = 1024, 8


def measure_resume(config: DataBenchmarkConfig, made_up: MadeUpRows) -> dict[str, Any]:
    """Ours on a set of the published size, `datasets` by skipping; null for ours where the disk has no sparse files."""
    folder = made_up.folder / "published"
    ours = None
    if write_published_sizes(folder):
        waits = {str(step): partial(first_rows, folder, step) for step in config.resume_steps}
        ours = in_turns(waits, config.rounds)
    return {
        "seconds_to_first_row": ours,
        "ratio_last_to_first": ours and _ratio(ours, config.resume_steps),
        "datasets_skip": skip_with_datasets(config, made_up),
    }


def first_rows(folder: Path, step: int) -> None:
    """What a run does that resumes after `step` updates: open, hash the ends, read a micro-batch."""
    rows = PileShards(folder)
    rows.fingerprint()
    next(StepLoader(rows, _PYTHIA_BATCH, _MICRO_BATCH, 0, 1).micro_batches(step))
    rows.close()


def skip_with_datasets(config: DataBenchmarkConfig, made_up: MadeUpRows) -> dict[str, Any]:
    """Seconds to the first row of a parquet stream, at its start and after skipping; nothing is extrapolated."""
    dataset = stream_parquet(made_up.folder, made_up.tokens(config.reader_rows))
    skipped = config.reader_rows - 1
    waits: dict[str, Callable[[], object]] = {
        "0": lambda: next(iter(dataset)),
        str(skipped): lambda: next(iter(dataset.skip(skipped))),
    }
    found = in_turns(waits, config.rounds)
    more = found[str(skipped)]["seconds"] - found["0"]["seconds"]
    return {"seconds_to_first_row": found, "seconds_per_1000_rows": 1000 * more / skipped}


def in_turns(
    waits: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, dict[str, Any]]:
    """Median and quartiles of the seconds of each, one after the other in every round; each once untimed before."""
    for wait in waits.values():
        wait()
    found: dict[str, list[float]] = {name: [] for name in waits}
    for _ in range(rounds):
        for name, wait in waits.items():
            start = clock()
            wait()
            found[name].append(clock() - start)
    return {name: {"seconds": median(times), "spread": quartiles(times)} for name, times in found.items()}


def _ratio(found: dict[str, dict[str, Any]], steps: list[int]) -> float:
    return found[str(max(steps))]["seconds"] / found[str(min(steps))]["seconds"]

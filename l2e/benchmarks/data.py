"""How fast rows are read, against a memory-mapped file and against other libraries, in turns in one process.

    python scripts/benchmark.py benchmark=data

The benchmark writes its rows itself, in a temporary folder; after one untimed pass the page cache holds them, so
that what is measured is the reading and not the disk. That all ways give the same rows is checked before any is
timed. In each round every other way stands between two timings of ours (`l2e.benchmarks.turns`); a ratio is our
speed over theirs.

results:
    vs_memmap: the lowest over all portions of rows, against np.stack of slices of an np.memmap of one file
        (details under `gather`, where `memmap_slice` is one contiguous copy and `memmap_index` one index array).
    tokens_per_second_int64: the lowest over the micro-batches, through StepLoader (details under `int64`).
    vs_datasets, vs_mosaicml_streaming, vs_litdata: int64 micro-batches of the same rows, from the second on; null
        where the library is not installed (details under `readers`).
    resume: seconds until a resumed run has its first rows.
    tokenising: tokens per second from JSONL to Megatron files, ours and as GPT-NeoX does it (`vs_neox`); null
        without `text` and `tokenizer`.
"""

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from l2e.benchmarks.data_config import READER_BATCH, DataBenchmarkConfig
from l2e.benchmarks.data_files import MadeUpRows, write_rows
from l2e.benchmarks.data_readers import READERS, Reader, Tokens
from l2e.benchmarks.data_resume import measure_resume
from l2e.benchmarks.report import device_name, versions
from l2e.benchmarks.tokenising import measure_tokenising
from l2e.benchmarks.turns import Work, compare, timed
from l2e.data import PileShards, StepLoader

logger = logging.getLogger("l2e.benchmarks.data")

Rows = Sequence[int]


def run(config: DataBenchmarkConfig) -> dict[str, Any]:
    """Measure; returns the result to be printed."""
    torch.set_num_threads(config.threads)
    with tempfile.TemporaryDirectory(prefix="l2e-data-", dir=config.folder) as folder:
        made_up = write_rows(Path(folder), config.rows, config.row_length, config.files)
        results = measure_gather(config, made_up)
        results |= measure_int64(config, made_up)
        results |= measure_readers(config, made_up)
        results |= {"resume": measure_resume(config, made_up)}
    results |= {"tokenising": _tokenising(config)}
    return {
        "benchmark": config.kind,
        "device": device_name(torch.device("cpu")),
        "versions": versions("datasets", "pyarrow", "mosaicml-streaming", "litdata"),
        "results": results,
        "settings": asdict(config),
    }


def measure_gather(config: DataBenchmarkConfig, made_up: MadeUpRows) -> dict[str, Any]:
    """`PileShards.gather` against a memory-mapped file, for each kind of portion."""
    shards = PileShards(made_up.shards, config.row_length)
    found = {}
    for name, portions in row_sets(config).items():
        others = memmap_gathers(made_up, consecutive=isinstance(portions[0], range))
        for gather in others.values():
            for rows in portions[:: max(1, len(portions) // 16)]:
                _check_same(shards.gather(rows), gather(rows))
        works = {other: gather_all(gather, portions) for other, gather in others.items()}
        tokens = config.row_length * sum(len(rows) for rows in portions)
        found[name] = compare(gather_all(shards.gather, portions), works, config.rounds, tokens)
        _tell(f"gather, {name} rows", found[name])
    return {"vs_memmap": min(found[name]["memmap"]["ratio"] for name in found), "gather": found}


def row_sets(config: DataBenchmarkConfig) -> dict[str, list[Rows]]:
    """All rows in consecutive portions of each size, and as many in portions of random rows."""
    sets: dict[str, list[Rows]] = {}
    for count in config.gather:
        sets[f"{count}"] = [range(first, first + count) for first in range(0, config.rows - count + 1, count)]
    last = config.gather[-1]
    shuffled = np.random.default_rng(1).integers(0, config.rows, (config.rows // last, last))
    return sets | {f"{last} random": shuffled.tolist()}


def memmap_gathers(made_up: MadeUpRows, consecutive: bool) -> dict[str, Callable[[Rows], Tokens]]:
    """What somebody would write by hand for one memory-mapped file."""
    flat, length = made_up.memmap, made_up.row_length
    table = flat.reshape(-1, length)

    def stack(rows: Rows) -> Tokens:
        return np.stack([flat[row * length : (row + 1) * length] for row in rows])

    def copy(rows: Rows) -> Tokens:
        return flat[rows[0] * length : (rows[-1] + 1) * length].copy().reshape(-1, length)

    def index(rows: Rows) -> Tokens:
        return np.asarray(table[list(rows)])

    return {"memmap": stack, "memmap_slice": copy} if consecutive else {"memmap": stack, "memmap_index": index}


def gather_all(gather: Callable[[Rows], Tokens], portions: list[Rows]) -> Work:
    """The work of gathering all portions."""

    def action() -> None:
        for rows in portions:
            gather(rows)

    return timed(action)


def measure_int64(config: DataBenchmarkConfig, made_up: MadeUpRows) -> dict[str, Any]:
    """Tokens per second as the trainer gets them."""
    shards = PileShards(made_up.shards, config.row_length)
    steps = config.rows // config.batch_size
    found = {}
    for size in config.micro_batches:
        loader = StepLoader(shards, config.batch_size, size, 0, 1)
        tokens = steps * config.batch_size * config.row_length
        found[f"{size}"] = compare(timed(partial(_exhaust, loader, steps)), {}, config.rounds, tokens)
        _tell(f"int64, micro-batches of {size}", found[f"{size}"])
    return {"tokens_per_second_int64": min(one["ours"]["per_second"] for one in found.values()), "int64": found}


def measure_readers(config: DataBenchmarkConfig, made_up: MadeUpRows) -> dict[str, Any]:
    """Our loader against other libraries."""
    tokens = made_up.tokens(config.reader_rows)
    loader = StepLoader(PileShards(made_up.shards, config.row_length), len(tokens), READER_BATCH, 0, 1)
    opened: dict[str, Reader] = {}
    absent = []
    for name, open_reader in READERS.items():
        try:
            opened[name] = open_reader(made_up.folder, tokens)
        except ImportError:
            absent.append(name)
    for reader in [lambda: loader.micro_batches(0), *opened.values()]:
        _check_same(torch.cat(list(reader())).numpy(), tokens)
    works = {name: read_all(reader) for name, reader in opened.items()}
    amount = (len(tokens) - READER_BATCH) * config.row_length
    found: dict[str, Any] = compare(read_all(lambda: loader.micro_batches(0)), works, config.rounds, amount)
    _tell("readers", found)
    ratios = {f"vs_{name}": found[name]["ratio"] if name in found else None for name in READERS}
    return ratios | {"readers": found | dict.fromkeys(absent, "not installed")}


def read_all(reader: Callable[[], Iterator[Tensor]], clock: Callable[[], float] = time.perf_counter) -> Work:
    """The work of reading from the second micro-batch on: what a library does at its start is not its speed."""

    def work() -> float:
        batches = reader()
        next(batches)
        return timed(lambda: sum(1 for _ in batches), clock)()

    return work


def _tokenising(config: DataBenchmarkConfig) -> dict[str, Any] | None:
    if config.text is None or config.tokenizer is None:
        return None
    text = Path(config.text)
    return measure_tokenising(text if text.is_dir() else [text], Path(config.tokenizer), rounds=config.rounds)


def _tell(what: str, found: dict[str, Any]) -> None:
    speeds = (f"{name} {speed['per_second'] / 1e6:.0f}" for name, speed in found.items())
    logger.info("%s, million tokens/s: %s", what, ", ".join(speeds))


def _exhaust(loader: StepLoader, steps: int) -> None:
    for step in range(steps):
        for _ in loader.micro_batches(step):
            pass


def _check_same(rows: Any, expected: Any) -> None:
    """A reader that gives other rows has no speed worth telling."""
    if not np.array_equal(rows, expected):
        raise RuntimeError(f"not the rows that were written: {rows[:1, :8]} for {expected[:1, :8]}")

"""Table 2 of L2E: the time of a training step of three sizes, without and with the methods, in turns.

    python scripts/benchmark.py benchmark=table2
    python -m l2e.benchmarks.table2 models='["pythia-70m"]' minutes=3    # needs torch and transformers alone

The step is the trainer's (`l2e.benchmarks.training_step`), on random tokens, at the published micro-batch. Of each size
every method is first warmed up until it selects, and its peak memory taken; then come rounds in which each method's
timing stands between two of `none` (`l2e.benchmarks.pairing`).

results, for each size by the paper's name of it:
    none, l2e, memel, published_memel: `step_ms`, `tokens_per_second`, `mfu` (null where the device's peak is not
        known), `memory_mib`, `projected_ms` (the paper's 1024 x 2048 tokens on 24 or 8 such GPUs, without
        communication); for the methods `step_ratio` with quartiles, `overhead_percent`, and the share `selected`. The
        spread of `none` is that of one timing over the one before it: what the machine's noise does.
    tap: one tap alone: `achieved_gb_per_s` of the least bytes it can move, beside `device_copy_gb_per_s`, and the
        overhead that all taps would have at the speed of the copy (`floor_percent`).
    paper: its row.
"""

import gc
import logging
import math
import sys
import time
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from l2e.benchmarks.arguments import run_from_arguments
from l2e.benchmarks.bandwidth import device_copy, tap_bytes, tap_seconds
from l2e.benchmarks.memory import MEMORY_METHODS, peak_bytes
from l2e.benchmarks.pairing import BASELINE, Round, Timing, median, quartiles, round_order, series
from l2e.benchmarks.paper_steps import label, paper_row, projected
from l2e.benchmarks.report import device_name, versions, write_result
from l2e.benchmarks.table2_config import Table2Config
from l2e.benchmarks.table2_methods import METHODS, Ours, Published
from l2e.benchmarks.training_step import OPTIMIZER, TrainingStep
from l2e.inhibition import select_blocks
from l2e.models import DTYPES, pythia_size
from l2e.models.flops import flops_per_token
from l2e.training.config import TrainingConfig
from l2e.training.device_peak import peak_tflops

logger = logging.getLogger("l2e.benchmarks.table2")


class Clock:
    """Tells when the minutes that the settings allow are over."""

    def __init__(self, minutes: float | None) -> None:
        self._end = math.inf if minutes is None else time.monotonic() + 60 * minutes

    def over(self) -> bool:
        """Whether they are."""
        return time.monotonic() > self._end

    def share(self, parts: int) -> "Clock":
        """A clock with one of so many equal parts of what is left."""
        return Clock(None if math.isinf(self._end) else (self._end - time.monotonic()) / 60 / parts)


def run(config: Table2Config) -> dict[str, Any]:
    """Measure; returns the result to be printed, and writes it after every size where the settings name a folder."""
    device, clock = config.torch_device(), Clock(config.minutes)
    result: dict[str, Any] = {
        "benchmark": config.kind,
        "device": device_name(device),
        "versions": versions("triton", "liger-kernel"),
        "results": {},
        "left_out": [],
        "settings": asdict(config) | {"threads": torch.get_num_threads(), "optimizer": OPTIMIZER},
        "memory_method": MEMORY_METHODS[device.type],
    }
    for index, model in enumerate(config.models):
        if clock.over():
            result["left_out"].append(label(model))
        else:
            own = clock.share(len(config.models) - index)
            result["results"][label(model)] = measure_size(config, model, device, own)
            release(device)
        if config.output:
            write_result(result, Path(config.output), config.kind)
    return result


def measure_size(config: Table2Config, model: str, device: torch.device, clock: Clock) -> dict[str, Any]:
    """All of one size; where the memory does not do otherwise, with recomputed blocks."""
    choices = [False, True] if config.activation_checkpointing is None else [config.activation_checkpointing]
    for recompute in choices:
        try:
            return Size(config, model, device, recompute).measure(clock)
        except torch.cuda.OutOfMemoryError:
            if recompute is choices[-1]:
                raise
            logger.info("%s: out of memory, so its blocks are recomputed", model)
        release(device)
    raise AssertionError("one of the choices returns or raises")


def release(device: torch.device) -> None:
    """Give back what a model took, before the next is built."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


class Size:
    """One model, and what is known of each method on it."""

    def __init__(self, config: Table2Config, model: str, device: torch.device, recompute: bool) -> None:
        self.config, self.model, self.device = config, model, device
        torch.compiler.reset()  # or the next size's kernels would be made for any size
        self.micro_batch = config.micro_batch_size or pythia_size(model).micro_batch_size
        self.training = TrainingConfig(
            steps=1,
            batch_size=self.micro_batch * config.micro_batches,
            micro_batch_size=self.micro_batch,
            seq_length=config.seq_length,
            lr=1.0,  # the step's own optimizer has 0
            precision=config.precision,
            activation_checkpointing=recompute,
            compile=device.type == "cuda" if config.compile is None else config.compile,
        )
        self.work = TrainingStep(model, self.training, device)
        self.tokens = self.training.batch_size * config.seq_length
        self.states: dict[str, Any] = {}
        self.peaks: dict[str, int] = {}
        self.selected: dict[str, float | None] = {}

    def measure(self, clock: Clock) -> dict[str, Any]:
        """The size's results."""
        for method in (BASELINE, *self.config.methods):
            self.prepare(method)
        steps = max(1, math.floor(self.config.seconds / self.time_steps(BASELINE, 1).wall))
        rounds: list[Round] = []
        while len(rounds) < self.config.rounds and not (rounds and clock.over()):
            order = round_order(self.config.methods, len(rounds))
            rounds.append((order, [self.time_steps(method, steps) for method in order]))
            told = ", ".join(f"{m} {series(rounds, m, 'wall')[1][-1]:.4f}" for m in self.config.methods)
            logger.info("%s, round %d of %d, steps of %d: %s", self.model, len(rounds), self.config.rounds, steps, told)
        baseline = self._baseline(rounds)
        return {
            "micro_batch_size": self.micro_batch,
            "tokens_per_step": self.tokens,
            "activation_checkpointing": self.training.activation_checkpointing,
            "compile": self.training.compile,
            "rounds": len(rounds),
            "steps_of_a_timing": steps,
            BASELINE: baseline,
            **{method: self._result(method, rounds) for method in self.config.methods},
            "tap": self._tap(baseline["step_ms"]),
            "paper": paper_row(self.model),
        }

    def prepare(self, method: str) -> None:
        """Warm a method up, take its peak memory, keep its state."""

        def warm_up() -> Ours | Published:
            added = self._add(method)
            self.work.steps(added, added.warm_up)
            added.state()
            return added

        def step(added: Ours | Published) -> None:
            self.work.steps(added, 1, first=added.warm_up)

        if not self.states:
            self.work.steps(added := self._add(BASELINE), 1)  # makes the optimizer's state, compiles
            added.remove()
        added, self.peaks[method] = peak_bytes(self.device, self.work.state(), warm_up, step)
        self.states[method] = added.state()
        added.remove()
        logger.info("%s, %s: peak memory %.1f GiB", self.model, method, self.peaks[method] / 2**30)

    def time_steps(self, method: str, steps: int) -> Timing:
        """Time steps with their selection active, after one untimed.

        Raises:
            RuntimeError: the method selected nothing, so that its time would mean nothing.
        """
        added = self._add(method)
        first = added.warm_up + 1
        self.work.steps(added, 1, first)
        start = Timing(time.perf_counter(), time.process_time())
        self.work.steps(added, steps, first + 1)
        end = Timing(time.perf_counter(), time.process_time())
        share = self.selected[method] = added.selected()
        added.remove()
        if method != BASELINE and not (share is not None and share > 0):  # NaN: there was no threshold yet
            raise RuntimeError(f"{method} selected nothing while it was timed")
        return Timing((end.wall - start.wall) / steps, (end.cpu - start.cpu) / steps)

    def _add(self, method: str) -> Ours | Published:
        config = self.config
        return METHODS[method](self.work.model, method, config.blocks, config.rate, self.states.get(method))

    def _baseline(self, rounds: list[Round]) -> dict[str, Any]:
        times = [timing.wall for order, timings in rounds for timing in timings[::2]]
        noise = [later / earlier for _, timings in rounds for earlier, later in _neighbours(timings[::2])]
        return self._speed(BASELINE, times) | {"step_ratio": 1.0, "step_ratio_spread": quartiles(noise)}

    def _result(self, method: str, rounds: list[Round]) -> dict[str, Any]:
        times, ratios = series(rounds, method, "wall")
        result = self._speed(method, times) | {
            "step_ratio": median(ratios),
            "step_ratio_spread": quartiles(ratios),
            "overhead_percent": 100 * (median(ratios) - 1),
            "selected": self.selected[method],
        }
        if self.device.type == "cpu":
            ratios = series(rounds, method, "cpu")[1]
            result |= {"cpu_ratio": median(ratios), "cpu_ratio_spread": quartiles(ratios)}
        return result

    def _speed(self, method: str, times: list[float]) -> dict[str, Any]:
        speed = self.tokens / median(times)
        peak = peak_tflops(device_name(self.device).partition(": ")[2], self.config.precision)
        flops = flops_per_token(pythia_size(self.model), self.config.seq_length)
        return {
            "step_ms": 1000 * median(times),
            "step_ms_spread": [1000 * each for each in quartiles(times)],
            "tokens_per_second": speed,
            "tflops": speed * flops / 1e12,
            "mfu": None if peak is None else speed * flops / (peak * 1e12),
            "memory_mib": self.peaks[method] / 2**20,
            "projected_ms": projected(speed),
        }

    def _tap(self, step_ms: float) -> dict[str, Any]:
        size, config = pythia_size(self.model), self.config
        dtype, neurons = DTYPES[config.precision], config.seq_length * size.hidden
        shape = (self.micro_batch, config.seq_length, size.hidden)
        seconds = tap_seconds(shape, dtype, self.device, rate=config.rate, weight=1e-11)
        least, copy = tap_bytes(self.micro_batch, neurons, dtype.itemsize), device_copy(self.device)
        taps = len(select_blocks(size.layers, config.blocks)) * config.micro_batches
        return {
            "ms": 1000 * seconds,
            "minimal_bytes": least,
            "achieved_gb_per_s": least / seconds / 1e9,
            "device_copy_gb_per_s": copy / 1e9,
            "share_of_copy": least / seconds / copy,
            "floor_percent": 100 * taps * least / copy / (step_ms / 1000),
        }


def _neighbours(timings: list[Timing]) -> list[tuple[float, float]]:
    return [(one.wall, two.wall) for one, two in pairwise(timings)]


if __name__ == "__main__":
    sys.exit(run_from_arguments(Table2Config, run, sys.argv[1:]))

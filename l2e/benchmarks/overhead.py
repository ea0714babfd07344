"""What each method costs: step time and peak memory against `none`, in one process, in turns.

    python scripts/benchmark.py benchmark=overhead
    python -m l2e.benchmarks.overhead model=pythia-70m precision=bf16    # needs torch and transformers alone

First each method is attached, taken through its late start and warm-up, and the peak memory of one step is
counted (`l2e.benchmarks.memory`). Then come rounds of timings, each method's between two of `none`
(`l2e.benchmarks.pairing`). For each timing the method is attached anew with the state of the first part, so
that it selects from the first step on, and runs its untimed steps before the timed ones. A timing is that of
its steps together; nothing waits for the device in between. On a CPU the same is told of processor time
(`cpu_ratio`): where others use the machine too, its spread is the smaller one.
"""

import io
import logging
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

import l2e
from l2e.benchmarks.arguments import run_from_arguments
from l2e.benchmarks.memory import MEMORY_METHODS, peak_bytes
from l2e.benchmarks.overhead_config import OverheadConfig
from l2e.benchmarks.pairing import BASELINE, Round, Timing, median, quartiles, round_order, series
from l2e.benchmarks.report import device_name, versions
from l2e.benchmarks.training_step import OPTIMIZER, TrainingStep
from l2e.inhibition import Inhibition, select_blocks
from l2e.models import pythia_size
from l2e.training.config import TrainingConfig

logger = logging.getLogger("l2e.benchmarks.overhead")

LATE_START, WARMUP = 4, 1
"""Updates before selection starts; they are over when the clock runs or the memory is counted. Fewer make the
variances poor and the threshold so high that much less than the rate is selected."""

SELECT_NOTHING = (BASELINE, "dropout")
"""The methods without a selection that could be active."""


def run(config: OverheadConfig) -> dict[str, Any]:
    """Measure; returns the result to be printed.

    Raises:
        RuntimeError: a method did not select while it was timed, so that its numbers would mean nothing.
    """
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
    device = torch.device(kind)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    return {
        "benchmark": config.kind,
        "device": device_name(device),
        "versions": versions(),
        "results": Bench(config, device).measure(),
        "settings": asdict(config) | {"threads": torch.get_num_threads(), "optimizer": OPTIMIZER},
        "memory_method": MEMORY_METHODS[kind],
    }


class Bench:
    """The workload, and what is known of each method so far."""

    def __init__(self, config: OverheadConfig, device: torch.device) -> None:
        self.config = config
        training = TrainingConfig(
            steps=1, batch_size=config.batch_size, seq_length=config.seq_length, lr=1.0, precision=config.precision
        )
        self.work = TrainingStep(config.model, training, device)
        self.states: dict[str, bytes] = {}
        self.state_values: dict[str, int] = {}
        self.peaks: dict[str, int] = {}
        self.selected: dict[str, float | None] = {}

    def measure(self) -> dict[str, Any]:
        """Results per method."""
        methods = self.config.methods
        self.work.steps(self.attach(BASELINE), 1)  # makes the optimizer's state
        for method in dict.fromkeys([BASELINE, *methods]):
            self.prepare(method)
        steps = self.config.steps or math.ceil(1 / self.time_steps(BASELINE, 1).wall)
        rounds: list[Round] = []
        for index in range(self.config.rounds):
            order = round_order(methods, index)
            rounds.append((order, [self.time_steps(method, steps) for method in order]))
            told = ", ".join(f"{method} {series(rounds, method, 'wall')[1][-1]:.3f}" for method in methods)
            logger.info("round %d of %d, steps of %d: %s", index + 1, self.config.rounds, steps, told)
        return {method: self.result(method, rounds) for method in methods}

    def result(self, method: str, rounds: list[Round]) -> dict[str, Any]:
        """The numbers of one method."""
        times, ratios = series(rounds, method, "wall")
        result: dict[str, Any] = {
            "step_ratio": median(ratios),
            "step_ratio_spread": quartiles(ratios),
            "step_ms": 1000 * median(times),
        }
        if self.work.device.type == "cpu":
            times, ratios = series(rounds, method, "cpu")
            result |= {"cpu_ratio": median(ratios), "cpu_ratio_spread": quartiles(ratios)}
        size = pythia_size(self.config.model)
        neurons = self.config.seq_length * size.hidden * len(select_blocks(size.layers, self.config.blocks))
        return result | {
            "memory_ratio": self.peaks[method] / self.peaks[BASELINE],
            "memory_mib": self.peaks[method] / 2**20,
            "state_values_per_neuron": self.state_values[method] / neurons,
            "selected": self.selected[method],
        }

    def prepare(self, method: str) -> None:
        """Take a method through its late start and warm-up, count its peak memory, keep its state."""

        def warm_up() -> Inhibition:
            inhibition = self.attach(method)
            self.work.steps(inhibition, LATE_START + WARMUP)
            return inhibition

        def step(inhibition: Inhibition) -> None:
            self.work.steps(inhibition, 1, first=LATE_START + WARMUP)

        inhibition, self.peaks[method] = peak_bytes(self.work.device, self.work.state(), warm_up, step)
        self.check_selection(method, inhibition)
        state = inhibition.state_dict()
        self.state_values[method] = sum(tensor.numel() for tensor in _tensors(state))
        packed = io.BytesIO()  # off the device, where it would add to the memory of the others
        torch.save(state, packed)
        self.states[method] = packed.getvalue()
        inhibition.remove()
        logger.info("%s: peak memory %.1f MiB", method, self.peaks[method] / 2**20)

    def time_steps(self, method: str, steps: int) -> Timing:
        """Time steps with their selection active."""
        inhibition = self.attach(method)
        inhibition.load_state_dict(torch.load(io.BytesIO(self.states[method]), map_location="cpu"))
        unseen = LATE_START + WARMUP + 1  # the statistics know the batches before: their scores are low
        self.work.steps(inhibition, self.config.untimed_steps, first=unseen)
        start = Timing(time.perf_counter(), time.process_time())
        self.work.steps(inhibition, steps, first=unseen + self.config.untimed_steps)
        end = Timing(time.perf_counter(), time.process_time())
        self.check_selection(method, inhibition)
        inhibition.remove()
        return Timing((end.wall - start.wall) / steps, (end.cpu - start.cpu) / steps)

    def attach(self, method: str) -> Inhibition:
        """A new inhibition on the model."""
        return l2e.attach(
            self.work.model,
            method=method,
            blocks=self.config.blocks,
            weight=self.config.weight,
            late_start=LATE_START,
            warmup=WARMUP,
        )

    def check_selection(self, method: str, inhibition: Inhibition) -> None:
        """Note the share that the last step selected, and insist that there is one."""
        shares = {key: value for key, value in inhibition.metrics().items() if key.endswith("/selected")}
        if method in SELECT_NOTHING:
            self.selected[method] = None
            return
        if not shares or not all(share > 0 for share in shares.values()):
            raise RuntimeError(f"{method} selected nothing while it was measured: {shares or 'no share in metrics'}")
        self.selected[method] = sum(shares.values()) / len(shares)


def _tensors(tree: Any) -> Iterator[Tensor]:
    """All tensors in nested dicts and lists."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict | list | tuple):
        for item in tree.values() if isinstance(tree, dict) else tree:
            yield from _tensors(item)


if __name__ == "__main__":
    sys.exit(run_from_arguments(OverheadConfig, run, sys.argv[1:]))

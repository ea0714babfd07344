"""How fast a sweep of toy models is side by side, against the same runs one after another.

    python scripts/benchmark.py benchmark=toy

Both ways make the same steps with the same numbers (that is checked first), in turns in one process
(`l2e.benchmarks.turns`).

results:
    vs_one_after_another: speed of the batched model over that of the runs one after another.
    run_steps_per_second: steps of a run, by way, under `ways`.
    sweep_minutes: what the whole sweep would take side by side at this speed.
"""

import logging
from dataclasses import asdict
from typing import Any

import torch

from l2e.analysis.toy import ToyRun, Training
from l2e.benchmarks.report import device_name, versions
from l2e.benchmarks.toy_config import ToyBenchmarkConfig
from l2e.benchmarks.turns import compare, timed

logger = logging.getLogger("l2e.benchmarks.toy")

CHECKED_STEPS = 5


def run(config: ToyBenchmarkConfig) -> dict[str, Any]:
    """Measure; returns the result to be printed."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    gpu = config.device == "cuda" or (config.device == "auto" and torch.cuda.is_available())
    device = torch.device("cuda" if gpu else "cpu")
    cycles = config.steps * (2 * config.rounds + 1) // 1024 + 1  # enough for all timings, two of ours in each round
    runs = [ToyRun(lr=lr, seed=seed, steps=1024 * cycles) for lr in config.lrs for seed in config.seeds]
    check_same(runs, device)
    together, alone = _Stepper([runs], config.steps, device), _Stepper([[one] for one in runs], config.steps, device)
    amount = config.steps * len(runs)
    ways = compare(timed(together), {"one_after_another": timed(alone)}, config.rounds, amount)
    for name, speed in ways.items():
        logger.info("%s: %.0f steps of a run per second", name, speed["per_second"])
    seconds = len(runs) * ToyRun().steps / ways["ours"]["per_second"]
    return {
        "benchmark": config.kind,
        "device": device_name(device),
        "versions": versions(),
        "results": {
            "vs_one_after_another": ways["one_after_another"]["ratio"],
            "sweep_minutes": seconds / 60,
            "ways": ways,
        },
        "settings": asdict(config),
    }


def check_same(runs: list[ToyRun], device: torch.device) -> None:
    """A way that trains other models has no speed worth telling.

    Raises:
        RuntimeError: the first losses differ by more than rounding.
    """
    together = Training(runs, device)
    for _ in range(CHECKED_STEPS):
        together.step()
    for index, one in enumerate(runs):
        alone = Training([one], device)
        for _ in range(CHECKED_STEPS):
            alone.step()
        ours, theirs = together.losses[:CHECKED_STEPS, index], alone.losses[:CHECKED_STEPS, 0]
        if not torch.allclose(ours, theirs, rtol=1e-3):
            raise RuntimeError(f"lr {one.lr}, seed {one.seed}: {ours.tolist()} side by side, {theirs.tolist()} alone")


class _Stepper:
    """Makes some steps of each batch of runs, one batch after another."""

    def __init__(self, batches: list[list[ToyRun]], steps: int, device: torch.device) -> None:
        self.trainings = [Training(batch, device) for batch in batches]
        self.steps, self.device = steps, device

    def __call__(self) -> None:
        for training in self.trainings:
            for _ in range(self.steps):
                training.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

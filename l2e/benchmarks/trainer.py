"""Our trainer against Hugging Face's, litgpt's loop and a bare PyTorch loop, in turns in one process.

    python scripts/benchmark.py benchmark=trainer

The same weights, rows, batch and precision; in each round every other way stands between two timings of ours
(`l2e.benchmarks.turns`). A ratio is our tokens per second over theirs.

results: `ours`, `hf_trainer`, `bare_loop`, `litgpt` with `tokens_per_second`, its quartiles, and the first loss told;
    `vs_hf_trainer`, `vs_bare_loop`, `vs_litgpt` (null where it is not installed) with their quartiles.
"""

import logging
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from l2e.benchmarks.report import device_name, versions
from l2e.benchmarks.trainer_config import TrainerBenchmarkConfig
from l2e.benchmarks.trainer_litgpt import LitGpt
from l2e.benchmarks.trainer_ways import BareLoop, HuggingFace, Ours, Way
from l2e.benchmarks.turns import compare
from l2e.training.engine import process_group

logger = logging.getLogger("l2e.benchmarks.trainer")


def run(config: TrainerBenchmarkConfig) -> dict[str, Any]:
    """Measure; returns the result to be printed."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory(prefix="l2e-trainer-") as folder:
        results = measure(config, device, Path(folder))
    return {
        "benchmark": config.kind,
        "device": device_name(device),
        "versions": versions("accelerate", "litgpt"),
        "results": results,
        "settings": asdict(config) | {"threads": torch.get_num_threads()},
    }


def measure(config: TrainerBenchmarkConfig, device: torch.device, folder: Path) -> dict[str, Any]:
    """All ways in turns."""
    rows = config.rows(config.batch_size * (1 + config.steps))
    # Before our process group exists: in its presence Hugging Face's would wrap the model for several processes.
    others: dict[str, Way] = {"hf_trainer": HuggingFace(config, rows, device, folder / "hf")}
    others["bare_loop"] = BareLoop(config, rows, device)
    try:
        others["litgpt"] = LitGpt(config, rows, device)
    except ImportError as error:
        logger.info("litgpt is left out: %s", error)
    with process_group() as ours_device:
        ours = Ours(config, rows, ours_device, folder)
        try:
            tokens = config.steps * config.batch_size * config.seq_length
            found = compare(ours, others, config.rounds, tokens)
        finally:
            ours.trainer.engine.close()
    ways = {"ours": ours, **others}
    results: dict[str, Any] = {name: _told(found[name], way) for name, way in ways.items()}
    for name in ("hf_trainer", "bare_loop", "litgpt"):
        results[f"vs_{name}"] = found[name]["ratio"] if name in found else None
        results[f"vs_{name}_spread"] = found[name]["ratio_spread"] if name in found else None
    return results


def _told(found: dict[str, Any], way: Way) -> dict[str, Any]:
    return {
        "tokens_per_second": found["per_second"],
        "tokens_per_second_spread": found["spread"],
        "first_loss": way.losses[0],
    }

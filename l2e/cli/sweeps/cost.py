"""What the rest of a sweep takes: tokens, floating-point operations, and time where something tells of it.

Time follows from a finished or running run of the same shape on the same device, where there is one beside the
members; else, on a GPU, from its peak and an assumed share of it (`l2e.cluster`); else it is not known.
"""

import json
import os
import platform
import shutil
import statistics
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml

from l2e.cli.plan import workload_of
from l2e.cli.pretrain_config import PretrainConfig
from l2e.cli.sweeps.grid import Planned
from l2e.cli.sweeps.state import state_of
from l2e.cluster import GPUS
from l2e.cluster.compute import compute
from l2e.errors import UserError
from l2e.training.device_peak import peak_tflops

ASSUMED_MFU = 0.4
"""As in configs/plan.yaml."""

_SHAPE = ("model.name", "training.seq_length", "training.batch_size", "training.precision")
"""What a run must share to tell how long another takes."""


@dataclass(frozen=True)
class Speed:
    """Tokens per second of one device, and how that is known."""

    tokens_per_second: float
    source: str


Speeds = Callable[[PretrainConfig], Speed | None]


@dataclass(frozen=True)
class Cost:
    """What is left to be trained.

    Attributes:
        members: how many have updates left.
        updates: of all.
        tokens: of all.
        flops: forward and backward.
        device_seconds: of those members whose speed is known.
        timed: how many those are.
        sources: where the speeds are from.
    """

    members: int
    updates: int
    tokens: int
    flops: float
    device_seconds: float
    timed: int
    sources: list[str]


def cost(members: Sequence[Planned], speeds: Speeds) -> Cost:
    """What the members still take, from where they stand now."""
    left = [(one.config, state_of(one).updates) for one in members if one.config is not None]
    left = [(config, updates) for config, updates in left if updates]
    known = [(updates * _tokens(config), speed) for config, updates in left if (speed := speeds(config)) is not None]
    return Cost(
        members=len(left),
        updates=sum(updates for _, updates in left),
        tokens=sum(updates * _tokens(config) for config, updates in left),
        flops=sum(updates * _tokens(config) * _flops_per_token(config) for config, updates in left),
        device_seconds=sum(tokens / speed.tokens_per_second for tokens, speed in known),
        timed=len(known),
        sources=list(dict.fromkeys(speed.source for _, speed in known)),
    )


def speeds_here(ranks: int) -> Speeds:
    """For runs in `ranks` processes on this machine's devices."""
    device = device_name()

    def speed(config: PretrainConfig) -> Speed | None:
        peak = peak_tflops(device, config.training.precision) if torch.cuda.is_available() else None
        found = measured(config, lambda there: there == device, ranks)
        return found or (None if peak is None else planned(config, device, peak))

    return speed


def speeds_on_a_cluster() -> Speeds:
    """For runs on GPUs that this machine does not see: as measured, else as planned for those of L2E_GPU.

    Raises:
        UserError: a GPU that the planner does not know.
    """
    name = os.environ.get("L2E_GPU", "H100")
    if name not in GPUS:
        raise UserError(f"L2E_GPU must be one of {', '.join(GPUS)}, not {name!r}")

    without = os.environ.get("L2E_DEVICE") == "cpu"

    def speed(config: PretrainConfig) -> Speed | None:
        gpu = GPUS[name]
        peak = gpu.fp32_tflops if config.training.precision == "fp32" else gpu.half_tflops
        found = measured(config, lambda there: there.startswith("CPU") == without)
        return found or (None if without else planned(config, name, peak))

    return speed


def planned(config: PretrainConfig, device: str, peak: float) -> Speed:
    """The planner's, at an assumed share of the peak (10^12 FLOP/s)."""
    found = compute(workload_of(config, gpus=1), peak_tflops=peak, mfu=ASSUMED_MFU)
    return Speed(found.tokens_per_second, f"{device} at {ASSUMED_MFU:.0%} of its peak (assumed)")


def measured(config: PretrainConfig, on: Callable[[str], bool], ranks: int | None = None) -> Speed | None:
    """The median speed of a run of this shape beside the members, of the same method if there is one.

    Args:
        config: of the member.
        on: whether a device, by its name, is one of those that the member will have.
        ranks: in as many processes; None for any.
    """
    found = []
    for file in sorted(Path(config.runs_dir).glob("*/config.yaml")):
        tree, environment = _settings(file), _environment(file.with_name("environment.json"))
        there, device = environment.get("ranks") or 1, environment.get("device")
        alike = all(_value(tree, key) == _value_of(config, key) for key in _SHAPE)
        if not alike or device is None or not on(device) or (ranks or there) != there:
            continue
        speed = _median_speed(file.with_name("metrics.jsonl"))
        if speed is not None:
            other = _value(tree, "inhibition.method") != config.inhibition.method
            found.append((other, Speed(speed / there, f"{device}, as measured in {file.parent}")))
    return min(found, key=lambda each: each[0])[1] if found else None


@cache
def device_name() -> str:
    """Of this machine, as runs record it.

    A GPU's is asked of the driver: PyTorch would keep some of its memory for as long as this process lives.
    """
    if not torch.cuda.is_available():
        return f"CPU ({platform.machine()})"
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    if shutil.which(command[0]) is None:
        return "an unknown GPU"
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    return (asked.stdout.splitlines() or ["an unknown GPU"])[0].strip()


def _tokens(config: PretrainConfig) -> int:
    return workload_of(config, gpus=1).tokens_per_update


def _flops_per_token(config: PretrainConfig) -> float:
    return compute(workload_of(config, gpus=1), peak_tflops=1.0, mfu=1.0).flops_per_token


def _median_speed(file: Path) -> float | None:
    if not file.exists():
        return None
    lines = [line for line in file.read_text().splitlines() if '"tokens_per_second"' in line and line.endswith("}")]
    values = [value for line in lines if (value := json.loads(line).get("tokens_per_second"))]
    return statistics.median(values) if values else None


def _value_of(config: PretrainConfig, key: str) -> Any:
    section, name = key.split(".")
    return getattr(getattr(config, section), name)


def _value(tree: dict[str, Any], key: str) -> Any:
    section, name = key.split(".")
    found = tree.get(section)
    return found.get(name) if isinstance(found, dict) else None


@cache
def _settings(file: Path) -> dict[str, Any]:
    """Of a run; nothing where the file is none of ours."""
    try:
        tree = yaml.safe_load(file.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        tree = None
    return tree if isinstance(tree, dict) else {}


def _environment(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text()) if file.exists() else {}

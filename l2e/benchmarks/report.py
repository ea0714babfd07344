"""What every benchmark says at its end."""

import json
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from l2e.files import write_atomically

_PACKAGES = ("l2e", "torch", "transformers", "deepspeed", "numpy")


def versions(*more: str) -> dict[str, str]:
    """Of Python and of those packages, `more` among them, that are installed."""
    found = {"python": platform.python_version()}
    for package in (*_PACKAGES, *more):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
    return found


def device_name(device: torch.device) -> str:
    """E.g. "cuda: NVIDIA H200" or "cpu: AMD EPYC, 2 threads"."""
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    threads = torch.get_num_threads()
    return f"cpu: {_processor()}, {threads} thread{'s' * (threads > 1)}"


def print_result(result: dict[str, Any]) -> None:
    """The last line of a benchmark: one JSON object."""
    print(json.dumps(result, allow_nan=False), flush=True)


def write_result(result: dict[str, Any], folder: Path, name: str) -> Path:
    """Write it as `<name>-<device>.json`, e.g. table2-nvidia-h200.json; another benchmark's file is replaced whole."""
    kind, _, device = result["device"].partition(": ")
    told = device.partition(",")[0] if kind == "cuda" else "cpu"
    path = folder / f"{name}-{re.sub(r'[^a-z0-9]+', '-', told.lower()).strip('-')}.json"
    write_json(result, path)
    return path


def write_json(result: dict[str, Any], path: Path) -> None:
    """Write it whole; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(result, indent=1, allow_nan=False) + "\n")


def _processor() -> str:
    """The processor's name as Linux tells it, else its architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()

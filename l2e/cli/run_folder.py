"""The run directory: one configuration, stable over restarts."""

import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml

from l2e.errors import UserError
from l2e.evaluation.results import INHIBITED
from l2e.files import write_atomically
from l2e.training.restart_points import differences, flatten, restart_points

DECISIVE = ("name", "seed", "model", "data", "inhibition", "training", "deepspeed")
"""The settings that decide the weights; a run directory never changes them."""

INCIDENTAL = ("non_finite", "max_skips", "timeout_minutes", "dry_run")
"""Those of `training` that may change from one start to the next."""

_PACKAGES = ("l2e", "torch", "deepspeed", "transformers", "tokenizers", "datasets", "lm-eval", "numpy")


class RunFolder:
    """`runs_dir/name` and the places in it."""

    def __init__(self, runs_dir: str, name: str) -> None:
        self.path = Path(runs_dir) / name
        self.config = self.path / "config.yaml"
        self.environment = self.path / "environment.json"
        self.metrics = self.path / "metrics.jsonl"
        self.log = self.path / "train.log"
        self.checkpoints = self.path / "checkpoints"
        self.exports = self.path / "hf"
        self.bad_batches = self.path / "bad_batches"
        self.profile = self.path / "profile"

    def export(self, step: int) -> Path:
        """Where the export after `step` updates lies."""
        return self.exports / f"step{step}"

    def exported(self) -> list[int]:
        """Updates after which there is an export, first to last."""
        names = [path.name.removeprefix("step") for path in self.exports.glob("step*")]
        return sorted(int(name) for name in names if name.isdecimal())

    def evaluation(self, step: int, inhibited: bool = False) -> Path:
        """Where its evaluation lies; the one with the inhibition active in a folder of its own."""
        folder = self.path / "eval" / f"step{step}"
        return folder / INHIBITED if inhibited else folder

    def check(self, tree: dict[str, Any]) -> None:
        """Refuse a folder that belongs to something else; changes nothing.

        Raises:
            UserError: the folder holds a run with other decisive settings, or no run at all.
        """
        if not self.path.exists():
            return
        if not self.config.exists():
            if any(self.path.iterdir()):
                raise UserError(f"{self.path} exists and is no run directory; choose another name=... or runs_dir=...")
            return
        there, here = decisive(yaml.safe_load(self.config.read_text())), decisive(tree)
        held, wanted, other = flatten(there), flatten(here), differences(there, here)
        finished = self.export(tree["training"]["steps"]).exists()
        if other == ["deepspeed.stage"] and not finished and restart_points(self.checkpoints):
            return  # `check_layout` knows whether one can be read
        if other:
            shown = ", ".join(f"{key} is {held.get(key)} there and {wanted.get(key)} here" for key in other[:3])
            more = f" and {len(other) - 3} more" if len(other) > 3 else ""
            raise UserError(
                f"{self.path} holds a run with another config: {shown}{more}; "
                f"choose another name=..., or remove that directory"
            )

    def open(self, tree: dict[str, Any], overrides: list[str]) -> None:
        """Make the folder and write the resolved config and the overrides."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self.config, yaml.safe_dump(tree, sort_keys=False))
        write_atomically(self.path / "overrides.yaml", yaml.safe_dump(overrides))

    def write_environment(self, facts: dict[str, Any]) -> None:
        """Versions, code, device, and `facts` besides."""
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU ({platform.machine()})"
        environment = {
            "versions": versions(),
            "git": git_state(),
            "device": device,
            **facts,
        }
        write_atomically(self.environment, json.dumps(environment, indent=2) + "\n")

    def drop_metrics_after(self, step: int) -> None:
        """Forget rows of updates that are run again, and an incomplete last line."""
        if self.metrics.exists():
            kept = [line for line in self.metrics.read_text().splitlines() if _step_of(line) <= step]
            write_atomically(self.metrics, "".join(line + "\n" for line in kept) if step else "")


def git_state() -> dict[str, Any]:
    """Commit and whether tracked files differ from it; empty outside a checkout."""
    root = Path(__file__).parents[2]

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, check=True).stdout

    try:
        return {
            "commit": git("rev-parse", "HEAD").strip(),
            "modified": bool(git("status", "--porcelain", "-uno")),
        }
    except (OSError, subprocess.CalledProcessError):
        return {}


def decisive(tree: dict[str, Any]) -> dict[str, Any]:
    """The settings that decide the weights."""
    training = {key: value for key, value in tree["training"].items() if key not in INCIDENTAL}
    return {key: tree.get(key) for key in DECISIVE} | {"training": training}


def versions() -> dict[str, str]:
    """Of Python and the packages that matter."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return float("inf")

"""Read a run directory.

The report sees files only: it works on a run that is still going, one that was interrupted, one copied from a
cluster. What is incomplete is left out and told as a warning; only a folder that is no run at all is an error.
"""

import logging
import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from l2e.errors import UserError
from l2e.evaluation.results import INHIBITED
from l2e.inhibition.methods import METHODS
from l2e.reporting.files import json_lines, number, read_json, whole

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Series:
    """One metric over training: `steps` ascending, each once; `values` may hold NaN."""

    steps: NDArray[np.int64]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class TaskResult:
    """One line of an evaluation: accuracies are shares in [0, 1], NaN where the file has none."""

    task: str
    num_fewshot: int
    n: int
    acc: float
    acc_stderr: float
    acc_norm: float
    acc_norm_stderr: float
    chance: float


@dataclass(frozen=True)
class RunRecord:
    """What a run directory says. `label` is the name, made unique among the runs of one report."""

    path: Path
    label: str
    config: dict[str, Any]
    environment: dict[str, Any]
    metrics: dict[str, Series]
    evaluations: dict[int, tuple[TaskResult, ...]]
    warnings: tuple[str, ...]
    inhibited: dict[int, tuple[TaskResult, ...]] = field(default_factory=dict)
    """`evaluations` with the inhibition active at test time (M22)."""
    variant: str = ""
    """Folder of these evaluations within those of each step."""

    @property
    def at_test(self) -> "RunRecord | None":
        """This run with its inhibition active at test time, the papers' "-T"; None where it was not evaluated so."""
        if not self.inhibited:
            return None
        label = f"{self.label}-T"
        return replace(self, label=label, evaluations=self.inhibited, inhibited={}, variant=INHIBITED)

    def setting(self, key: str, default: Any = None) -> Any:
        """The value at a dotted key of the config."""
        value: Any = self.config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return default if value is None else value

    def series(self, key: str) -> Series:
        """A metric by name; empty if the run never logged it."""
        return self.metrics.get(key, Series(np.array([], dtype=np.int64), np.array([], dtype=np.float64)))

    @property
    def is_baseline(self) -> bool:
        """Whether nothing was inhibited; a penalty of weight or strength 0 only observes."""
        method = METHODS.get(str(self.setting("inhibition.method")))
        if method is None or method.action != "penalty":
            return method is METHODS["none"]
        strength = self.setting("inhibition.strength")
        return (self.setting("inhibition.weight") if strength is None else strength) == 0

    @property
    def last_evaluated(self) -> int | None:
        """The last step after the start that was evaluated."""
        return max((step for step in self.evaluations if step > 0), default=None)

    def items(self, step: int, result: TaskResult) -> dict[tuple[str, str], float]:
        """Correct (1) or not (0) per item of one evaluated task; empty if the items were not kept.

        Items are known by doc_id, and by prompt_hash where the evaluation wrote one: the same id in another data set is
        another item.
        """
        folder = self.path / "eval" / f"step{step}" / self.variant / f"{result.num_fewshot}-shot"
        lines = json_lines(folder / f"samples_{result.task}.jsonl", [])
        items = {(str(line.get("doc_id")), str(line.get("prompt_hash"))): number(line.get("acc")) for line in lines}
        return {key: value for key, value in items.items() if math.isfinite(value)}


def load_run(path: Path) -> RunRecord:
    """Read the run directory at `path`.

    Raises:
        UserError: there is no such folder, or it holds no readable config.yaml.
    """
    path = Path(path)
    config = _read_config(path)
    warnings: list[str] = []
    environment = read_json(path / "environment.json", warnings)
    record = RunRecord(
        path=path,
        label=str(config.get("name") or path.resolve().name),
        config=config,
        environment=environment if isinstance(environment, dict) else {},
        metrics=_read_metrics(path / "metrics.jsonl", warnings),
        evaluations=_read_evaluations(path / "eval", warnings),
        inhibited=_read_evaluations(path / "eval", warnings, INHIBITED),
        warnings=tuple(warnings),
    )
    for warning in warnings:
        log.warning("%s: %s", record.label, warning)
    return record


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise UserError(f"{path}: no such run directory; give the folder that pretrain.py wrote (runs/<name>)")
    file = path / "config.yaml"
    if not file.is_file():
        raise UserError(f"{path} is no run directory: it has no config.yaml; give a folder runs/<name>")
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is no readable YAML ({error}); restore it or run pretrain.py again") from None
    if not isinstance(config, dict):
        raise UserError(f"{file} holds no settings; restore it or run pretrain.py again")
    return config


def _read_metrics(file: Path, warnings: list[str]) -> dict[str, Series]:
    """Every metric as a series; a step logged twice (after a resume) counts as logged last."""
    if not file.is_file():
        warnings.append(f"{file.name} is missing: nothing is known about training")
    found: dict[str, dict[int, float]] = {}
    for line in json_lines(file, warnings):
        step = line.pop("step", None)
        if isinstance(step, int):
            for key, value in line.items():
                if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
                    found.setdefault(key, {})[step] = number(value)
    return {key: _to_series(values) for key, values in found.items()}


def _to_series(values: dict[int, float]) -> Series:
    steps = sorted(values)
    return Series(np.array(steps, dtype=np.int64), np.array([values[step] for step in steps], dtype=np.float64))


def _read_evaluations(folder: Path, warnings: list[str], variant: str = "") -> dict[int, tuple[TaskResult, ...]]:
    found: dict[int, tuple[TaskResult, ...]] = {}
    for path in folder.glob("step*"):
        match = re.fullmatch(r"step(\d+)", path.name)
        if not match or not (path / variant).is_dir():
            continue
        problems: list[str] = []
        summary = read_json(path / variant / "summary.json", problems)
        warnings += [f"eval/{(path / variant).relative_to(folder)}/{problem}" for problem in problems]
        results = [_task_result(entry) for entry in summary or [] if isinstance(entry, dict) and "task" in entry]
        if results:
            found[int(match[1])] = tuple(results)
    return dict(sorted(found.items()))


def _task_result(entry: dict[str, Any]) -> TaskResult:
    n, acc, stderr = whole(entry.get("n")), number(entry.get("acc")), number(entry.get("acc_stderr"))
    if math.isnan(stderr) and n > 1:
        stderr = math.sqrt(max(acc * (1 - acc), 0) / (n - 1))  # as lm-eval does
    return TaskResult(
        task=str(entry["task"]),
        num_fewshot=whole(entry.get("num_fewshot")),
        n=n,
        acc=acc,
        acc_stderr=stderr,
        acc_norm=number(entry.get("acc_norm")),
        acc_norm_stderr=number(entry.get("acc_norm_stderr")),
        chance=number(entry.get("chance")),
    )

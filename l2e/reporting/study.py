"""Which run belongs into which row of the papers' tables."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from l2e.errors import UserError
from l2e.reporting.effects import Effect, effect
from l2e.reporting.results import cells_at
from l2e.reporting.runs import RunRecord, TaskResult

BASELINE = "Pythia"
TASKS = {
    "ARC-Challenge": ("arc_challenge", "world_arc"),
    "ARC-Easy": ("arc_easy",),
    "PIQA": ("piqa", "world_piqa"),
    "SciQ": ("sciq", "world_sciq"),
}
"""The papers' names of the tasks, and ours; the built-in world's task of the same form stands in for the real one."""

_PAPER_RATE = 0.02
_PAPER_BLOCKS = "middle-2"
_BLOCK_NAMES = {"top-bottom": "Top-Bot", "middle-third": "Mid-1/3", "middle-2": "Mid-2"}
_METHOD_NAMES = {
    1: {"dropout": "Dropout", "l2e": "L2E"},
    2: {"memel": "MEmeL", "l2e": "L2E"},
    6: {"l2e": "L2E"},
    7: {"l2e_no_threshold": "No-Thr", "l2e": "L2E"},
    8: {"reverse_deactivation": "RD", "l2e": "L2E"},
}


@dataclass(frozen=True)
class Group:
    """The runs of one row: one model size, one method, a run for each seed."""

    scale: str
    setting: str
    runs: dict[int, RunRecord] = field(default_factory=dict)

    def results(self, shots: int, column: str) -> dict[int, TaskResult]:
        """What each seed's run, where it was evaluated, answered at its last evaluated step."""
        found = {}
        for seed, run in self.runs.items():
            cells = cells_at(run, run.last_evaluated)
            for task in TASKS[column]:
                if (shots, task) in cells:
                    found[seed] = cells[shots, task]
        return found


def group_runs(runs: Sequence[RunRecord], table: int) -> tuple[list[Group], list[str]]:
    """The rows of a table that these runs fill, and what is to be said about runs that fill none.

    Raises:
        UserError: two runs of one size, method and seed.
    """
    groups: dict[tuple[str, str], Group] = {}
    notes = []
    for run in runs:
        setting = setting_of(run, table)
        if setting is None:
            notes.append(f"{run.label} has no row in Table {table}: its method or settings are not among the table's.")
            continue
        scale, seed = scale_of(run), int(run.setting("seed", 0))
        group = groups.setdefault((scale, setting), Group(scale, setting))
        if seed in group.runs:
            raise UserError(
                f"{group.runs[seed].path} and {run.path} are both {setting}, {scale}, seed {seed}; "
                f"give one run for each seed of a row"
            )
        group.runs[seed] = run
    return list(groups.values()), notes + _uneven(list(groups.values()))


def scale_of(run: RunRecord) -> str:
    """The model's size as the papers write it: "70M" for pythia-70m."""
    name = str(run.setting("model.name", "?"))
    return name.removeprefix("pythia-").upper() if name.startswith("pythia-") else name


def setting_of(run: RunRecord, table: int) -> str | None:
    """The method as Table `table` names it; None where it has no such row.

    L2E is the row of that name at 2% and in the two middle blocks alone, as in the paper; Tables 4 and 5 vary these.
    """
    if run.setting("inhibition.method") == "none" or (table != 2 and run.is_baseline):
        return BASELINE
    method, rate, blocks = (run.setting(f"inhibition.{key}") for key in ("method", "rate", "blocks"))
    if table == 4:
        return f"L2E-{100 * rate:g}%" if method == "l2e" and blocks == _PAPER_BLOCKS else None
    if table == 5:
        return _block_name(blocks) if method == "l2e" and rate == _PAPER_RATE else None
    if method == "l2e" and (rate, blocks) != (_PAPER_RATE, _PAPER_BLOCKS):
        return None
    return _METHOD_NAMES.get(table, {}).get(str(method))


def compare(group: Group, baseline: Group, column: str, shots: int) -> Effect | None:
    """The effect of a method on one task: seeds that both have, items that all of their runs answered."""
    ours, theirs = group.results(shots, column), baseline.results(shots, column)
    pairs = [
        (_items(group.runs[seed], ours[seed]), _items(baseline.runs[seed], theirs[seed]))
        for seed in sorted(set(ours) & set(theirs))
    ]
    if not pairs:
        return None
    common = sorted(set.intersection(*({*one} & {*other} for one, other in pairs)))
    return effect(_changes(pairs, common)) if common else None


def _changes(pairs: Sequence[tuple[dict, dict]], items: Sequence[Any]) -> npt.NDArray[np.float64]:
    return np.array([[one[item] - other[item] for item in items] for one, other in pairs])


def _items(run: RunRecord, result: TaskResult) -> dict[tuple[str, str], float]:
    assert run.last_evaluated is not None
    return run.items(run.last_evaluated, result)


def _block_name(blocks: object) -> str | None:
    return _BLOCK_NAMES.get(blocks) if isinstance(blocks, str) else None


def _uneven(groups: Sequence[Group]) -> list[str]:
    """What differs between the runs of one size besides the method: then a difference is not the method's alone."""
    notes = []
    for scale in dict.fromkeys(group.scale for group in groups):
        runs = [run for group in groups if group.scale == scale for run in group.runs.values()]
        for key in ("training", "data.name", "model"):
            if len({repr(run.setting(key)) for run in runs}) > 1:
                notes.append(f"The {scale} runs differ in `{key}`: their differences are not the method's alone.")
        if len({run.last_evaluated for run in runs}) > 1:
            notes.append(f"The {scale} runs were evaluated at different steps.")
    return notes

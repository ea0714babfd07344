"""Table 2 of L2E: the time of a step, from the speed that runs logged."""

from collections.abc import Sequence

import numpy as np

from l2e.reporting.cells import MISSING, Table, decimals
from l2e.reporting.facts import key_facts
from l2e.reporting.published import published
from l2e.reporting.runs import RunRecord
from l2e.reporting.study import BASELINE, group_runs


def step_time_table(runs: Sequence[RunRecord]) -> tuple[Table, list[str]]:
    """The printed times beside those of these runs, and notes on runs without a row.

    A run's time is the median over its log of tokens per update / tokens per second: training alone, without
    validation, exports and checkpoints.
    """
    entry = published()["l2e"]["step_time"]
    scales = list(entry["neurons_per_layer"])
    groups, notes = group_runs(runs, 2)
    ours: dict[tuple[str, str], tuple[float, RunRecord]] = {}
    for group in groups:
        run = next(iter(group.runs.values()))
        milliseconds = step_milliseconds(run)
        if milliseconds is None:
            notes.append(f"{run.label} logged no speed.")
        else:
            ours[group.scale, group.setting] = milliseconds, run
    scales = list(dict.fromkeys([*scales, *(scale for scale, _ in ours)]))
    rows = []
    for line in entry["rows"]:
        rows.append([line["setting"], "paper", *_paper_cells(line, scales)])
        rows.append([line["setting"], "here", *_our_cells(line["setting"], ours, scales)])
    header = ["setting", "source", *(text for scale in scales for text in (f"{scale}\nms", "up"))]
    caption = (
        "Milliseconds per step; up: relative to Pythia. Paper: 1024 sequences of 2048 tokens on H100s, how many of the "
        "24 worked on a run is not said. Here: median over a run's log, without validation, exports and checkpoints; "
        "times compare only on one device and one batch: "
        + ("; ".join(f"{s} {name}: {_where(run)}" for (s, name), (_, run) in ours.items()) or "nothing was run")
        + "."
    )
    return Table(f"Table 2: {entry['title']}", caption, header, rows, 2), notes


def step_milliseconds(run: RunRecord) -> float | None:
    """Median time of an update in ms; None where no speed was logged."""
    speed = run.series("tokens_per_second").values
    speed = speed[np.isfinite(speed) & (speed > 0)]
    tokens = run.setting("training.batch_size", 0) * run.setting("training.seq_length", 0)
    return 1000 * tokens / float(np.median(speed)) if len(speed) and tokens else None


def _paper_cells(line: dict, scales: Sequence[str]) -> list[str]:
    ups = line.get("up", {})
    return [
        text
        for scale in scales
        for text in (f"{line[scale]:.1f}" if scale in line else MISSING, ups.get(scale, MISSING))
    ]


def _our_cells(setting: str, ours: dict[tuple[str, str], tuple[float, RunRecord]], scales: Sequence[str]) -> list[str]:
    cells = []
    for scale in scales:
        mine, base = ours.get((scale, setting)), ours.get((scale, BASELINE))
        cells.append(f"{mine[0]:.1f}" if mine else MISSING)
        relative = 100 * (mine[0] / base[0] - 1) if mine and base and setting != BASELINE else float("nan")
        cells.append(decimals(relative, 1) + ("%" if relative == relative else ""))
    return cells


def _where(run: RunRecord) -> str:
    facts = key_facts(run)
    return f"{facts['batch']} on {facts['device']}"

"""A plan as tables, for the terminal and for Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from l2e.cluster.memory import GIB
from l2e.cluster.plan import Plan
from l2e.cluster.published_pythia import not_reachable


@dataclass(frozen=True)
class Table:
    """A titled table of texts; `note` stands below it."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""


def tables(plan: Plan) -> list[Table]:
    """The plan in reading order: the run, its time, memory, disk, and how it differs from the published one."""
    return [_run(plan), _time(plan), _memory(plan), _disk(plan), _audit(plan)]


def markdown(plan: Plan, name: str) -> str:
    """plan.md."""
    parts = [f"# Plan of {name}"]
    if plan.problems:
        parts.append("## Problems\n\n" + "\n".join(f"- {problem}" for problem in plan.problems))
    for table in tables(plan):
        lines = [_line(table.columns), _line(("---",) * len(table.columns)), *map(_line, table.rows)]
        parts.append(f"## {table.title}\n\n" + "\n".join(lines if table.rows else []))
        if table.note:
            parts.append(table.note)
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _run(plan: Plan) -> Table:
    facts = plan.as_dict()
    work, training = plan.work, facts["training"]
    return Table(
        "Run",
        ("", ""),
        [
            ("parameters", f"{facts['parameters']['total']:,}"),
            ("without embeddings", f"{facts['parameters']['non_embedding']:,}"),
            ("updates", f"{training['updates']:,}"),
            ("tokens of an update", f"{training['tokens_per_update']:,}"),
            ("tokens in all", f"{training['tokens']:,}"),
            (
                "an update is",
                f"{work.gpus} GPUs x {work.micro_batch} sequences x {work.accumulation} accumulated",
            ),
            ("precision, ZeRO stage", f"{training['precision']}, {training['zero_stage']}"),
        ],
    )


def _time(plan: Plan) -> Table:
    found = plan.compute
    return Table(
        "Time",
        ("", ""),
        [
            ("FLOPs of an update", f"{found.flops_per_update:.4g}"),
            ("FLOPs in all", f"{found.flops:.4g}"),
            ("peak of a GPU", f"{plan.device.peak_tflops:g} TFLOP/s ({plan.device.name})"),
            ("MFU", f"{found.mfu:.1%}, {plan.mfu_source}"),
            ("an update", f"{found.seconds_per_update * 1000:,.1f} ms"),
            ("tokens per second", f"{found.tokens_per_second:,.0f}"),
            ("the run", f"{found.hours:,.1f} h"),
            ("GPU-hours", f"{found.gpu_hours:,.1f}"),
        ],
        "Training alone: no checkpoints, evaluation or queue.",
    )


def _memory(plan: Plan) -> Table:
    rows = [(name, _gib(size)) for name, size in sorted(plan.memory.parts.items(), key=lambda item: -item[1])]
    have, need = plan.device.memory_gib * GIB, plan.memory.total
    verdict = f"{_gib(have - need)} to spare" if need <= have else f"{_gib(need - have)} too much"
    return Table(
        "Memory of a GPU",
        ("part", "at the peak"),
        [*rows, ("total", _gib(need)), (f"{plan.device.name} has", f"{_gib(have)}: {verdict}")],
        f"The peak is the {plan.memory.moment}.",
    )


def _disk(plan: Plan) -> Table:
    found = plan.disk
    return Table(
        "Disk",
        ("", "each", "how many", "together"),
        [
            _files("restart points", found.restart_point, found.restart_points),
            _files("exports", found.export, found.exports),
            ("run directory", "", "", _gb(found.run)),
            ("training rows fetched", "", "", _gb(found.rows) if found.rows else "none"),
        ],
    )


def _audit(plan: Plan) -> Table:
    title, columns = "Differences from the published run", ("field", "published", "yours", "what depends on it")
    if plan.differences is None:
        return Table(title, columns, [], f"{plan.work.model.name} was never published: nothing to compare with.")
    rows = [
        (
            d.field,
            f"{_value(d.published)} ({d.by})",
            _value(d.yours) + (" (as L2E's paper)" if d.in_l2e else ""),
            d.why,
        )
        for d in plan.differences
    ]
    rest = "No setting can change: " + "; ".join(not_reachable(plan.work.model.name)) + "."
    return Table(title, columns, rows, rest if rows else f"None. {rest}")


def _files(name: str, size: float, count: int) -> tuple[str, ...]:
    return name, _gb(size), str(count), _gb(size * count)


def _gib(size: float) -> str:
    return f"{size / GIB:,.2f} GiB"


def _gb(size: float) -> str:
    return f"{size / 1e9:,.2f} GB"


def _value(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)

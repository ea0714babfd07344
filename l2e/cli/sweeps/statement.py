"""What a sweep says before it starts, as it goes on, and at its end."""

from collections.abc import Sequence

from l2e.cli.sweeps.cost import Cost
from l2e.cli.sweeps.grid import Planned


def member_table(members: Sequence[Planned], states: Sequence[str]) -> str:
    """A line for each member: number, run, method, model, seed, state."""
    rows = [("", "run", "method", "model", "seed", "state")]
    for number, (member, state) in enumerate(zip(members, states, strict=True)):
        rows.append((str(number), member.name, *_facts(member), state))
    widths = [max(len(row[place]) for row in rows) for place in range(5)]
    return "\n".join("  ".join([*map(str.ljust, row[:5], widths), row[5]]).rstrip() for row in rows)


def cost_lines(cost: Cost, ranks: int | None) -> str:
    """What is left to be trained.

    Args:
        cost: of the members.
        ranks: processes that share a member; None where that is not decided yet, for the hours of all devices.
    """
    if not cost.members:
        return "Nothing is left to be trained."
    lines = [
        f"To train: {_count(cost.members, 'run')}, {cost.updates:,} updates, {cost.tokens:,} tokens, "
        f"{cost.flops:.3g} FLOPs"
    ]
    if not cost.timed:
        lines.append("Time: not known, no run of this model and batch has been measured on this device yet")
    else:
        what = "" if cost.timed == cost.members else f" for {cost.timed} of them (nothing tells of the others)"
        time = hours(cost.device_seconds / ranks) if ranks else f"{cost.device_seconds / 3600:,.2f} device-hours"
        lines.append(f"Time: about {time}{what}, training alone; {'; '.join(cost.sources[:3])}")
    return "\n".join(lines)


def hours(seconds: float) -> str:
    """A duration for a reader: "40 s", "12 min", "3.5 h", "2.1 days"."""
    for unit, size, places in (("days", 86_400, 1), ("h", 3600, 1), ("min", 60, 0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:,.{places}f} {unit}"
    return f"{seconds:.0f} s"


def _facts(member: Planned) -> tuple[str, str, str]:
    config = member.config
    return ("", "", "") if config is None else (config.inhibition.method, config.model.name, str(config.seed))


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"

"""The report about a sweep: the table of the papers that it is a part of, members that failed named."""

import re
from collections.abc import Sequence
from pathlib import Path

from l2e.cli.sweeps.grid import Planned, settings_of
from l2e.cli.sweeps.record import Member
from l2e.errors import UserError
from l2e.reporting import write_report


def table_of(members: Sequence[list[str]]) -> int | None:
    """The table of L2E that all members belong to, by their overrides: experiment=table8 is Table 8."""
    tables = {_experiment(overrides) for overrides in members}
    match = re.fullmatch(r"table(\d)", tables.pop() or "") if len(tables) == 1 else None
    return int(match[1]) if match else None


def baselines(members: Sequence[list[str]]) -> list[Path]:
    """The run directories with which a table compares its members: their settings, but nothing inhibited.

    Settings of the method that the grid varies are left out: where experiment=table4 varies the rate, its baseline is
    Table 1's, whose rate nobody uses.
    """
    shared = set.intersection(*map(set, members))
    found = []
    for overrides in members:
        kept = [
            each
            for each in overrides
            if not each.startswith("inhibition=") and (each in shared or not each.startswith("inhibition."))
        ]
        config = settings_of([*kept, "inhibition=none"])
        found.append(Path(config.runs_dir) / config.name)
    return list(dict.fromkeys(found))


def baseline_line(members: Sequence[list[str]]) -> str:
    """Where the table's baseline is; empty where there is no table, or its grid has the baseline in it."""
    table = table_of(members)
    if table is None or any("inhibition=none" in overrides for overrides in members):
        return ""
    wanted = baselines(members)
    there = [run for run in wanted if (run / "config.yaml").exists()]
    missing = [run.name for run in wanted if run not in there]
    line = f"Table {table} compares with Pythia trained without inhibition"
    if there:
        line += f": {', '.join(run.name for run in there)}"
    if missing:
        line += f"; not there yet: {', '.join(missing)} (the same command with inhibition=none trains them)"
    return line


def write_study(members: Sequence[Member], folder: Path) -> Path:
    """Write one report about the members that have something to tell.

    Members of a table of L2E fill that table, beside its baseline's runs where these exist.

    Returns:
        The path of report.html.

    Raises:
        UserError: no member has a run directory.
    """
    started = [Path(member.run) for member in members if _is_run(Path(member.run))]
    if not started:
        raise UserError("no member of the sweep has got as far as a run directory; see what they printed")
    notes = [note for member in members for note in _notes(member)]
    overrides = [member.overrides for member in members]
    table = table_of(overrides)
    if table is None:
        return write_report(started, folder, notes=notes)
    others = [run for run in baselines(overrides) if _is_run(run) and run not in started]
    try:
        return write_report([*started, *others], folder, table, notes)
    except UserError as error:  # two members for one row, as where a table's grid is crossed with learning rates
        notes.append(f"Table {table} is left out: {error}")
    return write_report(started, folder, notes=notes)


def report_folder(members: Sequence[Planned], table: int) -> Path:
    """Where a sweep without a name of its own has its report: runs/table8-pythia-410m."""
    configs = [member.config for member in members if member.config is not None]
    models = dict.fromkeys(config.model.name for config in configs)
    return Path(configs[0].runs_dir) / "-".join([f"table{table}", *models])


def _experiment(overrides: Sequence[str]) -> str | None:
    given = [each.partition("=")[2] for each in overrides if each.lstrip("+").startswith("experiment=")]
    return given[-1] if given else None


def _is_run(folder: Path) -> bool:
    return (folder / "config.yaml").exists()


def _notes(member: Member) -> list[str]:
    """What is missing of a member."""
    run = Path(member.run)
    if not _is_run(run):
        return [f"{run.name}: failed before training began; it is not in this report"]
    if not (run / "hf" / f"step{member.steps}").exists():
        return [f"{run.name}: not trained to the end ({member.steps} updates)"]
    if not (run / "eval" / f"step{member.steps}" / "summary.json").exists():
        return [f"{run.name}: not evaluated after {member.steps} updates"]
    return []

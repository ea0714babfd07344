"""A grid of runs as one job array: what slurm/sweep.sh and the array's tasks ask for.

python -m l2e.cli.sweep plan [--dry-run] NAME overrides...   write the members; print the file and how many there are
python -m l2e.cli.sweep train FILE INDEX                     a member's overrides for scripts/pretrain.py
python -m l2e.cli.sweep evaluate FILE INDEX                  the same for scripts/evaluate.py
python -m l2e.cli.sweep report FILE                          one report, failed members named

Overrides are printed with a zero byte after each, so that every character survives the shell.
"""

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from l2e.cli.entry import BAD_INPUT
from l2e.cli.sweeps.record import Member, as_text, read
from l2e.errors import UserError
from l2e.files import write_atomically

if TYPE_CHECKING:
    from l2e.cli.sweeps.grid import Planned


def plan(name: str, overrides: Sequence[str], *, dry_run: bool = False) -> tuple[Path, "list[Planned]"]:
    """Expand and check a sweep, and write `runs_dir/NAME/members.json` unless it is a dry run.

    Raises:
        UserError: a member that cannot run, two that would share a run directory, or another sweep of that name.
    """
    from l2e.cli.sweeps.grid import expand, plan_each  # torch, which the other commands do without

    members = plan_each(expand(overrides), name)
    for member in members:
        if member.config is None:
            raise UserError(f"{member.name}: {member.problem}")
    file = members[0].folder.path.parent / name / "members.json"
    text = as_text([member.record for member in members])
    if file.exists() and file.read_text() != text:
        raise UserError(f"{file} is another sweep; choose another name, or remove it")
    if (file.parent / "config.yaml").exists():
        raise UserError(f"{file.parent} is a run directory; choose another name for the sweep")
    if not dry_run:
        write_atomically(file, text)
    return file, members


def training(member: Member) -> list[str]:
    """Overrides of scripts/pretrain.py; evaluation is another job's."""
    return [*member.overrides, "evaluation.separate=true"]


def evaluation(member: Member) -> list[str]:
    """Overrides of scripts/evaluate.py."""
    from l2e.cli.preparation.overrides import quoted

    return [f"path={quoted(member.run)}"]


def report(file: str) -> Path:
    """Write one report about the members that have something to tell, beside `file`.

    Returns:
        The path of report.html.

    Raises:
        UserError: no member has a run directory.
    """
    from l2e.cli.sweeps.study import write_study

    return write_study(read(file), Path(file).parent)


def show(members: "Sequence[Planned]") -> None:
    """Say what the sweep is and what it costs, before anything is submitted."""
    from l2e.cli.sweeps.cost import cost, speeds_on_a_cluster
    from l2e.cli.sweeps.state import state_of
    from l2e.cli.sweeps.statement import cost_lines, member_table
    from l2e.cli.sweeps.study import baseline_line

    texts = [
        member_table(members, [state_of(member).text for member in members]),
        cost_lines(cost(members, speeds_on_a_cluster()), ranks=None),
        baseline_line([member.overrides for member in members]),
    ]
    print("\n".join(text for text in texts if text), file=sys.stderr)


def main(arguments: list[str]) -> None:
    """Run one of the commands above; wrong use and bad settings end with exit code 2 and one line."""
    stage: dict[str, Callable[[Member], list[str]]] = {"train": training, "evaluate": evaluation}
    match arguments:
        case ["plan", "--dry-run", name, *overrides]:
            _plan(name, overrides, dry_run=True)
        case ["plan", name, *overrides]:
            _plan(name, overrides)
        case ["train" | "evaluate" as command, file, index]:
            members = read(file)
            if int(index) >= len(members):
                raise UserError(f"{file} has {len(members)} members, from 0; there is no member {index}")
            sys.stdout.write("".join(f"{override}\0" for override in stage[command](members[int(index)])))
        case ["report", file]:
            logging.basicConfig(format="%(message)s")
            print(f"report: {report(file)}")
        case _:
            raise UserError(f"wrong arguments; these exist:\n{__doc__}")


def _plan(name: str, overrides: Sequence[str], *, dry_run: bool = False) -> None:
    file, members = plan(name, overrides, dry_run=dry_run)
    show(members)
    print(f"{file}\n{len(members)}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)

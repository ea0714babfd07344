"""A grid of runs as one job array: what slurm/sweep.sh and the array's tasks ask for.

python -m l2e.cli.sweep plan [--dry-run] NAME overrides...   write the members; print the file and how many there are
python -m l2e.cli.sweep train FILE INDEX                     a member's overrides for scripts/pretrain.py
python -m l2e.cli.sweep evaluate FILE INDEX                  the same for scripts/evaluate.py
python -m l2e.cli.sweep report FILE                          one report, failed members named

Overrides are printed with a zero byte after each, so that every character survives the shell.
"""

import json
import logging
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from l2e.cli.entry import BAD_INPUT, compose, swept
from l2e.errors import UserError
from l2e.files import write_atomically


@dataclass(frozen=True)
class Member:
    """One run of a sweep."""

    run: str
    """Its run directory."""

    steps: int
    """Updates that it makes."""

    overrides: list[str]
    """For scripts/pretrain.py."""


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """The grid as `--multirun` would run it: the product of all sweeps, the last one changing fastest.

    An experiment may bring its own grid (hydra.sweeper.params), which comes first; an override of it wins.

    Raises:
        UserError: what Hydra cannot parse or compose, a sweep over a continuous interval, a setting given twice.
    """
    try:
        given = OverridesParser.create().parse_overrides(overrides=list(overrides))
        keys = Counter(override.get_key_element() for override in given)
        if max(keys.values(), default=1) > 1:
            raise UserError(f"{keys.most_common(1)[0][0]} is given more than once; give all its values in one override")
        fixed = [override.input_line for override in given if not override.is_sweep_override()]
        grid = [f"{key}={values}" for key, values in swept("pretrain", fixed).items()]
        parsed = OverridesParser.create().parse_overrides(overrides=[*grid, *overrides])
        (members,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    except HydraException as error:
        raise UserError(" ".join(str(error).split())) from None
    return members


def plan(name: str, overrides: Sequence[str], *, dry_run: bool = False) -> tuple[Path, list[Member]]:
    """Expand and check a sweep, and write `runs_dir/NAME/members.json` unless it is a dry run.

    Raises:
        UserError: a member that cannot run, two that would share a run directory, or another sweep of that name.
    """
    members = [_member(each) for each in expand(overrides)]
    run, sharing = Counter(member.run for member in members).most_common(1)[0]
    if sharing > 1:
        varied = [each for each in members[0].overrides if each not in members[-1].overrides]
        raise UserError(
            f"{sharing} members would share the run directory {run}; "
            f"give a name=... that tells them apart, e.g. 'name={name}-{_distinct(varied)}'"
        )
    folders = {str(Path(member.run).parent) for member in members}
    if len(folders) > 1:
        raise UserError(f"runs_dir: the members of a sweep share one, not {', '.join(sorted(folders))}")
    file = Path(folders.pop()) / name / "members.json"
    text = json.dumps([asdict(member) for member in members], indent=1) + "\n"
    if file.exists() and file.read_text() != text:
        raise UserError(f"{file} is another sweep; choose another name, or remove it")
    if (file.parent / "config.yaml").exists():
        raise UserError(f"{file.parent} is a run directory; choose another name for the sweep")
    if not dry_run:
        write_atomically(file, text)
    return file, members


def read(file: str) -> list[Member]:
    """The members that `plan` wrote."""
    try:
        return [Member(**entry) for entry in json.loads(Path(file).read_text())]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{file} is no sweep ({error}); slurm/sweep.sh writes it") from None


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
    from l2e.reporting import write_report

    members = read(file)
    started = [Path(member.run) for member in members if (Path(member.run) / "config.yaml").exists()]
    if not started:
        raise UserError(f"{file}: no member of the sweep has got as far as a run directory; see the logs of its jobs")
    return write_report(started, Path(file).parent, notes=[note for member in members for note in _notes(member)])


def _member(overrides: list[str]) -> Member:
    from l2e.cli.pretrain_config import PretrainConfig
    from l2e.settings import build_settings

    try:
        config = build_settings(PretrainConfig, compose("pretrain", overrides))
    except UserError as error:
        raise UserError(f"{' '.join(overrides)}: {error}") from None
    return Member(str(Path(config.runs_dir) / config.name), config.training.steps, overrides)


def _distinct(varied: Sequence[str]) -> str:
    keys = [override.split("=")[0].lstrip("+") for override in varied]
    return "-".join(f"${{{'inhibition.method' if key == 'inhibition' else key}}}" for key in keys)


def _notes(member: Member) -> list[str]:
    """What is missing of a member."""
    run = Path(member.run)
    if not (run / "config.yaml").exists():
        return [f"{run.name}: failed before training began; it is not in this report"]
    if not (run / "hf" / f"step{member.steps}").exists():
        return [f"{run.name}: not trained to the end ({member.steps} updates)"]
    if not (run / "eval" / f"step{member.steps}" / "summary.json").exists():
        return [f"{run.name}: not evaluated after {member.steps} updates"]
    return []


def main(arguments: list[str]) -> None:
    """Run one of the commands above; wrong use and bad settings end with exit code 2 and one line."""
    stage: dict[str, Callable[[Member], list[str]]] = {"train": training, "evaluate": evaluation}
    match arguments:
        case ["plan", "--dry-run", name, *overrides]:
            _show(*plan(name, overrides, dry_run=True))
        case ["plan", name, *overrides]:
            _show(*plan(name, overrides))
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


def _show(file: Path, members: list[Member]) -> None:
    for number, member in enumerate(members):
        print(f"{number:4d}  {member.run}  {' '.join(member.overrides)}", file=sys.stderr)
    print(f"{file}\n{len(members)}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)

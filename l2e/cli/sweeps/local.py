"""--multirun on this machine: the members of a grid one after another, each in a process of its own.

A process of its own, because what ends a member (a wrong setting, an exception, a broken CUDA context, the kernel for
want of memory) must not end the others. Started by torchrun or srun, every rank runs the same members in the same
order, and the ranks of each member find each other as those of a single run do.
"""

import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from l2e.cli.entry import FAILED, REASON, STOPPED
from l2e.cli.sweeps.child import Children, of_member, reason
from l2e.cli.sweeps.cost import cost, speeds_here
from l2e.cli.sweeps.grid import Planned, expand, last_of_each, plan_each
from l2e.cli.sweeps.state import state_of
from l2e.cli.sweeps.statement import cost_lines, member_table
from l2e.cli.sweeps.study import baseline_line, report_folder, table_of, write_study
from l2e.errors import UserError
from l2e.training.launch import launched

_WAITING, _DONE, _FAILED, _STOPPED = "not started", "done", "failed: ", "stopped"


def run(arguments: Sequence[str]) -> int:
    """Run the grid of these overrides; say before it what it is and costs, and after it what became of it.

    Members that are done already are skipped. One that fails does not keep the others from running; a signal ends all.

    Returns:
        The exit code: 0, 1 when a member failed, 85 when a signal stopped the sweep (130 for Ctrl-C).

    Raises:
        UserError: no member can run, two share a run directory, or the grid cannot be expanded.
    """
    members = plan_each(expand(last_of_each(arguments)))
    if all(member.problem for member in members):
        raise UserError(members[0].problem)
    states = [state_of(member) for member in members]
    _say(f"Sweep of {len(members)} runs, {sum(state.done for state in states)} done already")
    _say(member_table(members, [state.text for state in states]))
    _say_cost(members)
    if line := baseline_line([member.overrides for member in members if not member.problem]):
        _say(line)
    outcomes = [_DONE if state.done else _WAITING for state in states]
    code = _run_each(members, outcomes)
    _say("")
    _say(member_table(members, outcomes))
    _say_failures(members, outcomes)
    if code:
        _say("\nStopped as asked; the same command goes on.")
        return code
    return max(_report(members), FAILED if any(map(_has_failed, outcomes)) else 0)


def _run_each(members: Sequence[Planned], outcomes: list[str]) -> int:
    """Run what waits, and note in `outcomes` what became of it; the exit code of a sweep that was stopped, else 0."""
    with Children() as children, tempfile.TemporaryDirectory() as folder:
        for number, member in enumerate(members):
            if outcomes[number] == _DONE:
                continue
            if member.problem:
                outcomes[number] = _FAILED + reason(0, member.problem)
                continue
            _say(f"\n[{number}] {member.name}")
            told = Path(folder) / str(number)
            environment = of_member(os.environ, number) | {REASON: str(told)}
            code = children.run([sys.executable, sys.argv[0], *member.overrides], environment)
            if children.stopped is not None or code == STOPPED:
                outcomes[number] = _STOPPED if code else _DONE
                return 128 + signal.SIGINT if children.stopped == signal.SIGINT else STOPPED
            outcomes[number] = _FAILED + reason(code, told.read_text() if told.exists() else "") if code else _DONE
            if left := [each for each, outcome in zip(members, outcomes, strict=True) if outcome == _WAITING]:
                _say_cost(left)
    return 0


def _say_cost(members: Sequence[Planned]) -> None:
    ranks = launched().ranks
    _say(cost_lines(cost(members, speeds_here(ranks)), ranks))


def _say_failures(members: Sequence[Planned], outcomes: Sequence[str]) -> None:
    failed = [member for member, outcome in zip(members, outcomes, strict=True) if _has_failed(outcome)]
    if failed:
        _say(f"\n{len(failed)} of {len(members)} members failed. The same command runs what is missing; or each alone:")
        for member in failed:
            _say(f"  python {sys.argv[0]} {shlex.join(member.overrides)}")


def _report(members: Sequence[Planned]) -> int:
    """Write the report of a table, or say how to get one of these runs; the exit code."""
    there = [member for member in members if member.config is not None and member.folder.config.exists()]
    if launched().rank != 0 or not there:
        return 0
    table = table_of([member.overrides for member in members])
    if table is None:
        runs = ",".join(str(member.folder.path) for member in there)
        _say(f"\nSide by side: python scripts/report.py 'runs=[{runs}]' output=report")
        return 0
    try:
        written = write_study([member.record for member in members if member.config], report_folder(members, table))
    except UserError as error:
        _say(f"error: no report: {error}")
        return FAILED
    _say(f"\nreport: {written}")
    return 0


def _has_failed(outcome: str) -> bool:
    return outcome.startswith(_FAILED)


def _say(text: str) -> None:
    """To the reader, by one process of several."""
    if launched().rank == 0:
        print(text, file=sys.stderr, flush=True)

"""How far the members of a sweep are, from their run directories alone."""

from dataclasses import dataclass

from l2e.cli.evaluate_exports import is_evaluated
from l2e.cli.pretrain_config import PretrainConfig
from l2e.cli.run_folder import RunFolder
from l2e.cli.sweeps.grid import Planned
from l2e.errors import UserError
from l2e.training.restart_points import restart_points


@dataclass(frozen=True)
class State:
    """Where a member stands.

    Attributes:
        text: for the reader.
        done: nothing is left to do.
        updates: that are left.
    """

    text: str
    done: bool
    updates: int


def state_of(member: Planned) -> State:
    """Where a member stands; nothing is loaded for it."""
    if member.config is None or member.problem:
        return State(f"cannot run: {member.problem}", False, 0)
    config, folder = member.config, member.folder
    steps = config.training.steps
    if config.training.dry_run:
        return State("dry run", False, 0)
    if folder.export(steps).exists():
        done = _evaluated(config, folder)
        return State("done" if done else "trained, not evaluated", done, 0)
    reached = max((point.step for point in restart_points(folder.checkpoints)), default=0)
    return State(f"goes on after {reached:,} of {steps:,}" if reached else "to run", False, steps - reached)


def _evaluated(config: PretrainConfig, folder: RunFolder) -> bool:
    evaluation = config.evaluation
    if not evaluation.enabled or evaluation.separate:
        return True
    asked = [0, config.training.steps] if evaluation.initial else [config.training.steps]
    try:
        done = all(is_evaluated(folder.evaluation(step), evaluation) for step in asked)
        return done and (
            not evaluation.inhibited or is_evaluated(folder.evaluation(asked[-1], inhibited=True), evaluation)
        )
    except (UserError, OSError, ValueError, KeyError):  # half written: the run itself says what is wrong with it
        return False

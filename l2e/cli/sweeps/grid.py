"""The members of a sweep: the grid that --multirun stands for, each with its checked settings."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from l2e.cli.entry import compose, swept
from l2e.cli.pretrain_config import PretrainConfig
from l2e.cli.run_folder import RunFolder
from l2e.cli.sweeps.record import Member
from l2e.errors import UserError
from l2e.settings import build_settings


@dataclass(frozen=True)
class Planned:
    """One run of a grid."""

    overrides: list[str]
    """For scripts/pretrain.py."""

    config: PretrainConfig | None
    """Its settings; None where they are refused."""

    problem: str = ""
    """Why it cannot run: refused settings, or a run directory that holds something else."""

    @property
    def folder(self) -> RunFolder:
        """Its run directory."""
        assert self.config is not None, self.problem
        return RunFolder(self.config.runs_dir, self.config.name)

    @property
    def record(self) -> Member:
        """What is kept of it."""
        assert self.config is not None, self.problem
        return Member(str(self.folder.path), self.config.training.steps, self.overrides)

    @property
    def name(self) -> str:
        """Of the run, or the overrides where they do not compose."""
        return " ".join(self.overrides) if self.config is None else self.config.name


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """The grid as `--multirun` would run it: the product of all sweeps, the last one changing fastest.

    An experiment may bring its own grid (hydra.sweeper.params), which comes first; an override of it wins.

    Raises:
        UserError: what Hydra cannot parse or compose, a sweep over a continuous interval, a setting given twice.
    """
    given = _parsed(overrides)
    keys = Counter(override.get_key_element() for override in given)
    if max(keys.values(), default=1) > 1:
        raise UserError(f"{keys.most_common(1)[0][0]} is given more than once; give all its values in one override")
    fixed = [override.input_line for override in given if not override.is_sweep_override()]
    grid = [f"{key}={values}" for key, values in swept("pretrain", [str(each) for each in fixed]).items()]
    try:
        (members,) = BasicSweeper.split_arguments(_parsed([*grid, *overrides]), max_batch_size=None)
    except HydraException as error:
        raise UserError(" ".join(str(error).split())) from None
    return members


def last_of_each(overrides: Sequence[str]) -> list[str]:
    """Of overrides of one key the last, as Hydra takes it."""
    return list({override.get_key_element(): str(override.input_line) for override in _parsed(overrides)}.values())


def plan_each(members: Sequence[list[str]], name: str = "sweep") -> list[Planned]:
    """The members with their settings, or what is wrong with those.

    Args:
        members: overrides of each.
        name: of the sweep, for the message.

    Raises:
        UserError: two members would share a run directory, or have run directories in different places.
    """
    found = [_planned(overrides) for overrides in members]
    composed = [one for one in found if one.config is not None]
    _refuse_shared(composed, name)
    folders = sorted({str(one.folder.path.parent) for one in composed})
    if len(folders) > 1:
        raise UserError(f"runs_dir: the members of a sweep share one, not {', '.join(folders)}")
    return found


def settings_of(overrides: Sequence[str]) -> PretrainConfig:
    """What scripts/pretrain.py would run; UserError if it would refuse the settings."""
    return build_settings(PretrainConfig, compose("pretrain", list(overrides)))


def _planned(overrides: list[str]) -> Planned:
    try:
        config = settings_of(overrides)
    except UserError as error:
        return Planned(overrides, None, str(error))
    planned = Planned(overrides, config)
    try:
        planned.folder.check(asdict(config))
    except UserError as error:
        return Planned(overrides, config, str(error))
    return planned


def _refuse_shared(members: Sequence[Planned], name: str) -> None:
    """Raise UserError where two members have one run directory, saying what would tell them apart."""
    ((run, sharing),) = Counter(str(one.folder.path) for one in members).most_common(1) or [("", 0)]
    if sharing > 1:
        varied = [each for each in members[0].overrides if each not in members[-1].overrides]
        raise UserError(
            f"{sharing} members would share the run directory {run}; "
            f"give a name=... that tells them apart, e.g. 'name={name}-{_distinct(varied)}'"
        )


def _parsed(overrides: Sequence[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(overrides=list(overrides))
    except HydraException as error:
        raise UserError(" ".join(str(error).split())) from None


def _distinct(varied: Sequence[str]) -> str:
    keys = [override.split("=")[0].lstrip("+") for override in varied]
    return "-".join(f"${{{'inhibition.method' if key == 'inhibition' else key}}}" for key in keys)

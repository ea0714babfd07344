"""From a command line to a run: composition, one-line errors, exit codes.

Nothing heavy is imported here, so that a wrong setting fails at once and `offline` is in force before the
first library that could ask a hub is loaded.
"""

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from l2e.cli import by_model  # noqa: F401  (a resolver of the YAML files)
from l2e.errors import LostRankError, RunError, Stopped, UserError
from l2e.lazy import named
from l2e.settings import build_settings
from l2e.training.launch import launched

CONFIGS = Path(__file__).parents[2] / "configs"
FAILED = 1
BAD_INPUT = 2
STOPPED = 85  # by a signal, after a restart point: run me again. No shell or launcher uses this number.

REASON = "L2E_REASON"
"""Environment variable: a file that shall hold the message with which a run ends; for who started it."""

_SWEEPS = {"l2e.cli.pretrain:run": "l2e.cli.sweeps.local:run"}
"""Targets that --multirun does not leave to Hydra, whose own launcher ends a sweep at the first member that exits."""

# Two OpenMP threads that spin while they wait collapse when another process wants a core: a 2-core machine
# under load took 1150 ms for what passive waiting does in 152 ms and one thread in 313 ms. Read by the
# OpenMP library when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def main(config_name: str, target: str, settings: str | None = None) -> None:
    """Compose `configs/<config_name>.yaml` with the command line and call `target`.

    Args:
        config_name: name of the script's YAML file.
        target: "module:function", called with (tree, overrides): the resolved settings as plain dicts and
            the overrides as given. It is imported only when composition has succeeded.
        settings: "module:dataclass" that the tree must fit, where it can be told without importing `target`.

    Exits with 2 and one line for bad input or settings, with 85 after a signal, with 1 and one line when the
    run cannot go on; other exceptions keep their traceback.
    """
    arguments = _without_local_rank(sys.argv[1:])
    if target in _SWEEPS and (grid := _sweep_asked_for(arguments)) is not None:
        sys.exit(_sweep(_SWEEPS[target], grid))
    sys.argv[1:] = [_allow_any_setting(argument) for argument in arguments]
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # exceptions reach us instead of Hydra's own printing

    @hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config_name)
    def task(config: DictConfig) -> None:
        try:
            _call(target, config, settings)
        except UserError as error:
            _fail(str(error))
        except OmegaConfBaseException as error:
            _fail(_one_line(error))
        except Stopped:
            sys.exit(STOPPED)
        except RunError as error:
            _end(str(error))
        except LostRankError as error:
            _abandon(str(error))
        except Exception as error:
            _leave_reason(f"{type(error).__name__}: {error}")
            raise

    try:
        task()
    except (HydraException, OmegaConfBaseException) as error:
        _fail(_one_line(error))


def _sweep_asked_for(arguments: list[str]) -> list[str] | None:
    """The overrides after --multirun; None for one run, and for what Hydra answers or launches itself."""
    given = get_args_parser().parse_args(arguments)
    asked = (given.help, given.hydra_help, given.cfg, given.info, given.shell_completion, given.experimental_rerun)
    if not given.multirun or any(asked) or any(each.startswith("hydra/launcher=") for each in given.overrides):
        return None
    if given.config_path or given.config_name or given.config_dir:
        _fail("a sweep takes overrides alone: leave out --config-path, --config-name and --config-dir")
    return list(given.overrides)


def _sweep(target: str, grid: list[str]) -> int:
    try:
        return named(target)(grid)
    except UserError as error:
        _fail(str(error))


def _call(target: str, config: DictConfig, settings: str | None) -> None:
    tree = _resolved(config)
    if tree.get("offline"):
        os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if settings is not None:
        build_settings(named(settings), tree)
    named(target)(tree, [given.lstrip("+") for given in HydraConfig.get().overrides.task])


def _resolved(config: DictConfig) -> Any:
    for key in _missing(OmegaConf.to_container(config, resolve=False)):
        raise UserError(f"{key}: a value is required, give {key}=... on the command line")
    return OmegaConf.to_container(config, resolve=True)


def compose(config_name: str, overrides: list[str]) -> dict[str, Any]:
    """The resolved settings that a script would get, without running it.

    Raises:
        UserError: what cannot be composed, in one line.
    """
    return _one_line_errors(lambda: _resolved(_composed(config_name, overrides)))


def swept(config_name: str, overrides: list[str]) -> dict[str, str]:
    """What --multirun would vary by the configuration itself (hydra.sweeper.params), as key and values.

    Raises:
        UserError: what cannot be composed, in one line.
    """
    config = _one_line_errors(lambda: _composed(config_name, overrides, return_hydra_config=True))
    return dict(config.hydra.sweeper.params or {})


def _composed(config_name: str, overrides: list[str], **how: bool) -> DictConfig:
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return hydra.compose(config_name, [_allow_any_setting(override) for override in overrides], **how)


def _one_line_errors(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_one_line(error)) from None


def _missing(tree: Any, where: str = "") -> Iterator[str]:
    """Keys whose value is `???`."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _missing(value, f"{where}.{key}" if where else key)
    elif tree == "???":
        yield where


def _without_local_rank(arguments: list[str]) -> list[str]:
    """The deepspeed launcher passes --local_rank=N besides the environment variable; Hydra knows no such flag."""
    return [argument for argument in arguments if not re.fullmatch(r"--local[_-]rank=\d+", argument)]


def _allow_any_setting(argument: str) -> str:
    """Let an override name a setting that no YAML file spells out.

    The YAML files hold only what differs from the dataclasses' defaults, and Hydra would refuse the rest;
    the dataclasses refuse what they do not know, and name what they do.
    """
    key = re.match(r"([A-Za-z_][\w.]*)=", argument)
    if key is None or key[1].startswith("hydra.") or (CONFIGS / key[1]).is_dir():
        return argument
    return f"++{argument}"


def _one_line(error: Exception) -> str:
    """Hydra's message on one line, without its search path and OmegaConf's appendix, the key first."""
    text = re.split(r"Config search path:|\n\s*full_key:", str(error))[0]
    text = " ".join(text.removeprefix("ValueError raised while resolving interpolation: ").split())
    key = re.search(r"full_key: (\S+)", str(error))
    return f"{key[1]}: {text}" if key and key[1] not in text else text


def _end(message: str) -> None:
    """End a run that has failed on every rank: one of them tells why."""
    _leave_reason(message)
    if _rank() == 0:
        print(f"error: {message}", file=sys.stderr)
    sys.exit(FAILED)


def _abandon(message: str) -> None:
    """End without the usual tidying up, which could wait for a process that is no more."""
    _leave_reason(message)
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(FAILED)


def _fail(message: str) -> NoReturn:
    _leave_reason(message)
    rank = _rank()
    print(f"error on rank {rank}: {message}" if rank else f"error: {message}", file=sys.stderr)
    sys.exit(BAD_INPUT)


def _leave_reason(message: str) -> None:
    if REASON in os.environ:
        Path(os.environ[REASON]).write_text(message, encoding="utf-8")


def _rank() -> int:
    with suppress(UserError):  # which may be the very message to tell
        return launched().rank
    return 0

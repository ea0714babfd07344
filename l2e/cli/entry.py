"""From a command line to a run: composition, one-line errors, exit codes.

Nothing heavy is imported here, so that a wrong setting fails at once and `offline` is in force before the
first library that could ask a hub is loaded.
"""

import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from l2e.cli import by_model  # noqa: F401  (a resolver of the YAML files)
from l2e.errors import LostRankError, RunError, Stopped, UserError
from l2e.training.launch import launched

CONFIGS = Path(__file__).parents[2] / "configs"
FAILED = 1
BAD_INPUT = 2
STOPPED = 85  # by a signal, after a restart point: run me again. No shell or launcher uses this number.

# Two OpenMP threads that spin while they wait collapse when another process wants a core: a 2-core machine
# under load took 1150 ms for what passive waiting does in 152 ms and one thread in 313 ms. Read by the
# OpenMP library when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def main(config_name: str, target: str) -> None:
    """Compose `configs/<config_name>.yaml` with the command line and call `target`.

    Args:
        config_name: name of the script's YAML file.
        target: "module:function", called with (tree, overrides): the resolved settings as plain dicts and
            the overrides as given. It is imported only when composition has succeeded.

    Exits with 2 and one line for bad input or settings, with 85 after a signal, with 1 and one line when the
    run cannot go on; other exceptions keep their traceback.
    """
    sys.argv[1:] = [_allow_any_setting(argument) for argument in _without_local_rank(sys.argv[1:])]
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # exceptions reach us instead of Hydra's own printing

    @hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config_name)
    def task(config: DictConfig) -> None:
        try:
            _call(target, config)
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

    try:
        task()
    except (HydraException, OmegaConfBaseException) as error:
        _fail(_one_line(error))


def _call(target: str, config: DictConfig) -> None:
    tree = _resolved(config)
    if tree.get("offline"):
        os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    module, function = target.split(":")
    getattr(importlib.import_module(module), function)(
        tree, [given.lstrip("+") for given in HydraConfig.get().overrides.task]
    )


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
    if _rank() == 0:
        print(f"error: {message}", file=sys.stderr)
    sys.exit(FAILED)


def _abandon(message: str) -> None:
    """End without the usual tidying up, which could wait for a process that is no more."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(FAILED)


def _fail(message: str) -> None:
    rank = _rank()
    print(f"error on rank {rank}: {message}" if rank else f"error: {message}", file=sys.stderr)
    sys.exit(BAD_INPUT)


def _rank() -> int:
    with suppress(UserError):  # which may be the very message to tell
        return launched().rank
    return 0

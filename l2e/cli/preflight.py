"""Refuse what cannot run before the ranks of a cluster's job start; slurm/pretrain.sbatch calls it."""

from dataclasses import asdict
from typing import Any

from l2e.cli.pretrain import check
from l2e.cli.pretrain_config import PretrainConfig
from l2e.cli.run_folder import RunFolder
from l2e.settings import build_settings


def run(tree: dict[str, Any], overrides: list[str]) -> None:
    """Check as scripts/pretrain.py does at its start, for the ranks that the environment tells of; change nothing.

    Prints the run directory, as the last line.

    Raises:
        UserError: settings that scripts/pretrain.py would refuse.
    """
    config = build_settings(PretrainConfig, tree)
    folder = RunFolder(config.runs_dir, config.name)
    check(config, folder, asdict(config))
    print(folder.path)

"""Convert a restart point; the entry of scripts/convert.py."""

from pathlib import Path
from typing import Any

from l2e.cli.convert_config import ConvertConfig
from l2e.cli.logs import quieten_libraries, start_logging
from l2e.settings import build_settings
from l2e.training.convert import convert_restart_point
from l2e.training.restart_points import find


def run(tree: dict[str, Any], overrides: list[str]) -> None:
    """Write `step<N>-universal` beside the restart point."""
    config = build_settings(ConvertConfig, tree)
    start_logging()
    quieten_libraries()
    point = find(Path(config.run) / "checkpoints", config.step, universal=False)
    print(f"converted: {convert_restart_point(point)}; any ranks and any deepspeed.stage can go on from it")

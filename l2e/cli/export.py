"""Export a restart point; the entry of scripts/export.py."""

from pathlib import Path
from typing import Any

import torch
import yaml

from l2e.cli.export_config import ExportConfig
from l2e.cli.logs import quieten_libraries, start_logging
from l2e.cli.pretrain_config import PretrainConfig
from l2e.data import open_tokenizer
from l2e.errors import UserError
from l2e.inhibition import acts_at_test
from l2e.models import DTYPES, build_pythia, export
from l2e.settings import build_settings
from l2e.training.convert import whole_weights
from l2e.training.restart_points import TRAINER_FILE, RestartPoint, find, verified


def run(tree: dict[str, Any], overrides: list[str]) -> None:
    """Write model, tokenizer and manifest.

    Raises:
        UserError: no run, no such restart point, a damaged one, or an output that exists.
    """
    config = build_settings(ExportConfig, tree)
    start_logging()
    quieten_libraries()
    folder = Path(config.run)
    if not (folder / "config.yaml").is_file():
        raise UserError(f"run: {folder} holds no run (no config.yaml)")
    point = find(folder / "checkpoints", config.step)
    output = Path(config.output) if config.output else folder / "hf" / f"step{point.step}"
    if output.exists():
        raise UserError(f"output: {output} exists; remove it or give another output=...")
    manifest = verified(point)
    settings = build_settings(PretrainConfig, yaml.safe_load((folder / "config.yaml").read_text()))
    weights = whole_weights(point.folder, manifest["stage"], point.universal)
    model = build_pythia(**vars(settings.model))
    model.load_state_dict(weights)
    tokenizer = open_tokenizer(settings.data, settings.vocab_size, Path(settings.cache_dir))
    facts = {key: value for key, value in manifest.items() if key not in ("files", "sha256")}
    output.parent.mkdir(parents=True, exist_ok=True)
    export(
        model.to(DTYPES[manifest["precision"]]),
        tokenizer,
        output,
        {**facts, "kind": "export"},
        _inhibition_state(settings, point),
    )
    print(f"exported: {output}")


def _inhibition_state(settings: PretrainConfig, point: RestartPoint) -> dict[str, Any] | None:
    """Of a method that can act at test time."""
    if not acts_at_test(settings.inhibition.method):
        return None
    state = torch.load(point.folder / TRAINER_FILE, map_location="cpu", weights_only=False)
    return state["callbacks"]["inhibition"]

"""Export a restart point; the entry of scripts/export.py."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from l2e.cli.logs import quieten_libraries, start_logging
from l2e.cli.pretrain_config import PretrainConfig
from l2e.data import open_corpus
from l2e.errors import UserError
from l2e.inhibition import acts_at_test
from l2e.models import build_pythia, export
from l2e.settings import build_settings
from l2e.training.convert import whole_weights
from l2e.training.restart_points import TRAINER_FILE, RestartPoint, find, verified

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(kw_only=True)
class ExportConfig:
    """Which restart point, and where to."""

    run: str
    """Run directory."""

    step: int | None
    """Of the restart point; null takes the newest."""

    output: str | None
    """Folder to make; null is `<run>/hf/step<N>`."""

    offline: bool
    """Ask no hub for anything."""


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
    corpus = open_corpus(
        settings.data,
        seq_length=settings.training.seq_length,
        vocab_size=settings.vocab_size,
        cache_dir=Path(settings.cache_dir),
        offline=config.offline,
    )
    facts = {key: value for key, value in manifest.items() if key not in ("files", "sha256")}
    output.parent.mkdir(parents=True, exist_ok=True)
    export(
        model.to(_DTYPES[manifest["precision"]]),
        corpus.tokenizer,
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

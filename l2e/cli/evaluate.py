"""Evaluate a Hugging Face model folder; the entry of scripts/evaluate.py."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from l2e.cli.logs import quieten_libraries, start_logging
from l2e.cli.offline import require_items_here
from l2e.errors import UserError
from l2e.evaluation import EvaluationConfig, check_evaluation_data, evaluate
from l2e.settings import build_settings


@dataclass(kw_only=True)
class EvaluateConfig:
    """What is evaluated, on what, and where the results go."""

    path: str
    """Folder with model and tokenizer."""

    output: str
    """Folder of the results."""

    offline: bool
    """Ask no hub for anything."""

    evaluation: EvaluationConfig


def run(tree: dict[str, Any], overrides: list[str]) -> None:
    """Evaluate and write the results."""
    config = build_settings(EvaluateConfig, tree)
    folder = Path(config.path)
    if not (folder / "config.json").is_file():
        raise UserError(f"path: {folder} holds no model (no config.json); give a folder such as runs/<name>/hf/step<N>")
    if config.offline:
        require_items_here(config.evaluation)
    check_evaluation_data(config.evaluation)
    start_logging()
    quieten_libraries()
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    evaluate(
        model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer, config.evaluation, Path(config.output)
    )

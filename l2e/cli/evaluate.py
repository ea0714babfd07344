"""Evaluate a run's exports, or one Hugging Face model folder; the entry of scripts/evaluate.py."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from l2e.cli.logs import quieten_libraries, start_logging
from l2e.cli.offline import require_all_here, require_items_here
from l2e.cli.pretrain_config import PretrainConfig
from l2e.cli.run_data import check_items, open_data, with_items
from l2e.cli.run_folder import RunFolder
from l2e.data import Corpus
from l2e.errors import UserError
from l2e.evaluation import EvaluationConfig, check_evaluation_data, evaluate
from l2e.reporting import write_report
from l2e.settings import build_settings

log = logging.getLogger("l2e")


@dataclass(kw_only=True)
class EvaluateConfig:
    """What is evaluated, on what, and where the results go."""

    path: str
    """A run directory, or a folder with model and tokenizer."""

    output: str | None
    """Folder of the results; null for a run directory, which keeps its own."""

    offline: bool
    """Ask no hub for anything."""

    evaluation: EvaluationConfig
    """For a run directory only if the command line says anything about it; else the run's own settings."""


def run(tree: dict[str, Any], overrides: list[str]) -> None:
    """Evaluate and write the results."""
    config = build_settings(EvaluateConfig, tree)
    folder = Path(config.path)
    start_logging()
    quieten_libraries()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if (folder / "config.yaml").is_file():
        _evaluate_run(config, tree, overrides, device)
        return
    if not (folder / "config.json").is_file():
        raise UserError(
            f"path: {folder} holds no model (no config.json) and is no run directory (no config.yaml); "
            f"give a folder such as runs/<name> or runs/<name>/hf/step<N>"
        )
    if config.output is None:
        raise UserError("output: a value is required for a model folder, give output=... on the command line")
    if config.offline:
        require_items_here(config.evaluation)
    check_evaluation_data(config.evaluation)
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    evaluate(model.to(device), tokenizer, config.evaluation, Path(config.output))


def evaluate_exports(config: PretrainConfig, folder: RunFolder, corpus: Corpus, device: torch.device) -> None:
    """Evaluate the exports that the run's settings ask for and that have no results yet.

    Raises:
        UserError: one of them is not there.
    """
    settings = with_items(config.evaluation, corpus)
    for step in [0, config.training.steps] if config.evaluation.initial else [config.training.steps]:
        output = folder.evaluation(step)
        if (output / "summary.json").exists():
            continue
        if not folder.export(step).exists():
            raise UserError(f"{folder.export(step)} does not exist: the run has not got there, or did not export it")
        log.info("evaluating step %d on %s", step, ", ".join(settings.tasks))
        model = AutoModelForCausalLM.from_pretrained(folder.export(step)).to(device)
        evaluate(model, corpus.tokenizer, settings, output, max_length=config.model.max_length)


def _evaluate_run(config: EvaluateConfig, tree: dict[str, Any], overrides: list[str], device: torch.device) -> None:
    if config.output is not None:
        raise UserError(f"output: the results of a run go to {config.path}/eval; leave output out")
    held = yaml.safe_load((Path(config.path) / "config.yaml").read_text())
    if any(override.startswith("evaluation") for override in overrides):
        held["evaluation"] = tree["evaluation"]
    held["offline"] = held["offline"] or config.offline
    run_config = build_settings(PretrainConfig, held)
    folder = RunFolder(str(Path(config.path).parent), Path(config.path).name)
    if run_config.offline:
        require_all_here(run_config, run_config.training.steps)
    if run_config.evaluation.data_dir is not None:
        check_evaluation_data(run_config.evaluation)
    corpus = open_data(run_config)
    check_items(run_config, corpus)
    evaluate_exports(run_config, folder, corpus, device)
    log.info("report: %s", write_report([folder.path], folder.path))

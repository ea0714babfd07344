"""Evaluate a run's exports, or one Hugging Face model; the entry of scripts/evaluate.py."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import yaml
from huggingface_hub import try_to_load_from_cache
from transformers import AutoModelForCausalLM, AutoTokenizer

from l2e.cli.evaluate_config import EvaluateConfig
from l2e.cli.evaluate_exports import evaluate_exports, inhibition_of
from l2e.cli.logs import quieten_libraries, start_logging
from l2e.cli.offline import require_all_here, require_items_here
from l2e.cli.pretrain_config import PretrainConfig
from l2e.cli.processes import processes
from l2e.cli.reference import compare_with_reference
from l2e.cli.run_data import check_items, open_data
from l2e.cli.run_folder import RunFolder
from l2e.errors import UserError
from l2e.evaluation import EvaluationConfig, Evaluator, check_evaluation_data
from l2e.evaluation.results import INHIBITED
from l2e.models import read_inhibition
from l2e.reporting import write_report
from l2e.reporting.reference import check_settings, reference
from l2e.settings import build_settings

log = logging.getLogger("l2e")


def run(tree: dict[str, Any], overrides: list[str]) -> None:
    """Evaluate and write the results; under torchrun or srun the ranks share the items.

    Raises:
        UserError: no model, unusable items, or settings that do not go together.
        RunError: accuracies that are not the published ones of the reference.
    """
    config = build_settings(EvaluateConfig, tree)
    start_logging()
    quieten_libraries()
    is_run = (Path(config.place) / "config.yaml").is_file()
    _check(config, is_run)
    with processes() as device:
        if is_run:
            _evaluate_run(config, tree, overrides, device)
        else:
            _evaluate_model(config, device)


def _revision(config: EvaluateConfig) -> str:
    """Of a model on the hub."""
    if config.revision is not None:
        return config.revision
    return reference(config.reference).revision if config.path is None and config.reference is not None else "main"


def _check(config: EvaluateConfig, is_run: bool) -> None:
    """What can be refused before anything is loaded."""
    if config.reference is not None:
        check_settings(reference(config.reference), config.evaluation)
    if is_run:
        if config.output is not None:
            raise UserError(f"output: the results of a run go to {config.path}/eval; leave output out")
        if config.revision is not None:
            raise UserError("revision: this is for models on the hub; a run has checkpoints=...")
        if config.reference is not None:
            raise UserError("reference: this is for a public model, not for a run directory; leave it out")
        return
    _check_model(config)
    if config.checkpoints is not None:
        raise UserError("checkpoints: only a run directory has several; leave it out for one model")
    _ = config.results
    if config.offline:
        require_items_here(config.evaluation)
    if config.evaluation.inhibited:
        read_inhibition(Path(config.place))
    check_evaluation_data(config.evaluation)


def _check_model(config: EvaluateConfig) -> None:
    name, folder = config.place, Path(config.place)
    if folder.exists() and not (folder / "config.json").is_file():
        raise UserError(
            f"path: {folder} holds no model (no config.json) and is no run directory (no config.yaml); "
            f"give a folder such as runs/<name> or runs/<name>/hf/step<N>"
        )
    if not folder.exists() and (name.count("/") > 1 or name.startswith((".", "/"))):
        raise UserError(f"path: there is no folder {folder}")
    if not folder.exists() and config.offline:
        cached = try_to_load_from_cache(name, "config.json", revision=_revision(config))
        if not isinstance(cached, str):
            raise UserError(
                f"path: there is no folder {folder}, and the Hugging Face cache holds no {name}, {_revision(config)}"
            )


def _evaluate_model(config: EvaluateConfig, device: torch.device) -> None:
    states = inhibition_of(Path(config.place)) if config.evaluation.inhibited else []
    try:
        model = AutoModelForCausalLM.from_pretrained(config.place, revision=_revision(config))
        tokenizer = AutoTokenizer.from_pretrained(config.place, revision=_revision(config))
    except (OSError, ValueError) as error:
        raise UserError(f"path: no model could be loaded from {config.place} ({str(error).splitlines()[0]})") from None
    output, model = config.results, model.to(device)
    with Evaluator(tokenizer, config.evaluation, cache_dir=Path(config.cache_dir) / "answers") as evaluator:
        found = evaluator.score(model, output)
        for state in states:
            evaluator.score(model, output / INHIBITED, state)
    if config.reference is not None:
        compare_with_reference(config.reference, found, output)


def _evaluate_run(config: EvaluateConfig, tree: dict[str, Any], overrides: list[str], device: torch.device) -> None:
    path = Path(config.place)
    held = yaml.safe_load((path / "config.yaml").read_text())
    held["evaluation"] |= _given(overrides, tree["evaluation"])
    held["offline"] = held["offline"] or config.offline
    run_config = build_settings(PretrainConfig, held)
    folder = RunFolder(str(path.parent), path.name)
    if run_config.offline:
        require_all_here(run_config, run_config.training.steps)
    if run_config.evaluation.data_dir is not None:
        check_evaluation_data(run_config.evaluation)
    corpus = open_data(run_config)
    check_items(run_config, corpus)
    steps = folder.exported() if config.checkpoints == "all" else config.checkpoints
    evaluate_exports(run_config, folder, corpus, device, steps)
    if not dist.is_initialized() or dist.get_rank() == 0:
        log.info("report: %s", write_report([folder.path], folder.path))


def _given(overrides: list[str], evaluation: dict[str, Any]) -> dict[str, Any]:
    """What the command line says about the evaluation: single settings, or a whole group and what it holds."""
    keys = [override.partition("=")[0] for override in overrides]
    if "evaluation" in keys:
        return asdict(build_settings(EvaluationConfig, evaluation, "evaluation"))
    return {key: evaluation[key] for given in keys if (key := given.removeprefix("evaluation.")) != given}

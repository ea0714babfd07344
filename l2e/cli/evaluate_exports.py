"""Evaluate what a run exported, once for each settings."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from l2e.cli.pretrain_config import PretrainConfig
from l2e.cli.run_data import with_items
from l2e.cli.run_folder import RunFolder
from l2e.data import Corpus
from l2e.errors import UserError
from l2e.evaluation import EvaluationConfig, Evaluator, read_summary
from l2e.inhibition import selects
from l2e.models import read_inhibition

log = logging.getLogger("l2e")


def evaluate_exports(
    config: PretrainConfig, folder: RunFolder, corpus: Corpus, device: torch.device, steps: Sequence[int] | None = None
) -> None:
    """Evaluate exports of a run that have no results for these settings yet, loading the items once.

    Args:
        config: of the run; `evaluation` says on what.
        folder: its directory.
        corpus: for its tokenizer, and items if they come with the data.
        device: of the models.
        steps: updates done; null: those that the settings ask for.

    Raises:
        UserError: one of them is not there.
    """
    settings = with_items(config.evaluation, corpus)
    asked = [0, config.training.steps] if config.evaluation.initial else [config.training.steps]
    left = {step: _left(folder, step, settings) for step in (asked if steps is None else steps)}
    answers = Path(config.cache_dir) / "answers"
    if not any(left.values()):
        return
    with Evaluator(corpus.tokenizer, settings, max_length=config.model.max_length, cache_dir=answers) as evaluator:
        for step, variants in left.items():
            if not variants:
                continue
            log.info("evaluating step %d on %s", step, ", ".join(settings.tasks))
            model = AutoModelForCausalLM.from_pretrained(folder.export(step)).to(device)
            for inhibited, state in variants:
                if inhibited:
                    log.info("and with the inhibition active:")
                evaluator.score(model, folder.evaluation(step, inhibited), state)


Variant = tuple[bool, dict[str, Any] | None]
"""Whether the inhibition is to be active, and its state."""


def _left(folder: RunFolder, step: int, settings: EvaluationConfig) -> list[Variant]:
    """What of an export has no results for these settings yet.

    Raises:
        UserError: it is not there, or has no inhibition with it and needs one.
    """
    export = folder.export(step)
    plain = not is_evaluated(folder.evaluation(step), settings)
    acting = settings.inhibited and not is_evaluated(folder.evaluation(step, inhibited=True), settings)
    if (plain or acting) and not export.exists():
        raise UserError(f"{export} does not exist: the run has not got there, or did not export it")
    left: list[Variant] = [(False, None)] if plain else []
    return left + [(True, state) for state in (inhibition_of(export) if acting else [])]


def inhibition_of(export: Path) -> list[dict[str, Any]]:
    """The state beside a model; none, which is told, if its training had not begun to select."""
    state = read_inhibition(export)
    if selects(state):
        return [state]
    log.warning("%s: its training had not begun to select, so there is no inhibition to be active", export)
    return []


def is_evaluated(output: Path, settings: EvaluationConfig) -> bool:
    """Whether the folder holds results of all these tasks and shots, over as many items."""
    if not (output / "summary.json").is_file():
        return False
    there = {(result.task, result.num_fewshot) for result in read_summary(output / "summary.json")}
    if not {(task, shots) for task in settings.tasks for shots in settings.shots} <= there:
        return False
    results = [json.loads((output / f"{shots}-shot" / "results.json").read_text()) for shots in settings.shots]
    return all(result["config"]["limit"] == settings.limit for result in results)

"""Evaluate a run's exports, or one Hugging Face model; the entry of scripts/evaluate.py."""

import json
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from l2e.cli.logs import quieten_libraries, start_logging
from l2e.cli.offline import require_all_here, require_items_here
from l2e.cli.pretrain_config import PretrainConfig
from l2e.cli.run_data import check_items, open_data, with_items
from l2e.cli.run_folder import RunFolder
from l2e.data import Corpus
from l2e.errors import UserError
from l2e.evaluation import EvaluationConfig, Evaluator, check_evaluation_data, evaluate, read_summary
from l2e.reporting import write_report
from l2e.settings import build_settings
from l2e.training.launch import launched

log = logging.getLogger("l2e")


@dataclass(kw_only=True)
class EvaluateConfig:
    """What is evaluated, on what, and where the results go."""

    path: str
    """A run directory, a folder with model and tokenizer, or a model's name on the hub."""

    revision: str | None = None
    """Branch, tag or commit of a model on the hub, e.g. step13000."""

    checkpoints: list[int] | Literal["all"] | None = None
    """Exports of a run: `all`, or updates; null: those that its settings ask for, the last one at least."""

    cache_dir: str = "cache"
    """Where answers are kept, so that no model is asked the same twice; a run has its own."""

    output: str | None
    """Folder of the results; null for a run directory, which keeps its own."""

    offline: bool
    """Ask no hub for anything."""

    evaluation: EvaluationConfig
    """For a run directory only if the command line says anything about it; else the run's own settings."""


def run(tree: dict[str, Any], overrides: list[str]) -> None:
    """Evaluate and write the results; under torchrun or srun the ranks share the items.

    Raises:
        UserError: no model, unusable items, or settings that do not go together.
    """
    config = build_settings(EvaluateConfig, tree)
    start_logging()
    quieten_libraries()
    is_run = (Path(config.path) / "config.yaml").is_file()
    _check(config, is_run)
    with _processes() as device:
        if is_run:
            _evaluate_run(config, tree, overrides, device)
        else:
            _evaluate_model(config, device)


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
    left = [step for step in (asked if steps is None else steps) if not is_evaluated(folder.evaluation(step), settings)]
    for step in left:
        if not folder.export(step).exists():
            raise UserError(f"{folder.export(step)} does not exist: the run has not got there, or did not export it")
    if not left:
        return
    answers = Path(config.cache_dir) / "answers"
    with Evaluator(corpus.tokenizer, settings, max_length=config.model.max_length, cache_dir=answers) as evaluator:
        for step in left:
            log.info("evaluating step %d on %s", step, ", ".join(settings.tasks))
            model = AutoModelForCausalLM.from_pretrained(folder.export(step)).to(device)
            evaluator.score(model, folder.evaluation(step))


def _check(config: EvaluateConfig, is_run: bool) -> None:
    """What can be refused before anything is loaded."""
    folder = Path(config.path)
    if is_run:
        if config.output is not None:
            raise UserError(f"output: the results of a run go to {config.path}/eval; leave output out")
        if config.revision is not None:
            raise UserError("revision: this is for models on the hub; a run has checkpoints=...")
        return
    if folder.exists() and not (folder / "config.json").is_file():
        raise UserError(
            f"path: {folder} holds no model (no config.json) and is no run directory (no config.yaml); "
            f"give a folder such as runs/<name> or runs/<name>/hf/step<N>"
        )
    if not folder.exists() and (config.offline or config.path.count("/") > 1 or config.path.startswith((".", "/"))):
        raise UserError(f"path: there is no folder {folder}")
    if config.checkpoints is not None:
        raise UserError("checkpoints: only a run directory has several; leave it out for one model")
    if config.output is None:
        raise UserError("output: a value is required for a model, give output=... on the command line")
    if config.offline:
        require_items_here(config.evaluation)
    check_evaluation_data(config.evaluation)


def _processes() -> AbstractContextManager[torch.device]:
    """This process's device, within the launcher's group if there is one."""
    if launched().meeting is None:
        return nullcontext(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    from l2e.training.engine import process_group  # DeepSpeed's import takes seconds

    return process_group()


def _evaluate_model(config: EvaluateConfig, device: torch.device) -> None:
    try:
        model = AutoModelForCausalLM.from_pretrained(config.path, revision=config.revision or "main")
        tokenizer = AutoTokenizer.from_pretrained(config.path, revision=config.revision or "main")
    except (OSError, ValueError) as error:
        raise UserError(f"path: no model could be loaded from {config.path} ({str(error).splitlines()[0]})") from None
    assert config.output is not None
    evaluate(
        model.to(device),
        tokenizer,
        config.evaluation,
        Path(config.output),
        cache_dir=Path(config.cache_dir) / "answers",
    )


def _evaluate_run(config: EvaluateConfig, tree: dict[str, Any], overrides: list[str], device: torch.device) -> None:
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
    steps = folder.exported() if config.checkpoints == "all" else config.checkpoints
    evaluate_exports(run_config, folder, corpus, device, steps)
    if not dist.is_initialized() or dist.get_rank() == 0:
        log.info("report: %s", write_report([folder.path], folder.path))


def is_evaluated(output: Path, settings: EvaluationConfig) -> bool:
    """Whether the folder holds results of all these tasks and shots, over as many items."""
    if not (output / "summary.json").is_file():
        return False
    there = {(result.task, result.num_fewshot) for result in read_summary(output / "summary.json")}
    if not {(task, shots) for task in settings.tasks for shots in settings.shots} <= there:
        return False
    results = [json.loads((output / f"{shots}-shot" / "results.json").read_text()) for shots in settings.shots]
    return all(result["config"]["limit"] == settings.limit for result in results)

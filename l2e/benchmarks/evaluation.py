"""How fast a model is evaluated, against lm-eval's command line, in turns on one machine.

    python scripts/benchmark.py benchmark=evaluation

Both are given the same model, items, examples, batch size and lengths, and must give the same accuracies, or nothing is
timed. A ratio is our speed over lm-eval's: above 1, ours is the faster.

results:
    vs_lm_eval_cli: whole commands, `scripts/evaluate.py` against `lm_eval run`, from the start of the process to its
        end: imports, index of tasks, loading of model and items, scoring, writing. lm-eval's command takes one
        number of examples, so for several it is started as often. `cpu_ratio` says the same of processor time, which
        other work on the machine moves less. Details under `commands`.
    without_start: the same work in one running process with the model loaded: items read, requests built, scored and
        written; lm-eval by its `simple_evaluate`, spared its index of all tasks. Details under `inside`.
    trajectory: several models in turn through one `Evaluator`: how often items were loaded and requests built, and
        the seconds before the first model, of the first and of the later ones.
"""

import logging
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from l2e.benchmarks.evaluation_config import EvaluationBenchmarkConfig
from l2e.benchmarks.evaluation_ways import Case, Way, our_command, ours_inside, their_command, theirs_inside
from l2e.benchmarks.pairing import median
from l2e.benchmarks.report import device_name, versions
from l2e.benchmarks.trajectory import measure_trajectory
from l2e.benchmarks.turns import Work, compare, timed
from l2e.data.builtin import WorldSettings, write_world
from l2e.errors import UserError
from l2e.evaluation import check_evaluation_data
from l2e.evaluation.contained import at_level
from l2e.models import build_pythia, export, pythia_size

logger = logging.getLogger("l2e.benchmarks.evaluation")


def run(config: EvaluationBenchmarkConfig) -> dict[str, Any]:
    """Measure; returns the result to be printed.

    Raises:
        UserError: items or a tokenizer that cannot be used.
        RuntimeError: the two ways gave different accuracies, or lm-eval's command failed.
    """
    torch.set_num_threads(config.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with (
        tempfile.TemporaryDirectory(prefix="l2e-evaluation-", dir=config.folder) as name,
        at_level(logging.getLogger("l2e.evaluation"), logging.WARNING),
    ):
        case = prepare(config, Path(name), device)
        results = measure_commands(case, config.rounds) | measure_inside(case, config.rounds)
        results |= {"trajectory": measure_trajectory(case, config.checkpoints)}
    return {
        "benchmark": config.kind,
        "device": device_name(device),
        "versions": versions("lm-eval", "datasets"),
        "results": results,
        "settings": asdict(config) | {"questions": case.questions},
    }


def prepare(config: EvaluationBenchmarkConfig, folder: Path, device: torch.device) -> Case:
    """Make the model, and the items where none are given; find out what is right."""
    evaluation, tokenizer_folder = config.evaluation, config.tokenizer
    if evaluation.data_dir is None or tokenizer_folder is None:
        write_world(folder / "world", WorldSettings(documents=300, items=config.items, known_items=40))
    evaluation = replace(evaluation, data_dir=evaluation.data_dir or str(folder / "world" / "eval"))
    check_evaluation_data(evaluation)
    tokenizer = _tokenizer(Path(tokenizer_folder or folder / "world" / "tokenizer"))
    vocabulary = max(pythia_size(config.model).vocab_size, len(tokenizer))
    model = build_pythia(config.model, vocab_size=vocabulary, max_length=config.max_length)
    export(model, tokenizer, folder / "model")
    case = Case(model.to(device), tokenizer, evaluation, folder, config.threads)
    case.expected = ours_inside(case)
    return case


def measure_commands(case: Case, rounds: int) -> dict[str, Any]:
    """Whole processes."""
    found = _measure("commands", case, rounds, our_command, their_command, _children_time)
    return {"vs_lm_eval_cli": found["lm_eval"]["ratio"], "commands": found}


def measure_inside(case: Case, rounds: int) -> dict[str, Any]:
    """In this process."""
    found = _measure("inside", case, rounds, ours_inside, theirs_inside, time.process_time)
    return {"without_start": found["lm_eval"]["ratio"], "inside": found}


def _measure(what: str, case: Case, rounds: int, ours: Way, theirs: Way, clock: Callable[[], float]) -> dict[str, Any]:
    """Both in turns, by the wall's clock and by the processor's."""
    processor: dict[Way, list[float]] = {ours: [], theirs: []}

    def work(way: Way) -> Work:
        def action() -> None:
            processor[way].append(timed(lambda: case.check(way(case)), clock)())

        return timed(action)

    found = compare(work(ours), {"lm_eval": work(theirs)}, rounds, case.questions)
    seconds = {way: median(spent[1:]) for way, spent in processor.items()}  # the first was a rehearsal
    found["ours"]["cpu_seconds"], found["lm_eval"]["cpu_seconds"] = seconds[ours], seconds[theirs]
    found["lm_eval"]["cpu_ratio"] = seconds[theirs] / seconds[ours]
    speeds = ", ".join(f"{name} {speed['per_second']:.1f}" for name, speed in found.items())
    logger.info("%s, questions per second: %s; ratio %.2f", what, speeds, found["lm_eval"]["ratio"])
    return found


def _children_time() -> float:
    """Processor seconds of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    if not (folder / "tokenizer.json").is_file():
        raise UserError(f"benchmark.tokenizer: {folder} holds no tokenizer.json")
    return AutoTokenizer.from_pretrained(folder)

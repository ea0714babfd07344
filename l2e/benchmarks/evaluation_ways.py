"""The two ways to evaluate that the benchmark times: ours and lm-eval's, as a command and in this process."""

import contextlib
import copy
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import lm_eval
from lm_eval.loggers import EvaluationTracker
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import PreTrainedTokenizerBase

from l2e.evaluation import EvaluationConfig, evaluate, read_summary
from l2e.evaluation.contained import own_generators, quiet, replaced, scoring

Accuracies = dict[tuple[str, int], float]
"""By task and number of examples."""

_SCRIPT = Path(__file__).parents[2] / "scripts" / "evaluate.py"


@dataclass
class Case:
    """One model and what it is asked.

    Attributes:
        folder: holds the exported model as `model`, and what the ways write.
        threads: of torch in the commands.
        expected: what every way must find.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    evaluation: EvaluationConfig
    folder: Path
    threads: int
    expected: Accuracies = field(default_factory=dict)
    questions: int = 0
    """Items times numbers of examples."""

    def check(self, found: Accuracies) -> None:
        """A way that finds something else has no speed worth telling."""
        if found != self.expected:
            raise RuntimeError(f"not the same accuracies: {found} for {self.expected}")

    def fresh(self, name: str) -> Path:
        """An empty place for results."""
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)
        return place


Way = Callable[[Case], Accuracies]


def ours_inside(case: Case) -> Accuracies:
    """`l2e.evaluation.evaluate`, nothing kept from before."""
    found = evaluate(case.model, case.tokenizer, case.evaluation, case.fresh("inside"))
    case.questions = sum(result.n for result in found)
    return {(result.task, result.num_fewshot): result.acc for result in found}


def theirs_inside(case: Case) -> Accuracies:
    """`lm_eval.simple_evaluate` on the task files that ours left, written as its command line writes."""
    found: Accuracies = {}
    with quiet(), own_generators(), scoring(case.model), _kept_tables(case.folder):
        for shots in case.evaluation.shots:
            model = HFLM(
                pretrained=case.model,
                tokenizer=copy.deepcopy(case.tokenizer),
                batch_size=case.evaluation.batch_size or 16,
                max_length=case.model.config.max_position_embeddings,
                softmax_dtype="float32",
            )
            tracker = EvaluationTracker(output_path=str(case.fresh("theirs")))
            raw = lm_eval.simple_evaluate(
                model=model,
                tasks=case.evaluation.tasks,
                num_fewshot=shots,
                limit=case.evaluation.limit,
                task_manager=TaskManager(include_path=str(case.folder / "inside" / "tasks"), include_defaults=False),
                evaluation_tracker=tracker,
            )
            assert raw is not None
            samples = raw.pop("samples")
            tracker.save_results_aggregated(results=raw, samples=samples)
            for task in raw["configs"]:
                tracker.save_results_samples(task_name=task, samples=samples[task])
            found |= {(task, shots): raw["results"][task]["acc,none"] for task in case.evaluation.tasks}
    return found


def our_command(case: Case) -> Accuracies:
    """`scripts/evaluate.py` on the exported model."""
    output, kept = case.fresh("command"), case.fresh("kept")
    given = case.evaluation
    tasks, shots = (f"[{','.join(map(str, values))}]" for values in (given.tasks, given.shots))
    settings = {"tasks": tasks, "num_fewshot": shots, "limit": given.limit, "batch_size": given.batch_size}
    settings["data_dir"] = f"'{Path(str(given.data_dir)).resolve()}'"
    overrides = [f"evaluation.{key}={'null' if value is None else value}" for key, value in settings.items()]
    where = [f"path={case.folder / 'model'}", f"output={output}", f"cache_dir={kept}", "offline=true"]
    _call(case, [sys.executable, str(_SCRIPT), *where, *overrides], case.folder)
    return {(result.task, result.num_fewshot): result.acc for result in read_summary(output / "summary.json")}


def their_command(case: Case) -> Accuracies:
    """The `lm_eval run` of each number of examples, as our results say it."""
    found: Accuracies = {}
    for shots in case.evaluation.shots:
        source, place = case.folder / "inside", case.fresh("cli")
        line = json.loads((source / f"{shots}-shot" / "results.json").read_text())["reproduce"]
        words = shlex.split(line.replace("<exported folder>", str(case.folder / "model")))
        more = ["--output_path", str(place), "--log_samples", "--device", case.model.device.type]
        _call(case, [sys.executable, "-m", *words, *more], source)
        (results,) = place.rglob("results_*.json")
        raw = json.loads(results.read_text())["results"]
        found |= {(task, shots): raw[task]["acc,none"] for task in case.evaluation.tasks}
    return found


def _call(case: Case, words: list[str], folder: Path) -> None:
    threads = str(case.threads)
    own = {"HF_HOME": str(case.folder / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": threads}
    done = subprocess.run(words, cwd=folder, env={**os.environ, **own}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words[:3])} ... ended with {done.returncode}: {done.stderr[-2000:]}")


@contextlib.contextmanager
def _kept_tables(folder: Path) -> Any:
    """Where lm-eval's tables of items are kept from one timing to the next, as between two of its commands."""
    with (
        replaced(datasets.config, "HF_DATASETS_CACHE", str(folder / "tables")),
        replaced(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", False),
    ):
        yield

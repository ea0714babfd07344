"""The lm-eval stage: score a model in this process and leave everything needed to check the numbers."""

import contextlib
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist

from l2e.errors import UserError
from l2e.evaluation.config import EvaluationConfig
from l2e.evaluation.results import TaskResult, item_lines, task_results, write_outputs, write_summary
from l2e.evaluation.tasks import check_evaluation_data, write_task_files
from l2e.inhibition import InhibitionInEvaluation

log = logging.getLogger("l2e.evaluation")

_TASK_FOLDER = "l2e-tasks-"


def evaluate(
    model: Any,
    tokenizer: Any,
    config: EvaluationConfig,
    output_dir: Path,
    *,
    max_length: int | None = None,
    seed: int = 1234,
    cache_dir: Path | None = None,
) -> list[TaskResult]:
    """Evaluate one model; see `Evaluator`, whose arguments these are, and `Evaluator.score`."""
    with Evaluator(tokenizer, config, max_length=max_length, seed=seed, cache_dir=cache_dir) as evaluator:
        return evaluator.score(model, output_dir)


class Evaluator:
    """Evaluate models as `lm_eval run` would, in process, whatever `config.enabled` says.

    Items are loaded and requests built once, for any number of models. Where torch.distributed is initialised every
    rank makes the same calls: the ranks share the requests, and rank 0 writes. The models keep their mode, precision
    and device; the tokenizer and the global random generators are left as they were.

    Args:
        tokenizer: the transformers tokenizer that the models were trained with.
        config: tasks, shots, limit, data.
        max_length: tokens a model may see, default its `max_position_embeddings`. Longer items lose the start
            of their context; how many did is logged and recorded.
        seed: of the few-shot examples; lm-eval's default.
        cache_dir: where answers are kept, see `AnswerCache`; null: nowhere.

    Raises:
        UserError: data that cannot be used, before a model runs.
    """

    def __init__(
        self,
        tokenizer: Any,
        config: EvaluationConfig,
        *,
        max_length: int | None = None,
        seed: int = 1234,
        cache_dir: Path | None = None,
    ) -> None:
        check_evaluation_data(config)
        self.tokenizer = tokenizer
        self.config = config
        self.max_length = max_length
        self.seed = seed
        self._cache_dir = cache_dir
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Evaluator":
        from l2e.evaluation import contained, harness  # seconds of imports that a mere check does not need

        with contextlib.ExitStack() as stack:
            stack.enter_context(contained.quiet())
            if self.config.data_dir is not None:
                stack.enter_context(contained.local_data())
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=_TASK_FOLDER)))
            with contained.own_generators():
                manager = harness.task_manager(self.config, folder)
                self._questions = [
                    [harness.Questions(manager, name, self.config, shots, self.seed) for name in self.config.tasks]
                    for shots in self.config.shots
                ]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def score(self, model: Any, output_dir: Path, inhibition: Mapping[str, Any] | None = None) -> list[TaskResult]:
        """Evaluate one model, whole on this process.

        Writes `<k>-shot/results.json`, `<k>-shot/samples_<task>.jsonl`, `tasks/<task>.yaml` for local data and,
        last, `summary.json`, whose presence means that the evaluation is complete.

        Args:
            model: to be asked.
            output_dir: made if it is missing.
            inhibition: state of the inhibition of its training, to act on it now (M22); null for the model alone.

        Returns:
            One result for each number of shots and task, in the order of the configuration.
        """
        from l2e.evaluation import contained, harness
        from l2e.evaluation.answers import AnswerCache, model_identity

        writes = not dist.is_initialized() or dist.get_rank() == 0
        cache = AnswerCache(self._cache_dir)
        if writes:
            output_dir.mkdir(parents=True, exist_ok=True)
            (output_dir / "summary.json").unlink(missing_ok=True)
            if self.config.data_dir is not None:
                write_task_files(self.config, output_dir / "tasks")
        results: list[TaskResult] = []
        with contained.own_generators(), contained.scoring(model), _acting(model, inhibition) as acting:
            scorer = harness.LanguageModel(model, self.tokenizer, self.config.batch_size, self.max_length, acting)
            identity = model_identity(scorer, inhibition) if self._cache_dir else ""
            inhibited = inhibition["config"]["method"] if inhibition is not None else None
            for shots, asked in zip(self.config.shots, self._questions, strict=True):
                started = time.perf_counter()
                answers = [_answers(questions, scorer, cache, identity, writes) for questions in asked]
                raw = _merged(answers) | harness.provenance(scorer, self.config, shots, self.seed, inhibited)
                found = task_results(raw)
                if writes:
                    write_outputs(output_dir / f"{shots}-shot", raw)
                    _report(found, scorer.max_length, time.perf_counter() - started)
                results += found
        if writes:
            write_summary(output_dir / "summary.json", results)
        return results


@contextlib.contextmanager
def _acting(model: Any, inhibition: Mapping[str, Any] | None) -> Iterator[InhibitionInEvaluation | None]:
    """The inhibition on the model, for the time being."""
    if inhibition is None:
        yield None
        return
    try:
        acting = InhibitionInEvaluation(model, inhibition)
    except ValueError as error:
        raise UserError(f"evaluation.inhibited: {error}") from None
    try:
        yield acting
    finally:
        acting.remove()


def _answers(questions: Any, scorer: Any, cache: Any, identity: str, writes: bool) -> dict[str, Any]:
    """From the cache where rank 0 finds them there; else asked, and kept at once, so that an interruption costs one."""
    path = cache.path(identity, questions)
    kept = _of_rank_0(cache.read(path) if writes else None)
    if kept is not None:
        log.info("%s, %d-shot: answers kept in %s", questions.name, questions.shots, path)
        return kept
    raw = questions.ask(scorer)
    for task in raw["configs"].values():  # read from a temporary folder; the outputs have a copy
        source = Path(task.get("metadata", {}).get("config_source", ""))
        if source.parent.name.startswith(_TASK_FOLDER):
            task["metadata"]["config_source"] = f"tasks/{source.name}"
    raw["samples"] = {task: item_lines(lines, scorer.shortened) for task, lines in raw["samples"].items()}
    if writes:
        cache.keep(path, raw)
    return raw


def _of_rank_0(value: Any) -> Any:
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def _merged(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """lm-eval's results of several calls as those of one: each entry is keyed by task."""
    merged: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            merged[key] = {**merged.get(key, {}), **value} if isinstance(value, dict) else value
    return merged


def _report(results: list[TaskResult], max_length: int, seconds: float) -> None:
    for result in results:
        log.info(
            "%s, %d-shot: acc %.4f (chance %s) on %d items",
            result.task,
            result.num_fewshot,
            result.acc,
            "unknown" if result.chance is None else f"{result.chance:.4f}",
            result.n,
        )
        if result.truncated:
            log.warning(
                "%s, %d-shot: %d of %d items exceed max_length %d and lost the start of their context",
                result.task,
                result.num_fewshot,
                result.truncated,
                result.n,
                max_length,
            )
    log.info("evaluated %d tasks in %.1f s", len(results), seconds)

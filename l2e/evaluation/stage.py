"""The lm-eval stage: score a model in this process and leave everything needed to check the numbers."""

import contextlib
import logging
import time
from pathlib import Path
from typing import Any

from l2e.evaluation.config import EvaluationConfig
from l2e.evaluation.results import TaskResult, item_lines, task_results, write_outputs, write_summary
from l2e.evaluation.tasks import check_evaluation_data

log = logging.getLogger("l2e.evaluation")


def evaluate(
    model: Any,
    tokenizer: Any,
    config: EvaluationConfig,
    output_dir: Path,
    *,
    max_length: int | None = None,
    seed: int = 1234,
) -> list[TaskResult]:
    """Evaluate a model as `lm_eval run` would, in process, whatever `config.enabled` says.

    Writes `<k>-shot/results.json`, `<k>-shot/samples_<task>.jsonl`, `tasks/<task>.yaml` for local data and,
    last, `summary.json`, whose presence means that the evaluation is complete. The model keeps its mode,
    precision and device, the tokenizer and the global random generators are left as they were. Call it on one
    process.

    Args:
        model: a transformers causal language model, whole on this process.
        tokenizer: the transformers tokenizer it was trained with.
        config: tasks, shots, limit, data.
        output_dir: where to write; created.
        max_length: tokens the model may see, default its `max_position_embeddings`. Longer items lose the start
            of their context; how many did is logged and recorded.
        seed: of the few-shot examples; lm-eval's default.

    Returns:
        One result for each number of shots and task, in the order of the configuration.

    Raises:
        UserError: data that cannot be used, before the model runs.
    """
    check_evaluation_data(config)
    from l2e.evaluation import contained, harness  # seconds of imports that a mere check does not need

    output_dir.mkdir(parents=True, exist_ok=True)
    (output_dir / "summary.json").unlink(missing_ok=True)
    results: list[TaskResult] = []
    local = contextlib.nullcontext() if config.data_dir is None else contained.local_data()
    with contained.quiet(), contained.own_generators(), local, contained.scoring(model):
        manager = harness.task_manager(config, output_dir / "tasks")
        scorer = harness.LanguageModel(model, tokenizer, config.batch_size, max_length)
        for shots in config.shots:
            started = time.perf_counter()
            raw = harness.run(scorer, manager, config, shots, seed)
            raw["samples"] = {task: item_lines(lines, scorer.shortened) for task, lines in raw["samples"].items()}
            write_outputs(output_dir / f"{shots}-shot", raw)
            found = task_results(raw)
            _report(found, scorer.max_length, time.perf_counter() - started)
            results += found
    write_summary(output_dir / "summary.json", results)
    return results


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

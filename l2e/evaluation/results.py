"""What an evaluation leaves behind: one record per task and number of shots, and a line for every item."""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from l2e.errors import UserError
from l2e.files import write_atomically

log = logging.getLogger("l2e.evaluation")

INHIBITED = "inhibited"
"""Folder, within an evaluation's, of the same with the inhibition active (M22)."""


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """The accuracy of one model on one task with one number of few-shot examples."""

    task: str
    num_fewshot: int
    n: int
    """Items scored."""
    acc: float
    """Share of items whose right choice has the highest log-likelihood."""
    acc_stderr: float | None
    """sqrt(acc (1 - acc) / (n - 1)); None for one item."""
    acc_norm: float | None
    """The same with log-likelihoods divided by the choice's length in characters; None where not defined."""
    acc_norm_stderr: float | None
    chance: float | None
    """Mean over items of 1 / number of choices; None where the task is no multiple choice."""
    truncated: int = 0
    """Items whose context was cut on the left because it did not fit the model."""


def task_results(raw: dict[str, Any]) -> list[TaskResult]:
    """Take the accuracies out of lm-eval's results; `raw["samples"]` as `item_lines` returns them."""
    found = []
    for task, lines in raw["samples"].items():
        metrics = raw["results"][task]
        if "acc,none" not in metrics:
            log.warning("%s has no accuracy: it is in results.json but not in summary.json", task)
            continue
        found.append(
            TaskResult(
                task=task,
                num_fewshot=raw["n-shot"][task],
                n=len(lines),
                acc=float(metrics["acc,none"]),
                acc_stderr=_number(metrics.get("acc_stderr,none")),
                acc_norm=_number(metrics.get("acc_norm,none")),
                acc_norm_stderr=_number(metrics.get("acc_norm_stderr,none")),
                chance=_chance(lines),
                truncated=sum(line["truncated"] for line in lines),
            )
        )
    return found


def item_lines(samples: list[dict[str, Any]], shortened: set[tuple[str, str]]) -> list[dict[str, Any]]:
    """One record per item in item order, from lm-eval's samples.

    Args:
        samples: lm-eval's own, of one task.
        shortened: the (context, continuation) pairs that did not fit the model.
    """
    return [_item_line(sample, shortened) for sample in sorted(samples, key=lambda sample: sample["doc_id"])]


def _item_line(sample: dict[str, Any], shortened: set[tuple[str, str]]) -> dict[str, Any]:
    responses = sample["filtered_resps"]
    scored = all(isinstance(response, (tuple, list)) and len(response) == 2 for response in responses)
    answers = {"loglikelihoods": [response[0] for response in responses]} if scored else {"responses": responses}
    metrics = {name: sample[name] for name in sample["metrics"]}
    cut = any(tuple(arguments) in shortened for arguments in sample["arguments"])
    kept = {key: sample[key] for key in ("doc_id", "doc", "target")}
    return {**kept, **answers, **metrics, "truncated": cut, "prompt_hash": sample["prompt_hash"]}


def _chance(lines: list[dict[str, Any]]) -> float | None:
    if not all("loglikelihoods" in line for line in lines):
        return None
    return sum(1 / len(line["loglikelihoods"]) for line in lines) / len(lines)


def _number(value: Any) -> float | None:
    """lm-eval writes "N/A" for what it cannot compute."""
    return None if value is None or isinstance(value, str) else float(value)


def write_outputs(folder: Path, raw: dict[str, Any]) -> None:
    """Write `results.json` (lm-eval's, without samples) and `samples_<task>.jsonl`."""
    for task, lines in raw["samples"].items():
        write_atomically(folder / f"samples_{task}.jsonl", "".join(_dump(line) + "\n" for line in lines))
    write_atomically(
        folder / "results.json", _dump({key: raw[key] for key in raw if key != "samples"}, indent=2) + "\n"
    )


def write_summary(path: Path, results: list[TaskResult]) -> None:
    """Write all results of an evaluation in one step, so that the file is whole or absent."""
    write_atomically(path, _dump([asdict(result) for result in results], indent=2) + "\n")


def read_summary(path: Path) -> list[TaskResult]:
    """Read what `write_summary` wrote.

    Raises:
        UserError: no such file, or not a summary.
    """
    try:
        return [TaskResult(**record) for record in json.loads(path.read_text(encoding="utf-8"))]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); evaluate the checkpoint first") from None
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: no evaluation summary ({error}); evaluate the checkpoint again") from None


def _dump(value: Any, indent: int | None = None) -> str:
    from lm_eval.utils import handle_non_serializable

    return json.dumps(value, indent=indent, ensure_ascii=False, default=handle_non_serializable)

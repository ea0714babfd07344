"""Several checkpoints through one Evaluator: what is done once, and what each of them costs."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import torch
from lm_eval.api.task import ConfigurableTask, Task

from l2e.benchmarks.evaluation_ways import Case
from l2e.benchmarks.pairing import median
from l2e.evaluation import Evaluator
from l2e.evaluation.contained import replaced


def measure_trajectory(case: Case, checkpoints: int) -> dict[str, Any]:
    """Evaluate that many models, each with its own weights.

    Returns:
        checkpoints, tasks (tasks times numbers of examples), items_loaded and requests_built (how often, over all
        checkpoints), and the seconds: prepare, first, later (median), total.

    Raises:
        RuntimeError: items were loaded, or requests built, for a later checkpoint.
    """
    seconds: list[float] = []
    with _counted() as counts:
        started = time.perf_counter()
        with Evaluator(case.tokenizer, case.evaluation) as evaluator:
            prepared = time.perf_counter() - started
            for number in range(checkpoints):
                _other_weights(case.model, number)
                begun = time.perf_counter()
                evaluator.score(case.model, case.folder / "trajectory" / f"step{number}")
                seconds.append(time.perf_counter() - begun)
        total = time.perf_counter() - started
    tasks = len(case.evaluation.tasks) * len(case.evaluation.shots)
    if counts != {"download": tasks, "build_all_requests": tasks}:
        raise RuntimeError(f"loaded or built more than once: {counts} for {tasks}")
    return {
        "checkpoints": checkpoints,
        "tasks": tasks,
        "items_loaded": counts["download"],
        "requests_built": counts["build_all_requests"],
        "prepare_seconds": prepared,
        "first_seconds": seconds[0],
        "later_seconds": median(seconds[1:]),
        "total_seconds": total,
    }


@torch.no_grad()
def _other_weights(model: torch.nn.Module, number: int) -> None:
    """As after further training: the output layer is another one."""
    generator = torch.Generator().manual_seed(number)
    head = model.get_output_embeddings().weight  # type: ignore[operator]
    head.add_(0.01 * torch.randn(head.shape, generator=generator).to(head))


@contextlib.contextmanager
def _counted() -> Iterator[dict[str, int]]:
    """How often lm-eval's tasks load their items and build their requests."""
    counts = {"download": 0, "build_all_requests": 0}

    def counting(name: str, original: Any) -> Any:
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            counts[name] += 1
            return original(self, *args, **kwargs)

        return method

    with (
        replaced(ConfigurableTask, "download", counting("download", ConfigurableTask.download)),
        replaced(Task, "build_all_requests", counting("build_all_requests", Task.build_all_requests)),
    ):
        yield counts

"""Evaluation: lm-eval in process, on local task files or on any task that lm-eval knows."""

from typing import TYPE_CHECKING

from l2e.lazy import exports

if TYPE_CHECKING:
    from l2e.evaluation.config import EvaluationConfig
    from l2e.evaluation.results import TaskResult, read_summary, write_summary
    from l2e.evaluation.stage import Evaluator, evaluate
    from l2e.evaluation.tasks import check_evaluation_data
else:
    __getattr__ = exports(
        __name__,
        config="EvaluationConfig",
        results="TaskResult read_summary write_summary",
        stage="Evaluator evaluate",
        tasks="check_evaluation_data",
    )

__all__ = [
    "EvaluationConfig",
    "Evaluator",
    "TaskResult",
    "check_evaluation_data",
    "evaluate",
    "read_summary",
    "write_summary",
]

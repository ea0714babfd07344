"""Studies of trained models and of the method: scores of neurons, and networks small enough to measure everything."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from l2e.analysis.scores import class_scores, false_killing_rate, ks_statistic, relatively_monosemantic_feature

__all__ = ["class_scores", "false_killing_rate", "ks_statistic", "relatively_monosemantic_feature"]


def __getattr__(name: str) -> Any:
    """Import torch only when a score is asked for; the scores need nothing else of the package."""
    if name in __all__:
        from l2e.analysis import scores

        return getattr(scores, name)
    raise AttributeError(f"module 'l2e.analysis' has no attribute {name!r}")

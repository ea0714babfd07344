"""Studies of trained models and of the method: scores of neurons, and networks small enough to measure everything."""

from typing import TYPE_CHECKING

from l2e.lazy import exports

if TYPE_CHECKING:
    from l2e.analysis.scores import class_scores, false_killing_rate, ks_statistic, relatively_monosemantic_feature
else:
    # The scores need torch and nothing else of the package.
    __getattr__ = exports(
        __name__, scores="class_scores false_killing_rate ks_statistic relatively_monosemantic_feature"
    )

__all__ = ["class_scores", "false_killing_rate", "ks_statistic", "relatively_monosemantic_feature"]

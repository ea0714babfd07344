"""The method: find monosemantic outputs while training and inhibit them. Needs torch alone."""

from l2e.inhibition.attach import Inhibition, attach
from l2e.inhibition.config import InhibitionConfig
from l2e.inhibition.in_evaluation import InhibitionInEvaluation, acts_at_test, selects
from l2e.inhibition.methods import deactivate, log_penalty
from l2e.inhibition.moments import RunningMoments
from l2e.inhibition.placement import select_blocks
from l2e.inhibition.score import monosemanticity_score
from l2e.inhibition.selection import MovingThreshold

__all__ = [
    "Inhibition",
    "InhibitionConfig",
    "InhibitionInEvaluation",
    "MovingThreshold",
    "RunningMoments",
    "acts_at_test",
    "attach",
    "deactivate",
    "log_penalty",
    "monosemanticity_score",
    "select_blocks",
    "selects",
]

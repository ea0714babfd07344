"""Toy models of Jermyn et al., "Engineering Monosemanticity in Toy Models" (rows J01-J12): the truth is known here."""

from l2e.analysis.toy.config import ToyRun
from l2e.analysis.toy.lamb import Lamb
from l2e.analysis.toy.measures import monosemanticity
from l2e.analysis.toy.model import ToyModel
from l2e.analysis.toy.training import Training

__all__ = ["Lamb", "ToyModel", "ToyRun", "Training", "monosemanticity"]

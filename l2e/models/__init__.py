"""Pythia: sizes, construction, initialisation and export."""

from l2e.models.config import ModelConfig
from l2e.models.inhibition_state import packed, read_inhibition
from l2e.models.pythia import build_pythia, export, pythia_size
from l2e.models.sizes import PYTHIA, PythiaSize

__all__ = [
    "PYTHIA",
    "ModelConfig",
    "PythiaSize",
    "build_pythia",
    "export",
    "packed",
    "pythia_size",
    "read_inhibition",
]

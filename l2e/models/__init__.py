"""Pythia: sizes, construction, initialisation and export."""

from typing import TYPE_CHECKING

from l2e.lazy import exports

if TYPE_CHECKING:
    from l2e.models.config import ModelConfig
    from l2e.models.inhibition_state import packed, read_inhibition
    from l2e.models.precision import DTYPES
    from l2e.models.pythia import build_pythia, export
    from l2e.models.sizes import PYTHIA, PythiaSize, pythia_size
else:
    __getattr__ = exports(
        __name__,
        config="ModelConfig",
        inhibition_state="packed read_inhibition",
        precision="DTYPES",
        pythia="build_pythia export",
        sizes="PYTHIA PythiaSize pythia_size",
    )

__all__ = [
    "DTYPES",
    "PYTHIA",
    "ModelConfig",
    "PythiaSize",
    "build_pythia",
    "export",
    "packed",
    "pythia_size",
    "read_inhibition",
]

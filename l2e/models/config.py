"""Settings of the model."""

from dataclasses import dataclass
from typing import Literal

from l2e.models.sizes import PYTHIA

SIZES = ("tiny", *PYTHIA)


@dataclass(kw_only=True)
class ModelConfig:
    """A Pythia of one size."""

    name: str
    """One of the ten sizes, or `tiny`."""

    vocab_size: int | None = None
    """Rows of the embedding; null takes the published size's own (`tiny`: 768)."""

    max_length: int = 2048
    """Longest sequence, in tokens (the rotary embedding has no table to outgrow; evaluation cuts here)."""

    activation: Literal["tanh", "erf"] = "tanh"
    """The GELU: `tanh` is what Pythia was trained with, `erf` what its published configs say (D.4)."""

    attention: Literal["sdpa", "eager"] = "sdpa"
    """Attention kernel."""

    def __post_init__(self) -> None:
        if self.name not in SIZES:
            raise ValueError(f"name must be one of {', '.join(SIZES)}, not {self.name!r}")
        if self.vocab_size is not None and self.vocab_size < 1:
            raise ValueError(f"vocab_size must be at least 1, not {self.vocab_size}")
        if self.max_length < 1:
            raise ValueError(f"max_length must be at least 1, not {self.max_length}")

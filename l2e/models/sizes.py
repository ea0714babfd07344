"""The ten Pythia models, and a tiny one of the same kind (pythia.md D.1, D.6)."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PythiaSize:
    """Shape, initialisation and training recipe of one published model.

    Attributes:
        layers, hidden, heads: the shape; the MLP is 4 x hidden wide.
        vocab_size: rows of the padded embedding.
        parameters: the published total, embeddings included.
        lr: peak learning rate of the published run; the floor is a tenth of it.
        micro_batch_size: sequences per GPU and forward pass of the published run.
        small_init: False for 6.9B and 12B, whose configs left the keys out (pythia#135).
    """

    layers: int
    hidden: int
    heads: int
    vocab_size: int = 50304
    parameters: int
    lr: float
    micro_batch_size: int
    small_init: bool = True

    @property
    def input_std(self) -> float:
        """Standard deviation of embeddings, QKV and the MLP's first matrix: small_init, sqrt(2 / 5d)."""
        return math.sqrt(2 / (5 * self.hidden)) if self.small_init else 0.02

    @property
    def output_std(self) -> float:
        """Of the matrices that write to the residual stream: wang_init 2 / (L sqrt d), else 0.02 / sqrt(2L)."""
        if self.small_init:
            return 2 / (self.layers * math.sqrt(self.hidden))
        return 0.02 / math.sqrt(2 * self.layers)


def _size(layers: int, hidden: int, heads: int, parameters: int, lr: float, micro: int, **more: int) -> PythiaSize:
    return PythiaSize(
        layers=layers,
        hidden=hidden,
        heads=heads,
        parameters=parameters,
        lr=lr,
        micro_batch_size=micro,
        **more,  # type: ignore[arg-type]
    )


PYTHIA: dict[str, PythiaSize] = {
    "pythia-14m": _size(6, 128, 4, 14_067_712, 1e-3, 32),
    "pythia-31m": _size(6, 256, 8, 30_494_720, 1e-3, 32),
    "pythia-70m": _size(6, 512, 8, 70_426_624, 1e-3, 32),
    "pythia-160m": _size(12, 768, 12, 162_322_944, 6e-4, 32),
    "pythia-410m": _size(24, 1024, 16, 405_334_016, 3e-4, 32),
    "pythia-1b": _size(16, 2048, 8, 1_011_781_632, 2.5e-4, 16),
    "pythia-1.4b": _size(24, 2048, 16, 1_414_647_808, 2e-4, 16),
    "pythia-2.8b": _size(32, 2560, 32, 2_775_208_960, 1.6e-4, 16),
    "pythia-6.9b": _size(32, 4096, 32, 6_857_302_016, 1.2e-4, 8, vocab_size=50432, small_init=False),
    "pythia-12b": _size(36, 5120, 40, 11_846_072_320, 1.2e-4, 8, vocab_size=50688, small_init=False),
}
"""Size name to its facts. Columns of D.6: layers, hidden, heads, parameters, peak lr, micro-batch."""

TINY = PythiaSize(layers=4, hidden=128, heads=4, vocab_size=768, parameters=989_952, lr=4e-3, micro_batch_size=8)
"""The embedded default: pythia-14m's width, four layers, a small vocabulary."""


def pythia_size(name: str) -> PythiaSize:
    """The facts of a size by name; ValueError names the known ones."""
    if name == "tiny":
        return TINY
    if name not in PYTHIA:
        raise ValueError(f"unknown model {name!r}; known are tiny, {', '.join(PYTHIA)}")
    return PYTHIA[name]

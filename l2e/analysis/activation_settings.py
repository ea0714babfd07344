"""Settings of the collection of activations."""

from dataclasses import dataclass
from typing import Literal

Site = Literal["hidden_pre", "hidden_post", "block_output"]
Aggregation = Literal["mean", "max"]
Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(kw_only=True)
class ActivationSettings:
    """Which values of a model are collected, and in how much memory."""

    site: Site = "hidden_post"
    """MLP hidden units before or after their activation function, or the outputs of the blocks."""

    aggregation: Aggregation = "mean"
    """Over the valid positions of a sequence."""

    layers: int | None = None
    """Only the first so many blocks, which saves the forward through the others; null: all."""

    precision: Precision = "fp32"
    """Of the model; the aggregation is in fp32 in any case."""

    memory_mib: int = 1024
    """Working memory beside the model's weights: that of a batch and that of values on their way to the disk."""

    batch_tokens: int = 16_384
    """Most tokens of a batch, if that much memory is allowed."""

    def __post_init__(self) -> None:
        for key in ("layers", "memory_mib", "batch_tokens"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ValueError(f"{key} must be at least 1, not {value}")

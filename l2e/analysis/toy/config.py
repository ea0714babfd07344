"""One toy run: its task, its shape, and how it is trained."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

SHAPE = ("task", "activation", "features", "inputs", "neurons", "batch_size", "steps", "half_cycle", "inhibition")
"""Settings that runs must share to be trained as one batched model; all others may differ from run to run."""

_POSITIVE = ("features", "inputs", "neurons", "density", "lr", "batch_size", "steps", "half_cycle")
_NOT_NEGATIVE = ("bias_decay", "l1", "strength", "seed")


@dataclass(frozen=True, kw_only=True)
class ToyRun:
    """A toy model and its training (J01-J11). The defaults are the scaled size, the paper's first batch."""

    task: Literal["decoder", "reprojector", "absolute"] = "decoder"
    """What is to be computed from x = P f: f (J02), a second projection of f (J03), |f| (J04)."""

    distribution: Literal["uniform", "power_law"] = "uniform"
    """How often each feature is there (J01)."""

    activation: Literal["relu", "gelu", "solu"] = "relu"
    """Of the hidden layer; `solu` is the published code's x exp(x)."""

    features: int = 128
    """N."""

    inputs: int = 16
    """d, the dimensions into which the features are projected; fewer than features."""

    neurons: int = 256
    """k."""

    density: float = 1 / 64
    """eps: the mean probability that a feature is there."""

    lr: float = 0.03
    """Learning rate at the top of each cycle (J09)."""

    bias_offset: float = 0.0
    """Added to all initial biases (J10)."""

    bias_decay: float = 0.0
    """Biases shrink by the factor 1 - bias_decay * lr in each step of the first half (J10)."""

    l1: float = 0.0
    """Weight of sum |h| / batch in the loss (J11)."""

    batch_size: int = 128
    """Samples of a step."""

    steps: int = 6 * 2**10
    """Optimizer steps."""

    half_cycle: int = 2**9
    """Steps in which the learning rate falls from its top to 0; it rises again in as many (J09)."""

    seed: int = 1
    """Of projection, initial weights and features."""

    inhibition: Literal["none", "l2e", "memel"] = "none"
    """What is attached to the hidden layer: L2E's penalty, MEmeL's deactivation."""

    strength: float = 0.0
    """l2e: |penalty gradient| / |loss gradient| to be held, 0 for no penalty. memel: Delta of M08."""

    rate: float = 0.02
    """Share of the hidden values that the inhibition selects."""

    def __post_init__(self) -> None:
        for key in _POSITIVE:
            if not getattr(self, key) > 0:
                raise ValueError(f"{key} must be above 0, not {getattr(self, key)}")
        for key in _NOT_NEGATIVE:
            if getattr(self, key) < 0:
                raise ValueError(f"{key} must be at least 0, not {getattr(self, key)}")
        if not self.inputs < self.features:
            raise ValueError(f"inputs must be fewer than features ({self.features}), not {self.inputs}")
        if self.density > 1:
            raise ValueError(f"density must be at most 1, not {self.density}")
        if self.bias_decay * self.lr >= 1:
            raise ValueError(f"bias_decay * lr must be below 1, or biases change their sign, not {self.bias_decay}")
        if self.steps % (2 * self.half_cycle):
            raise ValueError(
                f"steps must be whole cycles of {2 * self.half_cycle} (2 * half_cycle): losses are compared over "
                f"cycles; not {self.steps}"
            )
        if not 0 < self.rate < 1:
            raise ValueError(f"rate must lie in (0, 1), not {self.rate}")

    @property
    def shape(self) -> tuple[object, ...]:
        """What runs of one batched model share."""
        return tuple(getattr(self, key) for key in SHAPE)

    @property
    def outputs(self) -> int:
        """Width of the model's output."""
        return self.inputs if self.task == "reprojector" else self.features

    @property
    def identity(self) -> str:
        """16 hex digits that differ whenever a setting differs."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

"""The settings of an inhibition, and what is possible among them."""

from dataclasses import dataclass
from typing import Literal, get_args, get_origin, get_type_hints

PUBLISHED_WEIGHTS = "1e-11 for 70M, 1e-10 for 410M, 1e-9 for 2.8B, each with reduction=sum"


@dataclass(kw_only=True)
class InhibitionConfig:
    """How monosemantic neurons are inhibited. A neuron is one (position, channel) of a block's output."""

    method: Literal["none", "l2e"] = "l2e"
    """`l2e`: moving threshold and log penalty (L13-L15). `none`: nothing, not even statistics."""

    blocks: str | list[int] = "middle-2"
    """Tapped blocks: middle-2, middle-third, top-bottom, or indices from 0."""

    rate: float = 0.02
    """Share of the outputs to select, in (0, 1); 2% in L2E."""

    weight: float | None = None
    """Factor of the penalty in the loss, at least 0. The papers' depends on the model's size."""

    reduction: Literal["sum", "sequence"] = "sum"
    """`sum` over the micro-batch, the paper's: a weight means something only with a micro-batch size.
    `sequence`: that sum divided by the number of sequences, the same for every split of a batch."""

    scope: Literal["step"] = "step"
    """`step`: statistics and threshold move once per optimizer step, whatever the split of its batch."""

    compensation: float = 0.01
    """Share of the layer's mean variance added to each neuron's in the score (M04); 0 allowed."""

    late_start: int = 10
    """First updates in which only statistics are gathered (M04)."""

    warmup: int = 10
    """Updates after that whose k-th largest scores start the threshold (L13)."""

    forget_after: int | None = 10
    """Updates after which the statistics forget (M03); null never."""

    def __post_init__(self) -> None:
        for key, hint in get_type_hints(type(self)).items():
            if get_origin(hint) is Literal and getattr(self, key) not in get_args(hint):
                raise ValueError(f"{key} must be one of {', '.join(get_args(hint))}, not {getattr(self, key)!r}")
        if not 0 < self.rate < 1:
            raise ValueError(f"rate must lie in (0, 1), not {self.rate}")
        if self.method == "l2e" and self.weight is None:
            raise ValueError(f"weight: method l2e needs one (published: {PUBLISHED_WEIGHTS}); 0 only observes")
        if self.weight is not None and not 0 <= self.weight < float("inf"):
            raise ValueError(f"weight must be at least 0, not {self.weight}")
        if self.compensation < 0:
            raise ValueError(f"compensation must be at least 0, not {self.compensation}")
        if self.late_start < 1:
            raise ValueError(f"late_start must be at least 1 (a score needs statistics), not {self.late_start}")
        if self.warmup < 1:
            raise ValueError(f"warmup must be at least 1, not {self.warmup}")
        if self.forget_after is not None and self.forget_after < 1:
            raise ValueError(f"forget_after must be at least 1 or null, not {self.forget_after}")

"""The settings of an inhibition, and what is possible among them."""

from dataclasses import dataclass
from typing import Literal, get_args, get_origin, get_type_hints

from l2e.inhibition.kernels import Kernel, missing
from l2e.inhibition.methods import METHODS, Method

PUBLISHED_WEIGHTS = "1e-11 for 70M, 1e-10 for 410M, 1e-9 for 2.8B, each with reduction=sum"


@dataclass(kw_only=True)
class InhibitionConfig:
    """How monosemantic neurons are inhibited. A neuron is one (position, channel) of a block's output."""

    method: Literal[
        "none",
        "dropout",
        "l2e",
        "l2e_no_threshold",
        "memel",
        "reverse_deactivation",
        "naive_a",
        "naive_b",
    ] = "l2e"
    """See `l2e.inhibition.methods.METHODS`; `none` does nothing and gathers no statistics."""

    blocks: str | list[int] | list[str] = "middle-2"
    """Tapped blocks: middle-2, middle-third, middle-4, top-bottom, indices from 0, or paths of modules."""

    stack: str | None = None
    """Path of the list that holds the blocks, e.g. "encoder.layers.2.blocks"; null finds it."""

    rate: float = 0.02
    """Share of the outputs to select, in (0, 1); 2% in L2E."""

    top_k: int | None = None
    """Neurons per sample in place of `rate`, where selection is exact; MEmeL's code takes 1."""

    weight: float | None = None
    """Factor of the penalty in the loss, at least 0. The papers' depends on the model's size."""

    strength: float | list[list[float]] | None = None
    """In place of `weight`: |penalty gradient| / |loss gradient| at each tap, held by adapting the weight.
    A list of [update, strength] is followed in straight lines."""

    reduction: Literal["sum", "sequence"] = "sum"
    """`sum` over the micro-batch, the paper's: a weight means something only with a micro-batch size.
    `sequence`: that sum divided by the number of sequences, the same for every split of a batch."""

    delta: float | None = None
    """How much the selected gradient is reversed (M08), where the method leaves it open: memel and
    reverse_deactivation, 1 by default."""

    dropout: float = 0.2
    """Probability of method dropout (L18)."""

    dropout_at: Literal["taps", "everywhere"] = "taps"
    """`taps`: the outputs of the tapped blocks; `everywhere`: every torch.nn.Dropout of the model (2.28)."""

    scope: Literal["step", "micro_batch"] = "step"
    """`step`: statistics and threshold move once per optimizer step, whatever the split of its batch.
    `micro_batch`: after each forward pass, the papers' letter; the split then matters."""

    neurons: Literal["position", "channel"] = "position"
    """`position`: each (position, channel) has its statistics, as in the papers; `channel` pools positions."""

    channel_dim: int = -1
    """Dimension of the channels when they are pooled; 1 for the [batch, channel, height, width] of images."""

    compensation: float = 0.01
    """Share of the layer's mean variance added to each neuron's in the score (M04); 0 allowed."""

    late_start: int = 10
    """First updates in which only statistics are gathered (M04)."""

    warmup: int = 10
    """Updates after that whose k-th largest scores start the threshold (L13)."""

    forget_after: int | None = 10
    """Updates after which the statistics forget (M03); null never."""

    count_offset: int = 0
    """Batches that the past counts too many: 1 in MEmeL's published code, 0 in its Lemma 3.2 (2.4)."""

    update_first: bool = False
    """Score with statistics that hold the batch itself, as MEmeL's published code; the papers score first
    (2.5). Needs `scope: micro_batch`."""

    kernel: Kernel = "auto"
    """What works on the outputs: `torch`, `triton` (one pass over the memory), or `auto`: triton on a GPU where it is
    installed and the outputs are fp32, bf16 or fp16, torch otherwise."""

    stochastic_rounding: bool = False
    """In half precision round the sum of the two gradients at random, so that a small penalty acts on average."""

    seed: int = 0
    """Of the random rounding."""

    def __post_init__(self) -> None:
        for key, hint in get_type_hints(type(self)).items():
            if get_origin(hint) is Literal and getattr(self, key) not in get_args(hint):
                raise ValueError(f"{key} must be one of {', '.join(get_args(hint))}, not {getattr(self, key)!r}")
        self._check_selection()
        self._check_action()
        self._check_statistics()
        self._check_kernel()

    @property
    def recipe(self) -> Method:
        """What the method selects and does."""
        return METHODS[self.method]

    @property
    def deactivation(self) -> float:
        """delta of M08."""
        fixed = self.recipe.delta
        return fixed if fixed is not None else 1.0 if self.delta is None else self.delta

    def strength_points(self) -> list[tuple[float, float]]:
        """The asked strength as (update, strength) points; empty when a weight is given instead."""
        if self.strength is None:
            return []
        if isinstance(self.strength, list):
            return [(point[0], point[1]) for point in self.strength]
        return [(0.0, self.strength)]

    def _check_selection(self) -> None:
        if not 0 < self.rate < 1:
            raise ValueError(f"rate must lie in (0, 1), not {self.rate}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, not {self.top_k}")
        if self.top_k is not None and self.recipe.selection != "exact":
            raise ValueError(f"top_k: method {self.method} selects by `rate`; top_k is for {_names('exact')}")
        if self.late_start < 1:
            raise ValueError(f"late_start must be at least 1 (a score needs statistics), not {self.late_start}")
        if self.warmup < 1:
            raise ValueError(f"warmup must be at least 1, not {self.warmup}")

    def _check_action(self) -> None:
        if self.recipe.action == "penalty" and self.weight is None and self.strength is None:
            raise ValueError(
                f"weight: method {self.method} needs one (published: {PUBLISHED_WEIGHTS}) or a `strength`; "
                f"weight 0 only observes"
            )
        if self.weight is not None and not 0 <= self.weight < float("inf"):
            raise ValueError(f"weight must be at least 0, not {self.weight}")
        if isinstance(self.strength, list) and not all(len(point) == 2 for point in self.strength):
            raise ValueError(f"strength must be a number or a list of [update, strength], not {self.strength}")
        points = self.strength_points()
        if self.strength is not None and (not points or points != sorted(points)):
            raise ValueError(f"strength must name updates in rising order, not {self.strength}")
        if any(not 0 <= value < float("inf") for _, value in points):
            raise ValueError(f"strength must be at least 0, not {self.strength}")
        if self.delta is not None and (self.recipe.action != "deactivate" or self.recipe.delta is not None):
            raise ValueError(f"delta: method {self.method} has none to set; memel and reverse_deactivation do")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), not {self.dropout}")

    def _check_statistics(self) -> None:
        if self.compensation < 0:
            raise ValueError(f"compensation must be at least 0, not {self.compensation}")
        if self.forget_after is not None and self.forget_after < 1:
            raise ValueError(f"forget_after must be at least 1 or null, not {self.forget_after}")
        if self.count_offset < 0:
            raise ValueError(f"count_offset must be at least 0, not {self.count_offset}")
        if self.channel_dim == 0:
            raise ValueError("channel_dim must not be 0, the dimension of the batch")
        if self.update_first and self.scope == "step":
            raise ValueError("update_first needs scope=micro_batch: a step's statistics are whole only at its end")

    def _check_kernel(self) -> None:
        if self.kernel != "triton":
            return
        if self.recipe.selection is None:
            raise ValueError(f"kernel: method {self.method} has no work for triton; use kernel=auto")
        if self.neurons == "channel" and self.channel_dim != -1:
            raise ValueError("kernel: triton pools positions only where the channels are last (channel_dim=-1)")
        if (reason := missing()) is not None:
            raise ValueError(f"kernel=triton is impossible: {reason}; kernel=auto takes what there is")


def _names(selection: str) -> str:
    return ", ".join(name for name, method in METHODS.items() if method.selection == selection)

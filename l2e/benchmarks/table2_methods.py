"""The methods of Table 2, put on a model for a timing and taken off again, their statistics kept."""

from typing import Any

import torch
from torch import Tensor, nn

import l2e
from l2e.benchmarks.published_memel import FORGETTING, Layer, PublishedMemel
from l2e.benchmarks.table2_config import OURS, PUBLISHED
from l2e.inhibition import Inhibition, select_blocks

LATE_START, WARMUP = 4, 1
"""Updates before selection starts; fewer make the variances poor and the threshold too high."""

WEIGHT = 1e-11
"""Of the penalty: that of 70M. Any other takes as long."""


class Ours:
    """A method of `l2e.attach`."""

    warm_up = LATE_START + WARMUP

    def __init__(self, model: nn.Module, method: str, blocks: str | list[int], rate: float, state: Any) -> None:
        settings: dict[str, Any] = {"rate": rate} if method != "none" else {}
        if method == "l2e":
            settings["weight"] = WEIGHT
        self.inhibition: Inhibition = l2e.attach(
            model, method=method, blocks=blocks, late_start=LATE_START, warmup=WARMUP, **settings
        )
        if state is not None:
            self.inhibition.load_state_dict(state)
        self.penalty, self.step, self.remove = self.inhibition.penalty, self.inhibition.step, self.inhibition.remove

    def state(self) -> Any:
        """To go on with."""
        return self.inhibition.state_dict()

    def selected(self) -> float | None:
        """Share of the outputs that the last step selected; None for `none`."""
        shares = [value for key, value in self.inhibition.metrics().items() if key.endswith("/selected")]
        return sum(shares) / len(shares) if shares else None


class Published:
    """MEmeL's published algorithm. It knows no updates: all happens in its forward passes."""

    warm_up = 2

    def __init__(self, model: Any, method: str, blocks: str | list[int], rate: float, state: Any) -> None:
        layers = model.base_model.layers
        tapped = [layers[index] for index in select_blocks(len(layers), blocks)]
        self.memel = PublishedMemel(tapped, rate, layers=state)
        self.remove = self.memel.remove
        self._nothing = torch.zeros((), device=next(model.parameters()).device)

    def penalty(self) -> Tensor:
        """None of it is a loss."""
        return self._nothing

    def step(self) -> None:
        """Nothing: the statistics move in each forward pass."""

    def state(self) -> list[Layer]:
        """To go on with; from now on it inhibits, as it would after its first passes."""
        for layer in self.memel.layers:
            layer.calls = max(layer.calls, FORGETTING)
        return self.memel.layers

    def selected(self) -> float:
        """Share of the outputs of the last pass that were inhibited."""
        return float(torch.stack([layer.inhibited for layer in self.memel.layers]).mean())


METHODS: dict[str, type[Ours] | type[Published]] = {
    **dict.fromkeys(OURS, Ours),
    **dict.fromkeys(PUBLISHED, Published),
}
"""What a method is put on a model by: called with model, method, blocks, rate and a state, or None."""

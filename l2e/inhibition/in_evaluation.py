"""A trained model's inhibition, active at test time: the papers' "-T" (M22)."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from l2e.inhibition.config import InhibitionConfig
from l2e.inhibition.methods import METHODS
from l2e.inhibition.outputs import hidden_states, with_hidden_states
from l2e.inhibition.placement import tapped_modules
from l2e.inhibition.statistics import Statistics


def acts_at_test(method: str) -> bool:
    """Whether a method can change what a model says at test time: it must edit activations.

    A penalty is a term of the training loss, and dropout ends with training.
    """
    return METHODS[method].action == "deactivate"


def selects(state: Mapping[str, Any]) -> bool:
    """Whether the training that a state is of had begun to select; before that there is nothing to act."""
    restored = _restored(InhibitionConfig(**state["config"]), state, torch.device("cpu"))
    return any(statistics.selects for statistics in restored.values())


def _restored(config: InhibitionConfig, state: Mapping[str, Any], device: torch.device) -> dict[int | str, Statistics]:
    """The statistics of each tapped block."""
    found = {key: Statistics(config, f"block {key}") for key in state["taps"]}
    for key, statistics in found.items():
        statistics.load_state_dict(state["taps"][key]["statistics"], device)
    return found


class InhibitionInEvaluation:
    """While it is attached, a model in evaluation mode has its selected outputs put at their mean.

    Statistics and threshold are those of a saved state and stay as they are. With `neurons: position` a position
    is that of training, counted from a sequence's first token; positions beyond those of training have no
    statistics and are left alone. Sequences must be whole (no key-value cache) and padded on the right if at all. Exact
    selection takes its share of the neurons of each sequence's own positions, so a batch's padding changes nothing.

    Args:
        model: the one that the state was saved with.
        state: of `Inhibition.state_dict`.

    Attributes:
        lengths: tokens of each sequence in the passes that follow; None: there is no padding.

    Raises:
        ValueError: the method changes nothing at test time, or the model lacks the tapped blocks.
    """

    def __init__(self, model: nn.Module, state: Mapping[str, Any]) -> None:
        config = InhibitionConfig(**state["config"])
        if not acts_at_test(config.method):
            acting = ", ".join(name for name in METHODS if acts_at_test(name))
            raise ValueError(f"method {config.method} changes nothing at test time; {acting} do")
        self.lengths: Sequence[int] | None = None
        modules = tapped_modules(model, config.blocks, config.stack)
        if set(modules) != set(state["taps"]):
            raise ValueError(f"saved taps are blocks {list(state['taps'])}, these are {list(modules)}")
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        self._statistics = _restored(config, state, device)
        self._hooks = [
            module.register_forward_hook(partial(self._edit_output, self._statistics[key]))
            for key, module in modules.items()
        ]

    def remove(self) -> None:
        """Take it off the model."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _edit_output(self, statistics: Statistics, block: nn.Module, inputs: Any, output: Any) -> Any:
        """Forward hook."""
        if block.training or not statistics.selects:
            return None
        return with_hidden_states(output, self._edit(statistics, hidden_states(output)))

    def _edit(self, statistics: Statistics, values: Tensor) -> Tensor:
        if self.lengths is None:
            return self._edit_whole(statistics, values)
        if len(self.lengths) != len(values):
            raise ValueError(f"lengths are given for {len(self.lengths)} sequences, not for these {len(values)}")
        edited = values.clone()
        for row, length in enumerate(self.lengths):
            edited[row : row + 1, :length] = self._edit_whole(statistics, values[row : row + 1, :length])
        return edited

    def _edit_whole(self, statistics: Statistics, values: Tensor) -> Tensor:
        """Of sequences [batch, *shape] without padding."""
        known = values[:, : statistics.positions]
        edited = statistics.look(known, "deactivate").edited
        assert edited is not None
        return torch.cat([edited, values[:, known.shape[1] :]], dim=1)

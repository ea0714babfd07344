"""The Dropout baseline of L2E (row L18): where the paper's p = 0.2 goes is not said (2.28)."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from l2e.inhibition.outputs import hidden_states, with_hidden_states


def drop_at(modules: Iterable[nn.Module], p: float) -> list[Callable[[], None]]:
    """Dropout of probability p on the modules' outputs, in training mode; returns what undoes it."""

    @torch.compiler.disable
    def drop(block: nn.Module, inputs: Any, output: Any) -> Any:
        if not block.training:
            return None
        return with_hidden_states(output, F.dropout(hidden_states(output), p))

    return [module.register_forward_hook(drop).remove for module in modules]


def drop_everywhere(model: nn.Module, p: float) -> list[Callable[[], None]]:
    """Set every torch.nn.Dropout of the model to p; returns what undoes it.

    Raises:
        ValueError: the model has none.
    """
    found = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    if not found:
        raise ValueError(f"dropout_at: {type(model).__name__} has no torch.nn.Dropout; use dropout_at=taps")

    def restore(module: nn.Dropout, before: float) -> Callable[[], None]:
        return lambda: setattr(module, "p", before)

    undo = [restore(module, module.p) for module in found]
    for module in found:
        module.p = p
    return undo

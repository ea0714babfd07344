"""Where a block's output holds its hidden states."""

import copy
from collections.abc import MutableMapping
from typing import Any

from torch import Tensor

_KEYS = ("last_hidden_state", "hidden_states", "logits")


def hidden_states(output: Any) -> Tensor:
    """The tensor that a block returns alone, first in a tuple or list, or in a model output.

    Raises:
        TypeError: there is none.
    """
    found = output[_place(output)] if not isinstance(output, Tensor) else output
    if not isinstance(found, Tensor):
        raise TypeError(f"a tapped block returned {type(output).__name__} without hidden states that can be tapped")
    return found


def with_hidden_states(output: Any, states: Tensor) -> Any:
    """`output` with other hidden states; `output` itself stays as it is."""
    if isinstance(output, Tensor):
        return states
    place = _place(output)
    if isinstance(output, MutableMapping):
        changed = copy.copy(output)
        changed[place] = states
        return changed
    items = [states, *output[1:]]
    return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)


def _place(output: Any) -> Any:
    if isinstance(output, MutableMapping):
        tensors = [key for key, value in output.items() if isinstance(value, Tensor)]
        if tensors:
            return next((key for key in _KEYS if key in tensors), tensors[0])
    elif isinstance(output, tuple | list) and output:
        return 0
    raise TypeError(f"a tapped block returned {type(output).__name__}, which holds no hidden states")

"""Reading a GPT-NeoX model's values as they are computed, and stopping when the last is there."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from l2e.analysis.activation_settings import Site

See = Callable[[int, Tensor], None]
"""Called with a layer and its values [batch, positions, width], which it must not change."""


class _EnoughError(Exception):
    """The last value that was asked for is there."""


@contextmanager
def reading(model: Any, site: Site, layers: int, see: See) -> Iterator[Callable[[Tensor], None]]:
    """Within it the yielded function runs tokens [batch, positions] through the model up to block `layers` - 1.

    The language-model head is never computed, nor what comes behind the last value: of the MLP's hidden units that
    leaves out the last block's way back to the residual stream. There is no attention mask, which lets the kernels
    take their plain causal way: padding stands on the right, where no valid position sees it.

    Args:
        model: a GPTNeoXForCausalLM.
        site: which values.
        layers: of the first so many blocks.
        see: what is done with them.
    """

    def told(layer: int, values: Tensor) -> None:
        see(layer, values)
        if layer == layers - 1:
            raise _EnoughError

    def forward(tokens: Tensor) -> None:
        try:
            model.gpt_neox(tokens, use_cache=False)
        except _EnoughError:
            return
        raise RuntimeError("the model ended before its last block had told its values")

    handles = [_hook(model.gpt_neox.layers[layer], site, layer, told) for layer in range(layers)]
    try:
        yield forward
    finally:
        for handle in handles:
            handle.remove()


def width_of(config: Any, site: Site) -> int:
    """Values of one layer at one position."""
    return config.hidden_size if site == "block_output" else config.intermediate_size


def _hook(block: Any, site: Site, layer: int, see: See) -> RemovableHandle:
    def output(_module: nn.Module, _inputs: tuple[Any, ...], values: Tensor) -> None:
        see(layer, values)

    def first_input(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        see(layer, inputs[0])

    if site == "block_output":
        return block.register_forward_hook(output)
    if site == "hidden_pre":
        return block.mlp.dense_h_to_4h.register_forward_hook(output)
    return block.mlp.dense_4h_to_h.register_forward_pre_hook(first_input)

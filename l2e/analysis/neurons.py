"""MLP hidden units of a GPT-NeoX: their names, where they are, and switching them off."""

import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from l2e.errors import UserError

Place = Literal["hidden_post", "hidden_pre"]
"""After the GELU, or before it."""


class Neuron(NamedTuple):
    """One MLP hidden unit, both numbers from 0."""

    layer: int
    number: int

    def __str__(self) -> str:
        return f"L{self.layer}.N{self.number}"


def parse_group(text: str) -> tuple[Neuron, ...]:
    """Neurons written as in the papers, several joined by `+`: "L3.N609" or "L3.N609+L4.N12".

    Raises:
        ValueError: it is written otherwise, or names a neuron twice.
    """
    parts = text.split("+")
    matches = [re.fullmatch(r"L(\d+)\.N(\d+)", part.strip()) for part in parts]
    if not all(matches):
        raise ValueError(f"neurons must be written like L3.N609, several at a time like L3.N609+L4.N12, not {text!r}")
    found = tuple(Neuron(int(match[1]), int(match[2])) for match in matches if match)
    if len(set(found)) < len(found):
        raise ValueError(f"neurons: {text} names a neuron twice")
    return found


def name_group(group: Iterable[Neuron]) -> str:
    """The opposite of `parse_group`."""
    return "+".join(map(str, group))


def mlps(model: nn.Module) -> list[Any]:
    """The MLP of each block of a GPTNeoXForCausalLM."""
    return [block.mlp for block in model.gpt_neox.layers]  # type: ignore[union-attr]


def check_neurons(model: nn.Module, neurons: Iterable[Neuron]) -> None:
    """UserError names the first neuron that the model does not have."""
    layers = mlps(model)
    for neuron in neurons:
        width = layers[0].dense_4h_to_h.in_features
        if neuron.layer >= len(layers) or neuron.number >= width:
            raise UserError(f"neurons: the model has no {neuron}; it has {len(layers)} layers of {width}, from 0")


@contextmanager
def deactivated(model: nn.Module, neurons: Iterable[Neuron], place: Place = "hidden_post") -> Iterator[None]:
    """Within it the neurons are 0 at all positions (M24); the weights stay as they are.

    GELU(0) = 0, so that both places give the same. They differ where the activation function does not.

    Args:
        model: a GPTNeoXForCausalLM.
        neurons: to switch off; none at all is allowed.
        place: what is set to 0.

    Raises:
        UserError: the model has no such neuron.
    """
    neurons = list(neurons)
    check_neurons(model, neurons)
    with ExitStack() as hooks:
        for layer in sorted({neuron.layer for neuron in neurons}):
            mlp = mlps(model)[layer]
            silent = [neuron.number for neuron in neurons if neuron.layer == layer]
            if place == "hidden_post":
                handle = mlp.dense_4h_to_h.register_forward_pre_hook(_zero_input(silent))
            else:
                handle = mlp.dense_h_to_4h.register_forward_hook(_zero_output(silent))
            hooks.callback(handle.remove)
        yield


def _zero_input(silent: list[int]) -> Any:
    return lambda module, inputs: (_zeroed(inputs[0], silent), *inputs[1:])


def _zero_output(silent: list[int]) -> Any:
    return lambda module, inputs, output: _zeroed(output, silent)


def _zeroed(hidden: Tensor, silent: list[int]) -> Tensor:
    hidden = hidden.clone()
    hidden.index_fill_(-1, torch.tensor(silent, device=hidden.device), 0.0)
    return hidden

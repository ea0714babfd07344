"""Attach an inhibition to a model: the three lines that add L2E to any training loop."""

from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from l2e.inhibition.config import InhibitionConfig
from l2e.inhibition.placement import find_blocks, select_blocks
from l2e.inhibition.reduce import sum_over_ranks, world_size
from l2e.inhibition.tap import Tap


def attach(
    model: nn.Module, method: str = "l2e", blocks: str | list[int] = "middle-2", **settings: Any
) -> "Inhibition":
    """Tap the chosen blocks of a model.

        inhibition = l2e.attach(model, method="l2e", blocks="middle-2", rate=0.02, weight=1e-11)
        loss = cross_entropy + inhibition.penalty()
        loss.backward(); optimizer.step(); inhibition.step()

    In training mode, with gradients enabled, each tapped output [batch, *shape] is scored, selected and
    counted; its values are not changed. In evaluation mode nothing happens at all.

    Args:
        model: any module that keeps its blocks in a ModuleList or Sequential.
        method: "l2e" or "none".
        blocks: see `select_blocks`.
        settings: the other fields of `InhibitionConfig`.

    Raises:
        ValueError: an impossible setting, a block outside the model, or a model without blocks.
    """
    return Inhibition(model, InhibitionConfig(method=method, blocks=blocks, **settings))  # type: ignore[arg-type]


class Inhibition:
    """The taps of one model; made by `attach`."""

    def __init__(self, model: nn.Module, config: InhibitionConfig) -> None:
        self.config = config
        self.taps: dict[int, Tap] = {}
        self._handles = []
        self._device = next((p.device for p in model.parameters()), torch.device("cpu"))
        if config.method == "none":
            return
        stack = find_blocks(model)
        for index in select_blocks(len(stack), config.blocks):
            self.taps[index] = Tap(config)
            self._handles.append(stack[index].register_forward_hook(partial(_tap_output, self.taps[index])))

    def penalty(self) -> Tensor:
        """weight x the penalties of the forward passes since the last call (L15), to be added to the loss.

        Returns:
            0-dim fp32; 0 while there is nothing to inhibit.
        """
        penalties = [penalty for tap in self.taps.values() if (penalty := tap.take_penalty()) is not None]
        if not penalties:
            return torch.zeros((), device=self._device)
        return (self.config.weight or 0.0) * torch.stack(penalties).sum()

    def step(self) -> None:
        """End an update, after the optimizer's step; every rank must call it (it sums over the ranks)."""
        taps = list(self.taps.values())
        self._share_first_shift(taps)
        sum_over_ranks([tensor for tap in taps for tensor in tap.pending()])
        for tap in taps:
            tap.step()

    def metrics(self) -> dict[str, float]:
        """Per tapped block of the last update, e.g. "block2/threshold"; NaN before a value exists.

        threshold: tau. selected: share of the outputs above it. strength: |penalty gradient| / |gradient
        of the rest of the loss| at the tap. absorbed: share of the selected outputs whose gradient the
        working precision left unchanged. Waits for the device.
        """
        return {
            f"block{index}/{name}": value for index, tap in self.taps.items() for name, value in tap.metrics().items()
        }

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs; not part of the model's state. Call it between updates."""
        return {"config": asdict(self.config), "taps": {i: tap.state_dict() for i, tap in self.taps.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state.

        Raises:
            ValueError: it was saved by taps at other blocks.
        """
        if set(state["taps"]) != set(self.taps):
            raise ValueError(f"saved taps are blocks {sorted(state['taps'])}, these are {sorted(self.taps)}")
        for index, tap in self.taps.items():
            tap.load_state_dict(state["taps"][index], self._device)

    def remove(self) -> None:
        """Take the taps off the model."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _share_first_shift(self, taps: list[Tap]) -> None:
        """Before the first merge each rank has sums about its own mean: give all of them a common one."""
        if world_size() == 1:
            return
        shifting = [tap for tap in taps if tap.shift()]
        common = [tap.shift()[0] / world_size() for tap in shifting]
        sum_over_ranks(common)
        for tap, shift in zip(shifting, common, strict=True):
            tap.rebase(shift)


def _tap_output(tap: Tap, block: nn.Module, inputs: Any, output: Any) -> Any:
    """Forward hook: tap the hidden states, which a block returns alone or first in a tuple."""
    if not (block.training and torch.is_grad_enabled()):
        return None
    if isinstance(output, tuple):
        return (tap.forward(output[0]), *output[1:])
    return tap.forward(output)

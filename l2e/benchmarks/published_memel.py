"""MEmeL as its authors published it.

Written from the description of their code alone; nothing of `l2e.inhibition` is used, so that what it costs is what
theirs costs.

Per tapped layer, for outputs h [batch, ...] of a training pass, in fp32: mean and variance over the batch are merged
into running ones; from the 11th pass on the t outputs of each sample that deviate most, by

    (h - mean)^2 / (variance + mean of the variance / 100),

found by sorting, are replaced: h' = (1 - s (1 + ratio)) h + s (mean + ratio h without gradient), s being 1 on them.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

FORGETTING = 10
"""Passes after which old ones are forgotten, and before which nothing is inhibited."""


class PublishedMemel:
    """Reverse deactivation (ratio 1) at the outputs of some blocks.

    Args:
        blocks: their outputs are hidden states [batch, ...].
        share: of a sample's outputs that are inhibited: Table 2 of L2E took 2%.
        ratio: of the reversed gradient.
        layers: of an earlier one, whose statistics it takes over.
    """

    def __init__(
        self, blocks: Sequence[nn.Module], share: float, ratio: float = 1.0, layers: "list[Layer] | None" = None
    ) -> None:
        self.layers = layers or [Layer(share, ratio) for _ in blocks]
        self._hooks = [
            block.register_forward_hook(partial(_hook, layer)) for block, layer in zip(blocks, self.layers, strict=True)
        ]

    def remove(self) -> None:
        """Take it off the blocks; the statistics stay in `layers`."""
        for hook in self._hooks:
            hook.remove()


class Layer:
    """Statistics of one layer, and what they do to its outputs.

    Attributes:
        calls: training passes so far.
        mean, variance: running, fp32 [1, ...].
        inhibited: share of the outputs that the last pass changed, 0-dim.
    """

    def __init__(self, share: float, ratio: float) -> None:
        self.share = share
        self.ratio = ratio
        self.calls = 0
        self.mean = self.variance = torch.zeros(())
        self.inhibited = torch.zeros(())

    def __call__(self, outputs: Tensor) -> Tensor:
        """What the model goes on with."""
        self.calls += 1
        self._update(outputs.detach().float())
        if self.calls <= FORGETTING:
            return outputs
        return self._inhibit(outputs)

    def _update(self, outputs: Tensor) -> None:
        batch = len(outputs)
        mean, variance = outputs.mean(0, keepdim=True), outputs.var(0, unbiased=False, keepdim=True)
        if self.calls == 1:
            self.mean, self.variance = mean, variance * batch / (batch - 1)
            return
        count = min(self.calls, FORGETTING)
        grown = self.variance * (count - 1 / batch) + variance + (mean - self.mean) ** 2 / (1 + 1 / count)
        self.variance = grown / (count + 1 - 1 / batch)
        self.mean = (count * self.mean + mean) / (count + 1)

    def _inhibit(self, outputs: Tensor) -> Tensor:
        spread = self.variance + self.variance.mean() / 100
        deviation = ((outputs.detach() - self.mean) ** 2 / spread).flatten(1)
        chosen = max(1, round(self.share * deviation.shape[1]))
        limit = torch.kthvalue(-deviation, chosen, dim=1, keepdim=True).values
        selected = (-deviation <= limit).view(outputs.shape).float()
        self.inhibited = selected.mean()
        kept = (1 - selected * (1 + self.ratio)) * outputs
        return (kept + selected * (self.mean + self.ratio * outputs.detach())).to(outputs.dtype)


@torch.compiler.disable
def _hook(layer: Layer, block: nn.Module, inputs: Any, output: Any) -> Any:
    if not block.training:
        return None
    if isinstance(output, tuple):
        return (layer(output[0]), *output[1:])
    return layer(output)

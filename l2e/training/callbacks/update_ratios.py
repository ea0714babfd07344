"""Decrease Ratio and Total Update Ratio while a model is trained (M19, M20; MEmeL 4.3)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from l2e.inhibition import Inhibition, monosemanticity_score
from l2e.inhibition.outputs import hidden_states
from l2e.inhibition.tap import Tap
from l2e.inhibition.update_ratios import decrease_ratio, total_update_ratio
from l2e.training.events import Callback
from l2e.training.trainer import Trainer
from l2e.training.update_ratio_config import UpdateRatioConfig

Key = int | str


@dataclass(frozen=True, eq=False)
class Before:
    """The outputs of one tapped block before an update, and what is needed to compare them with those after it."""

    values: Tensor
    mean: Tensor
    selected: Tensor


class UpdateRatioCallback(Callback):
    """Pass some of an update's own rows through the model before and after it, and compare the selected outputs.

    Both passes are in evaluation mode, without gradients: nothing is deactivated, dropped, counted or drawn, so the
    training is the same as without. What is selected is decided before the update. The learning rate, the
    optimizer, the clipping and all rows of the update have their part in what is measured, unlike in
    `l2e.analysis.decrease_ratio`, where one plain step is taken with each method on the same weights.

    Records, per tapped block and in percent, means over the selected outputs of all ranks (NaN without any):

    - decrease_ratio: (1 - phi(z') / phi(z)) x 100 (M19);
    - update_ratio: |z' / z - 1| x 100 (M20), whose mean outputs near 0 dominate;
    - moved: sum |z' - z| / sum |z| x 100, which they do not.

    Args:
        inhibition: attached to the model that is trained, with taps.
        config: see `UpdateRatioConfig`.
    """

    priority = 5  # before metrics are written; its time is none of the training's

    def __init__(self, inhibition: Inhibition, config: UpdateRatioConfig) -> None:
        self.inhibition = inhibition
        self.config = config
        self._tokens = torch.empty(0)
        self._before: dict[Key, Before] = {}

    def before_step(self, trainer: Trainer) -> None:
        """Take the outputs before the update."""
        self._before = {}
        if not self.config.every or (trainer.step + 1) % self.config.every:
            return
        taps = {key: tap for key, tap in self.inhibition.taps.items() if _selects(tap)}
        if not taps:  # the same on every rank
            return
        rows = next(trainer.loader.positions(trainer.step))[: self.config.sequences]
        self._tokens = torch.from_numpy(trainer.loader.rows.gather(rows)).long()[:, :-1].to(trainer.engine.device)
        outputs = self._outputs(trainer)
        self._before = {key: _before(tap, outputs[key]) for key, tap in taps.items()}

    def after_step(self, trainer: Trainer) -> None:
        """Compare with the outputs after it; nothing is recorded of an update that was left out."""
        if not self._before or not trainer.engine.applied:
            return
        outputs = self._outputs(trainer)
        sums = torch.stack([_sums(before, outputs[key]) for key, before in self._before.items()])
        dist.all_reduce(sums)
        for key, found in zip(self._before, sums, strict=True):
            trainer.record |= {f"inhibition/{_name(key)}/{name}": value for name, value in _ratios(found).items()}
        self._before = {}

    @torch.no_grad()
    def _outputs(self, trainer: Trainer) -> dict[Key, Tensor]:
        """The tapped blocks' outputs [sequences, seq, hidden] in fp32."""
        found: dict[Key, Tensor] = {}

        def keep(key: Key, output: object) -> None:
            found[key] = hidden_states(output).float()

        hooks = [
            trainer.engine.model.get_submodule(path).register_forward_hook(
                lambda module, inputs, output, key=key: keep(key, output)
            )
            for key, path in self.inhibition.paths.items()
        ]
        trainer.engine.eval()
        try:
            trainer.engine.forward(self._tokens)
        finally:
            trainer.engine.train()
            for hook in hooks:
                hook.remove()
        return found


def _selects(tap: Tap) -> bool:
    """Whether it selects outputs by now: after its late start and the warm-up of its threshold."""
    moments = tap.statistics.moments
    return moments is not None and moments.updates >= tap.config.late_start and tap.statistics.threshold.ready


def _before(tap: Tap, values: Tensor) -> Before:
    moments = tap.statistics.moments
    assert moments is not None
    mean, var = (_against(values, each, tap) for each in (moments.mean, moments.var))
    scores = monosemanticity_score(values, mean, var, tap.config.compensation)
    return Before(values, mean, scores > tap.statistics.threshold.limit(scores))


def _against(values: Tensor, statistic: Tensor, tap: Tap) -> Tensor:
    """A statistic so that it broadcasts against values [sequences, seq, hidden]."""
    if tap.config.neurons == "position":
        return statistic[: values.shape[1]]
    shape = [1] * values.dim()
    shape[tap.config.channel_dim] = -1
    return statistic.view(shape)


def _sums(before: Before, after: Tensor) -> Tensor:
    """What adds up over ranks: numbers of selected outputs and their sums, float64 [6].

    Both scores are by the statistics before the update, so that a change of the score is a change of the output; the
    spread, the same in both, cancels.
    """
    z, moved, mean = (each.expand_as(after)[before.selected] for each in (before.values, after, before.mean))
    some = z != 0
    parts = [
        torch.ones_like(z),
        decrease_ratio((z - mean) ** 2, (moved - mean) ** 2),
        some,
        torch.where(some, total_update_ratio(torch.where(some, z, 1.0), moved), 0.0),
        (moved - z).abs(),
        z.abs(),
    ]
    return torch.stack([part.double().sum() for part in parts])


def _ratios(sums: Tensor) -> Mapping[str, Tensor]:
    count, decrease, some, update, change, size = sums
    return {"decrease_ratio": decrease / count, "update_ratio": update / some, "moved": 100 * change / size}


def _name(key: Key) -> str:
    return f"block{key}" if isinstance(key, int) else key

"""Attach an inhibition to a model: the three lines that add L2E to any training loop."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from l2e.inhibition.config import InhibitionConfig
from l2e.inhibition.dropout import drop_at, drop_everywhere
from l2e.inhibition.outputs import hidden_states, with_hidden_states
from l2e.inhibition.placement import tapped_modules
from l2e.inhibition.recompute import in_backward, to_be_recomputed
from l2e.inhibition.reduce import SumOverRanks, sum_over_ranks
from l2e.inhibition.statistics import require_finite, start_sharing
from l2e.inhibition.tap import Pass, Tap


def attach(
    model: nn.Module, method: str = "l2e", blocks: str | list[int] | list[str] = "middle-2", **settings: Any
) -> "Inhibition":
    """Tap the chosen blocks of a model.

        inhibition = l2e.attach(model, method="l2e", blocks="middle-2", rate=0.02, weight=1e-11)
        loss = cross_entropy + inhibition.penalty()
        loss.backward(); optimizer.step(); inhibition.step()

    In training mode, with gradients enabled, each tapped output [batch, *shape] is scored, selected and
    counted. The log penalty leaves its values as they are; deactivation puts the selected at their mean. In
    evaluation mode nothing happens at all.

    Args:
        model: any module; its blocks are found in a ModuleList or Sequential, or named by `blocks` or `stack`.
        method: "none", "dropout", "l2e", "l2e_no_threshold", "memel", "reverse_deactivation", "naive_a",
            "naive_b".
        blocks: see `select_blocks`, or a list of modules' paths.
        settings: the other fields of `InhibitionConfig`.

    Raises:
        ValueError: an impossible setting, a block outside the model, or a model without blocks.
    """
    return Inhibition(model, InhibitionConfig(method=method, blocks=blocks, **settings))  # type: ignore[arg-type]


class Inhibition:
    """The taps of one model; made by `attach`.

    Attributes:
        taps: by index of the block, or by its path where blocks are named by path.
        paths: where in the model each tapped module lies, by the same key.
    """

    def __init__(self, model: nn.Module, config: InhibitionConfig) -> None:
        self.config = config
        self.taps: dict[int | str, Tap] = {}
        self.paths: dict[int | str, str] = {}
        self._interrupted = False
        self._sharing: SumOverRanks | None = None
        self._undo: list[Callable[[], None]] = []
        self._device = next((p.device for p in model.parameters()), torch.device("cpu"))
        # A leaf for the graph of penalties that autograd does not link to their taps.
        self._anchor = torch.zeros((), requires_grad=True, device=self._device)
        if config.method == "none":
            return
        if config.recipe.action == "dropout" and config.dropout_at == "everywhere":
            self._undo = drop_everywhere(model, config.dropout)
            return
        modules = tapped_modules(model, config.blocks, config.stack)
        names = {id(module): path for path, module in model.named_modules()}
        self.paths = {key: names[id(module)] for key, module in modules.items()}
        if config.recipe.action == "dropout":
            self._undo = drop_at(modules.values(), config.dropout)
            return
        uncompiled = torch.compiler.disable  # here, because torch's compiler takes seconds to be imported
        # In a `partial` the tap is copied with the model; in a closure a copy would feed this one.
        tap_output, begin, end = (uncompiled(each) for each in (_tap_output, type(self)._begin, type(self)._end))
        for key, module in modules.items():
            self.taps[key] = Tap(config, _name(key))
            self._undo.append(module.register_forward_hook(partial(tap_output, self.taps[key])).remove)
        self._undo.append(model.register_forward_pre_hook(partial(begin, self)).remove)
        self._undo.append(model.register_forward_hook(partial(end, self)).remove)

    def penalty(self) -> Tensor:
        """The weighted penalties of the forward passes since the last call (L15), to be added to the loss.

        Returns:
            0-dim fp32; 0 while there is nothing to inhibit, and for methods that edit activations.
        """
        self._drop_interrupted()
        taken = [tap.take_penalty() for tap in self.taps.values()]
        penalties = [penalty for penalty, _ in taken if penalty is not None]
        unlinked = [run for _, runs in taken for run in runs]
        if not penalties:
            return torch.zeros((), device=self._device)
        total = torch.stack([penalty.to(penalties[0].device) for penalty in penalties]).sum()
        if not unlinked:
            return total
        if self._anchor.device != total.device:  # autograd has a thread per device: the scale must not come late
            self._anchor = torch.zeros((), requires_grad=True, device=total.device)
        return total + _BringScale.apply(self._anchor, unlinked)

    def start_sharing(self) -> None:
        """Begin to sum over the ranks what the update's forward passes gathered; `step` ends it.

        If called between the last forward pass of an update and its backward pass, on every rank, the messages
        travel beside the backward pass. Without it `step` begins with this.

        Raises:
            RuntimeError: a tapped block has run on some ranks only.
        """
        self._drop_interrupted()
        if self._sharing is None:
            self._sharing = start_sharing([tap.statistics for tap in self.taps.values()])

    def step(self) -> None:
        """End an update, after the optimizer's step; every rank must call it (it sums over the ranks).

        Raises:
            FloatingPointError: a tapped block gave NaN or infinite outputs; the statistics are as before.
            RuntimeError: no tapped block has run in training mode so far.
        """
        taps = list(self.taps.values())
        statistics = [tap.statistics for tap in taps]
        try:
            if taps:
                self.start_sharing()
                sum_over_ranks([tap.meter.totals for tap in taps])
                self._end_sharing()
            require_finite(statistics)
        except FloatingPointError:
            for tap in taps:
                tap.drop()
            raise
        if taps and all(each.moments is None for each in statistics):
            names = ", ".join(tap.statistics.name for tap in taps)
            raise RuntimeError(
                f"step() was called, but {names} never ran in training mode with gradients since attach(): is the "
                f"model in train() mode, and is it the one that was attached to?"
            )
        for tap in taps:
            tap.step()

    def skip(self) -> None:
        """End an update that the optimizer did not make: forget what it gathered, in place of `step`.

        Under `scope: micro_batch` statistics and threshold have moved with each forward pass and stay so.
        """
        self._interrupted = False
        self._end_sharing()
        for tap in self.taps.values():
            tap.drop()

    def metrics(self) -> dict[str, float]:
        """Per tapped block of the last update, e.g. "block2/threshold"; NaN before a value exists.

        threshold: tau. selected: share of the outputs above it. strength: |penalty gradient| / |gradient
        of the rest of the loss| at the tap. absorbed: share of the selected outputs whose gradient the
        working precision left unchanged. weight: of the penalty, where `strength` adapts it. Waits for the
        device.
        """
        return {
            f"{_name(key, '')}/{name}": value for key, tap in self.taps.items() for name, value in tap.metrics().items()
        }

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs; not part of the model's state. Call it between updates."""
        taps = {key: tap.state_dict() for key, tap in self.taps.items()}
        return {"config": asdict(self.config), "taps": taps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state.

        Raises:
            ValueError: it was saved by another method or by taps at other blocks.
        """
        if state["config"]["method"] != self.config.method:
            raise ValueError(f"saved by method {state['config']['method']}, this is {self.config.method}")
        if set(state["taps"]) != set(self.taps):
            raise ValueError(f"saved taps are blocks {list(state['taps'])}, these are {list(self.taps)}")
        for key, tap in self.taps.items():
            tap.load_state_dict(state["taps"][key], self._device)

    def remove(self) -> None:
        """Take everything off the model that `attach` put on it."""
        for undo in self._undo:
            undo()
        self._undo.clear()

    def _begin(self, model: nn.Module, inputs: Any) -> None:
        if model.training and torch.is_grad_enabled() and not in_backward():
            if self._sharing is not None:
                raise RuntimeError("start_sharing() was called: it comes after the last forward pass of an update")
            self._drop_interrupted()
            self._interrupted = True

    def _end(self, model: nn.Module, inputs: Any, output: Any) -> None:
        self._interrupted = False

    def _end_sharing(self) -> None:
        if self._sharing is not None:
            self._sharing.wait()
            self._sharing = None

    def _drop_interrupted(self) -> None:
        """Forget what this update has gathered if a forward pass began and never ended (an error, Ctrl-C).

        Half of it cannot be told from the micro-batches before it, so the update starts anew.
        """
        if self._interrupted:
            self._interrupted = False
            for tap in self.taps.values():
                tap.drop()


def _name(key: int | str, space: str = " ") -> str:
    return f"block{space}{key}" if isinstance(key, int) else key


def _tap_output(tap: Tap, block: nn.Module, inputs: Any, output: Any) -> Any:
    """Forward hook: tap the hidden states of a block in training."""
    if not block.training:
        return None
    if not torch.is_grad_enabled():
        return with_hidden_states(output, tap.forward(hidden_states(output), False)) if to_be_recomputed() else None
    values = hidden_states(output)
    return with_hidden_states(output, tap.recompute(values) if in_backward() else tap.forward(values, True))


class _BringScale(torch.autograd.Function):
    """0, whose backward pass tells forward passes by how much their penalty counts in the loss.

    It comes after the forward pass, so autograd runs it before the blocks are recomputed.
    """

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, runs: list[Pass]) -> Tensor:
        ctx.runs = runs
        return torch.zeros_like(anchor)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None]:
        for run in ctx.runs:
            run.scale = grads[0]
        return None, None

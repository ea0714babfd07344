"""One tapped block: what is done to its selected outputs, forwards, backwards and when recomputed."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from l2e.inhibition.config import InhibitionConfig
from l2e.inhibition.kernels import load_triton, takes_triton, torch_ops
from l2e.inhibition.reduce import rank
from l2e.inhibition.rule import Purpose, Rule, View
from l2e.inhibition.statistics import Statistics
from l2e.inhibition.strength import GradientMeter, Rounding, StrengthControl


@dataclass(eq=False)
class Pass:
    """One forward pass through a tap: what its backward pass, or its recomputation, needs again."""

    rule: Rule
    weight: Tensor
    """Of the penalty, 0-dim fp32."""

    share: float
    """1 / number of sequences under `reduction: sequence`, 1 under `sum`."""

    taken: bool = False
    """Whether its penalty has been added to a loss."""

    scale: Tensor | None = None
    """Gradient of the loss with respect to this pass's penalty, where autograd cannot bring it here."""


class Tap:
    """A tapped block.

    Args:
        config: the inhibition's.
        name: of the block, for messages.

    Attributes:
        statistics: moments and threshold of its outputs.
        weight: factor of the penalty in this update, 0-dim fp32.
        strength: |penalty gradient| / |gradient of the rest of the loss| of the last update.
        absorbed: share of the selected outputs whose gradient the precision left unchanged, likewise.
    """

    def __init__(self, config: InhibitionConfig, name: str) -> None:
        self.config = config
        self.statistics = Statistics(config, name)
        self.weight: Tensor
        self.control: StrengthControl | None
        self.strength = self.absorbed = torch.tensor(torch.nan)
        self._copies = False  # whether the model changes these outputs in place
        self._watched: tuple[Tensor, int] | None = None
        self._penalties: list[Tensor] = []
        self._linked: list[Pass] = []  # by autograd, and not yet through their backward pass
        self._unlinked: list[Pass] = []
        self._build(torch.device("cpu"))

    @property
    def inhibits(self) -> bool:
        """Whether an output can be changed; a weight of 0 leaves the graph as it is."""
        return self.config.recipe.action == "deactivate" or self.control is not None or bool(self.config.weight)

    @property
    def _purpose(self) -> Purpose:
        action = self.config.recipe.action
        return "count" if not self.inhibits else "deactivate" if action == "deactivate" else "penalty"

    def forward(self, values: Tensor, linked: bool) -> Tensor:
        """See one micro-batch of outputs [batch, *shape] and inhibit the selected.

        Args:
            values: the block's hidden states.
            linked: whether autograd records this pass; if not, it will be recomputed.

        Returns:
            What the model goes on with: equal values for the log penalty, deactivated ones otherwise.

        Raises:
            ValueError, FloatingPointError: see `Statistics.observe`.
        """
        if values.numel() == 0:
            return values
        if values.device != self.device:
            self.load_state_dict(self.state_dict(), values.device)
        view = self.statistics.observe(values.detach(), self._purpose)
        if view is None or not self.inhibits:
            self._watched = (values, values._version)
            return values
        run = Pass(view.rule, self.weight, 1 / len(values) if self.config.reduction == "sequence" else 1.0)
        (self._linked if linked else self._unlinked).append(run)
        if view.logs is None:
            return _Deactivate.apply(values, view, run, self)
        penalty = run.weight * run.share * view.logs
        if linked:
            values, penalty = self._attach(values, penalty, run)
        self._penalties.append(penalty)
        return values

    def recompute(self, values: Tensor) -> Tensor:
        """Do to recomputed outputs what was done to them before, and count nothing.

        Raises:
            RuntimeError: it cannot be told which forward pass is recomputed.
        """
        run = self._recall()
        if run is None:
            return values
        if self.config.recipe.action == "deactivate" or self.config.recipe.selection == "exact":
            view = self.statistics.look_again(values.detach(), run.rule, self._purpose)
            run.rule = view.rule
            if view.edited is not None:
                return _Deactivate.apply(values, view, run, self)
        return self._attach(values, values.new_zeros((), dtype=torch.float32), run)[0]

    def take_penalty(self) -> tuple[Tensor | None, list[Pass]]:
        """The penalty since the last call, and the passes to which autograd does not link it."""
        self._look_for_changes()
        penalties, self._penalties = self._penalties, []
        if not penalties:
            return None, []
        unlinked = [run for run in self._unlinked if not run.taken]
        for run in unlinked:
            run.taken = True
        return torch.stack(penalties).sum(), unlinked

    def step(self) -> None:
        """End an update; what was gathered has been summed over the ranks."""
        self._look_for_changes()
        self.statistics.step()
        self.meter.step()
        self.strength = self.weight * self.meter.ratio
        self.absorbed = self.meter.absorbed
        if self.control is not None:
            # A weight of 0 adds nothing that could be lost.
            self.absorbed = torch.where(self.control.weight > 0, self.absorbed, torch.nan)
            self.control.step(self.meter.ratio, self.statistics.updates)
            self.weight = self.control.weight
        self.drop_passes()
        self._seed()

    def drop(self) -> None:
        """Forget what this update has gathered."""
        self.statistics.drop()
        self.meter.drop()
        self.drop_passes()

    def drop_passes(self) -> None:
        """Forget the forward passes of this update."""
        self._penalties.clear()
        self._linked.clear()
        self._unlinked.clear()

    def metrics(self) -> dict[str, float]:
        """Of the last update; NaN before a value exists. See `Inhibition.metrics`."""
        found = {"threshold": self.statistics.threshold.value, "selected": float(self.statistics.selected_share)}
        if self.config.recipe.action == "penalty":
            found |= {"strength": float(self.strength), "absorbed": float(self.absorbed)}
        if self.control is not None:
            found["weight"] = float(self.weight)
        return found

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs, between updates."""
        control = self.control.state_dict() if self.control is not None else None
        return {"statistics": self.statistics.state_dict(), "control": control, "copies": self._copies}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Take over a saved state."""
        self.drop()
        self._build(device)
        self._copies = state["copies"]
        self.statistics.load_state_dict(state["statistics"], device)
        self._seed()
        if self.control is not None and state["control"] is not None:
            self.control.load_state_dict(state["control"])
            self.weight = self.control.weight

    def _build(self, device: torch.device) -> None:
        """Meter, control and random numbers, on the device of the outputs."""
        self.device = device
        self.meter = GradientMeter(device)
        self.weight = torch.full((), self.config.weight or 0.0, device=device)
        points = self.config.strength_points()
        self.control = StrengthControl(points, device=device) if points else None
        if self.control is not None:
            self.weight = self.control.weight
        self.rounding = Rounding(device) if self.config.stochastic_rounding else None
        self._seed()

    def _seed(self) -> None:
        """Random numbers are a function of seed, block, update and rank: a resumed run draws the same."""
        if self.rounding is not None:
            self.rounding.start(f"{self.config.seed}/{self.statistics.name}/{self.statistics.updates}/{rank()}")

    def _attach(self, values: Tensor, penalty: Tensor, run: Pass) -> tuple[Tensor, Tensor]:
        result, penalty = _AttachPenalty.apply(values, penalty, run, self)
        return result.clone() if self._copies else result, penalty

    def _look_for_changes(self) -> None:
        """Whether the model changed the outputs of the last pass in place (`x += ...`, ReLU(inplace=True)).

        PyTorch refuses that on what a custom function returns, and the saved outputs must stay as they are:
        such a model goes on with copies. The first updates only gather, so it is known in time.
        """
        if self._watched is not None:
            values, version = self._watched
            self._copies |= values._version != version
            self._watched = None

    def finish(self, run: Pass) -> None:
        """Forget a pass whose backward pass has run: it will not be recomputed."""
        if run in self._linked:
            self._linked.remove(run)

    def _recall(self) -> Pass | None:
        """The pass that is being recomputed; None when nothing was done to it.

        Under `scope: step` all passes of an update select by one rule, so any of them will do.
        """
        if self._unlinked:
            return self._take_unlinked()
        # A penalty's gradient is computed by the node of the first pass; only edited values must be right here.
        matters = self.config.scope == "micro_batch" and self.config.recipe.action == "deactivate"
        if len(self._linked) > 1 and matters:
            raise RuntimeError(_SEVERAL)
        return self._linked[-1] if self._linked else None

    def _take_unlinked(self) -> Pass:
        """For a reentrant checkpoint: a pass whose penalty is in the loss of this backward pass, if any is."""
        due = [run for run in self._unlinked if run.scale is not None] or self._unlinked
        if len(due) > 1 and (self.config.scope == "micro_batch" or any(r.scale is not due[0].scale for r in due)):
            raise RuntimeError(_SEVERAL)
        run = due[-1]
        self._unlinked.remove(run)
        return run


_SEVERAL = (
    "several forward passes were made before one backward pass under activation checkpointing, and they differ in "
    "their statistics or in the factor of their penalty: use scope=step and use_reentrant=False"
)


class _Deactivate(torch.autograd.Function):
    """Put the selected at their mean, with -delta times their gradient (M05-M08)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, view: View, run: Pass, tap: Tap) -> Tensor:
        assert view.edited is not None
        ctx.save_for_backward(view.mask)
        ctx.triton = takes_triton(tap.config.kernel, values.detach(), view.rule.mean)
        ctx.run, ctx.tap = run, tap
        return view.edited

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (mask,) = ctx.saved_tensors
        ops = load_triton() if ctx.triton else torch_ops
        ctx.tap.finish(ctx.run)
        return ops.scale_selected(grads[0], mask, -ctx.tap.config.deactivation), None, None, None


class _AttachPenalty(torch.autograd.Function):
    """Pass outputs through unchanged beside their penalty (L15); its gradient joins on the way back.

    One node for both, because the norms of the two gradients can be told apart only where they meet. Only
    the outputs are saved: whether autograd keeps them or a checkpoint recomputes them makes no difference.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, penalty: Tensor, run: Pass, tap: Tap) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(values)
        ctx.run, ctx.tap = run, tap
        return values.view_as(values), penalty.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        other, scale = grads
        (values,) = ctx.saved_tensors
        run: Pass = ctx.run
        tap: Tap = ctx.tap
        if run.scale is not None:
            scale = run.scale
        ops = load_triton() if takes_triton(tap.config.kernel, values.detach(), run.rule.mean) else torch_ops
        rounded, totals = ops.join_gradients(other, values, run.rule, run.share * scale, run.weight, tap.rounding)
        tap.meter.add(totals)
        tap.finish(run)
        return rounded, None, None, None

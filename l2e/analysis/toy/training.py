"""Training runs of one shape side by side, with what is recorded on the way."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from l2e.analysis.toy.config import ToyRun
from l2e.analysis.toy.features import Task
from l2e.analysis.toy.lamb import Lamb, cosine_cycle
from l2e.analysis.toy.measures import counts, responses
from l2e.analysis.toy.model import ToyModel
from l2e.inhibition import Inhibition, attach

CLEAN_EVERY = 8
"""In the last cycle of an inhibited model every so many steps are also measured without the inhibition."""


class Training:
    """One batched model of all runs, its optimizer, and the record of its training.

    Each run is trained as it would be alone: nothing of it depends on the runs beside it.

    Args:
        runs: of one `shape`.
        device: where to train.

    Raises:
        ValueError: the runs differ in shape.

    Attributes:
        done: steps made.
        losses: task loss (J02: summed over outputs, mean over the batch) of each step made, [steps, runs].
        records: counts of `l2e.analysis.toy.measures`, [runs] each, by the step after which they were taken.
    """

    def __init__(self, runs: Sequence[ToyRun], device: torch.device | str = "cpu") -> None:
        if len({run.shape for run in runs}) != 1:
            raise ValueError("only runs of one shape can be trained side by side")
        self.runs = list(runs)
        self.device = torch.device(device)
        self.task = Task(runs, device)
        self.model = ToyModel(runs, device)
        self.lr = self._of_runs("lr")
        self.lamb = Lamb(self.model.parameters(), self.lr)
        inhibited = self.runs[0].inhibition != "none"
        self.inhibitions = [_attach(self.model, run, index) for index, run in enumerate(runs)] if inhibited else []
        self.done = 0
        self.losses = torch.zeros(self.steps, len(runs), device=device)
        self.clean = torch.zeros(2, len(runs), device=device)
        self.records: dict[int, dict[str, Tensor]] = {}
        self._l1 = self._of_runs("l1")
        self._has_l1 = any(run.l1 for run in runs)
        self._keep = (1 - self._of_runs("bias_decay") * self.lr).view(-1, 1, 1)

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return self.runs[0].steps

    def step(self) -> None:
        """One update of every run."""
        inputs, targets = self.task.batch(self.done)
        if self._measures_clean():
            self._measure_clean(inputs, targets)
        outputs, hidden = self.model(inputs)
        losses = task_loss(outputs, targets)
        self.losses[self.done] = losses.detach()
        total = losses.sum() + self._penalties(hidden)
        self.lamb.step(
            torch.autograd.grad(total, self.lamb.parameters), cosine_cycle(self.done, self.runs[0].half_cycle)
        )
        for inhibition in self.inhibitions:
            inhibition.step()
        if self.done < self.steps / 2:
            with torch.no_grad():
                self.model.bias.mul_(self._keep)
        self.done += 1
        if self._is_recorded(self.done):
            self.records[self.done] = counts(self.responses(), self.model.bias.detach())

    @torch.no_grad()
    def responses(self) -> Tensor:
        """h_i(F_j) of each run, [runs, features, neurons]."""
        model = self.model
        return responses(self.task.projection, model.weight_in, model.bias, model.activation, self.task.kind)

    def clean_losses(self) -> Tensor:
        """Mean loss over the last cycle without the inhibition at work, [runs]."""
        if self.inhibitions:
            return self.clean[0] / self.clean[1]
        return self.losses[-2 * self.runs[0].half_cycle :].mean(0)

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed training needs, between steps."""
        return {
            "done": self.done,
            "model": self.model.state_dict(),
            "lamb": self.lamb.state_dict(),
            "inhibitions": [inhibition.state_dict() for inhibition in self.inhibitions],
            "losses": self.losses,
            "clean": self.clean,
            "records": self.records,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a saved training of the same runs was."""
        self.done = state["done"]
        self.model.load_state_dict(state["model"])
        self.lamb.load_state_dict(state["lamb"])
        for inhibition, saved in zip(self.inhibitions, state["inhibitions"], strict=True):
            inhibition.load_state_dict(saved)
        self.losses.copy_(state["losses"])
        self.clean.copy_(state["clean"])
        self.records = {step: _to(found, self.device) for step, found in state["records"].items()}

    def _penalties(self, hidden: Tensor) -> Tensor:
        total = torch.zeros((), device=self.device)
        if self._has_l1:  # a twelfth of the step's time
            total = total + (self._l1 * hidden.abs().sum((1, 2))).sum() / self.runs[0].batch_size
        for inhibition in self.inhibitions:
            total = total + inhibition.penalty()
        return total

    def _is_recorded(self, step: int) -> bool:
        """Powers of two, as in the paper, and the top and the bottom of each cycle of the learning rate."""
        return step & (step - 1) == 0 or step % self.runs[0].half_cycle == 0

    def _measures_clean(self) -> bool:
        last_cycle = self.steps - 2 * self.runs[0].half_cycle
        return bool(self.inhibitions) and self.done >= last_cycle and self.done % CLEAN_EVERY == 0

    @torch.no_grad()
    def _measure_clean(self, inputs: Tensor, targets: Tensor) -> None:
        losses = task_loss(self.model(inputs)[0], targets)  # a tap does nothing without gradients
        self.clean += torch.stack([losses, torch.ones_like(losses)])

    def _of_runs(self, name: str) -> Tensor:
        return torch.tensor([getattr(run, name) for run in self.runs], dtype=torch.float32, device=self.device)


def task_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Squared error summed over outputs, mean over the batch (J02); [runs] for [runs, batch, outputs]."""
    return (outputs - targets).square().sum((1, 2)) / outputs.shape[1]


def _attach(model: ToyModel, run: ToyRun, index: int) -> Inhibition:
    """What the run's hidden layer is inhibited by; L2E at strength 0 gathers nothing and does nothing."""
    if run.inhibition == "l2e" and run.strength > 0:
        settings: dict[str, Any] = {"method": "l2e", "strength": run.strength, "reduction": "sequence"}
    elif run.inhibition == "memel":
        settings = {"method": "memel", "delta": run.strength}
    else:
        return attach(model, method="none")
    return attach(model, blocks=[f"taps.{index}"], rate=run.rate, **settings)


def _to(tensors: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in tensors.items()}

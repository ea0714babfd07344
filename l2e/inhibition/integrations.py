"""L2E in the Hugging Face Trainer, as one callback. Needs transformers, so `l2e.inhibition` does not import it."""

import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, has_length

from l2e.inhibition.attach import Inhibition, attach

STATE_FILE = "inhibition.pt"


class InhibitionCallback(TrainerCallback):
    """Inhibit monosemantic neurons while a Hugging Face Trainer trains.

        Trainer(..., callbacks=[InhibitionCallback(weight=1e-4, reduction="sequence")])

    It taps the model when training begins and takes the taps off when it ends; evaluation sees the plain
    model. The gradient is the one of a plain loop: the mean over micro-batches and ranks of (loss +
    penalty). The value of the loss stays the model's, so that what the Trainer logs can be compared with a
    baseline. Each checkpoint gets an `inhibition.pt`, from which training is resumed.

    Args:
        method: as in `l2e.attach`.
        blocks: as in `l2e.attach`.
        resume_from: the checkpoint folder, or its `inhibition.pt`, to start from. Only needed where that
            is not `output_dir/checkpoint-<step>`.
        settings: as in `l2e.attach`.

    Attributes:
        inhibition: what `l2e.attach` returned; None before training.
    """

    def __init__(
        self,
        method: str = "l2e",
        blocks: str | list[int] | list[str] = "middle-2",
        *,
        resume_from: str | Path | None = None,
        **settings: Any,
    ) -> None:
        self.inhibition: Inhibition | None = None
        self._settings: dict[str, Any] = {"method": method, "blocks": blocks, **settings}
        self._resume_from = resume_from
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        self._ranks = 1  # by which the Trainer multiplies a loss that it had summed over all ranks
        self._batches = math.inf  # micro-batches that this epoch still has
        self._parts = 1  # micro-batches of this update
        self._used: bool | None = None  # whether a penalty of this update got a gradient; None without one

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, *_: Any, model: nn.Module, **kwargs: Any
    ) -> None:
        """Tap the model; load the state where training is resumed.

        Raises:
            ValueError: an impossible setting, or arguments with which the penalty would be lost.
            FileNotFoundError: training is resumed without its `inhibition.pt`.
        """
        self.on_train_end(args, state)  # a training that failed, or auto_find_batch_size, may have left taps
        _refuse_what_loses_the_penalty(args)
        saved = None
        if self._resume_from is not None or state.global_step > 0:
            path = Path(self._resume_from or _checkpoint(args, state))
            path = path / STATE_FILE if path.is_dir() else path
            if not path.is_file():
                raise FileNotFoundError(
                    f"resuming at step {state.global_step} needs the statistics in {path}: give the folder of "
                    "the checkpoint as InhibitionCallback(resume_from=...), or train from step 0"
                )
            saved = torch.load(path, map_location="cpu", weights_only=True)
        self.inhibition = attach(model, **self._settings)
        # After attach's own: a forward pass has ended, and its penalty is whole, when its hook has run.
        self._hooks.append(model.register_forward_hook(self._add_penalty, with_kwargs=True))
        if saved is not None:
            self.inhibition.load_state_dict(saved)
        self._ranks = args.world_size if args.average_tokens_across_devices else 1
        self._used = None

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Count the epoch's micro-batches: its last update may have fewer than the others."""
        loader, parts = kwargs["train_dataloader"], args.gradient_accumulation_steps
        self._batches = len(loader) if has_length(loader) else math.inf
        if self._batches < math.inf and not args.ignore_data_skip:
            self._batches -= state.global_step % math.ceil(self._batches / parts) * parts  # resumed within it

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Note how many micro-batches this update has."""
        self._parts = int(min(args.gradient_accumulation_steps, self._batches))
        self._batches -= self._parts

    def on_optimizer_step(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """End the update.

        Raises:
            ValueError: the Trainer trains on another loss than the model's output.
        """
        if self._used is False:
            raise ValueError(
                "the penalty got no gradient: the Trainer trains on another loss than the model's output. Leave out "
                "compute_loss_func and an own compute_loss, or use l2e.attach in an own loop"
            )
        self._used = None
        if self.inhibition is not None:
            self.inhibition.step()

    def on_log(
        self, args: TrainingArguments, state: TrainerState, *_: Any, logs: dict[str, float], **kwargs: Any
    ) -> None:
        """Add the metrics of the last update, those that are not NaN, to a record of the training loss."""
        if self.inhibition is None or "loss" not in logs:
            return
        metrics = {f"inhibition/{k}": v for k, v in self.inhibition.metrics().items() if not math.isnan(v)}
        logs |= metrics
        state.log_history[-1] |= metrics

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Write the state beside the Trainer's in the checkpoint."""
        if self.inhibition is None or not args.should_save:
            return
        path = _checkpoint(args, state) / STATE_FILE
        temporary = path.with_name(f".{STATE_FILE}.{os.getpid()}.tmp")
        torch.save(self.inhibition.state_dict(), temporary)
        os.replace(temporary, path)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Take the taps off the model."""
        while self._hooks:
            self._hooks.pop().remove()
        if self.inhibition is not None:
            self.inhibition.remove()

    @torch.compiler.disable
    def _add_penalty(self, model: nn.Module, inputs: Any, kwargs: dict[str, Any], output: Any) -> Any:
        """Forward hook: give the loss in the model's output the penalty's gradient."""
        if self.inhibition is None or not (model.training and torch.is_grad_enabled()):
            return None
        penalty = self.inhibition.penalty()
        loss = output.get("loss") if isinstance(output, dict) else output[0] if isinstance(output, tuple) else None
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            if not (penalty.requires_grad or self._settings.get("weight")):
                return None  # there is no penalty to lose
            raise ValueError(
                f"{type(model).__name__} returned no loss to which the penalty could be added: give it labels "
                "(a compute_loss_func takes them away: leave it out), or use l2e.attach in an own loop"
            )
        if penalty.requires_grad:
            self._used = bool(self._used)
            penalty.register_hook(self._note_use)
        if kwargs.get("num_items_in_batch") is not None:
            # The loss is a sum over this micro-batch divided by the tokens of the whole update: the Trainer
            # multiplies it by the ranks over which it counted them, and does not divide it by the micro-batches.
            penalty = penalty / (self._parts * self._ranks)
        loss = loss + (penalty - penalty.detach()).to(loss.device)
        if isinstance(output, tuple):
            return (loss, *output[1:])
        output["loss"] = loss
        return output

    def _note_use(self, gradient: Tensor) -> None:
        self._used = True


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"


def _refuse_what_loses_the_penalty(args: TrainingArguments) -> None:
    if args.label_smoothing_factor:
        raise ValueError(
            "label_smoothing_factor: with it the Trainer computes the loss itself, without the penalty; set it to 0"
        )
    if args.n_gpu > 1:
        raise ValueError("one process drives several GPUs (DataParallel): start one per GPU, with torchrun")
    parallel = getattr(args, "parallelism_config", None)
    if parallel is not None and parallel.non_data_parallel_size > 1:
        raise ValueError(
            "parallelism_config: L2E needs whole sequences and whole outputs on a rank, data parallel only"
        )

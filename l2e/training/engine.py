"""DeepSpeed behind the few calls that the trainer needs."""

import atexit
import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from l2e.errors import LostRankError, UserError
from l2e.training.config import DeepSpeedConfig, TrainingConfig
from l2e.training.deepspeed_import import deepspeed
from l2e.training.deepspeed_settings import deepspeed_settings
from l2e.training.engine_state import restore, restore_universal, snapshot
from l2e.training.launch import device_index, launched
from l2e.training.loss import next_token_loss
from l2e.training.optimizer import build_optimizer
from l2e.training.ranks import leaving_together


def start_processes(wait: timedelta = timedelta(minutes=30)) -> torch.device:
    """Join the process group that the launcher describes (`l2e.training.launch`), or be alone.

    Args:
        wait: how long a process waits for the others before it gives them up.

    Returns:
        This process's device.
    """
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # The shared-memory op would be compiled at the first start (20-50 s, and only with a compiler at hand).
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    cuda = torch.cuda.is_available()
    launch = launched()
    os.environ |= launch.variables()
    if cuda:  # before NCCL starts; DeepSpeed takes the device's number from LOCAL_RANK
        device = torch.device("cuda", device_index(launch.local_rank, torch.cuda.device_count()))
        torch.cuda.set_device(device)
        os.environ["LOCAL_RANK"] = str(device.index)
    if not dist.is_initialized():
        backend = "nccl" if cuda else "gloo"
        if launch.meeting:
            os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")  # end at the time limit, never hang
            dist.init_process_group(backend, timeout=wait)
        else:
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
            atexit.register(dist.destroy_process_group)
    deepspeed.init_distributed(auto_mpi_discovery=False)
    return device if cuda else torch.device("cpu")


@contextmanager
def process_group(wait: timedelta = timedelta(minutes=30)) -> Iterator[torch.device]:
    """Be part of the launcher's process group; yields this process's device.

    At the end all leave together: without the barrier ZeRO-3 aborts at exit half of the time. After an
    error nobody waits, because the others may never come. A lone process keeps its group for the next
    run of a sweep, since DeepSpeed remembers it.
    """
    alone = launched().meeting is None
    device = start_processes(wait)
    lost = False
    try:
        with leaving_together():
            yield device
    except LostRankError:
        lost = True  # taking the group down could wait for the one that is gone
        raise
    finally:
        if not alone and not lost:
            dist.destroy_process_group()


class Engine:
    """Forward, backward and update of one model under DeepSpeed.

    Args:
        model: in fp32; cast to `training.precision` here.
        training: precision, optimizer, clipping.
        zero: ZeRO stage.
        micro_batch_size: sequences of one forward pass on this rank.
        accumulation: forward passes per update.

    Attributes:
        applied: whether the last update changed the weights; the same on every rank.

    Raises:
        UserError: fp16 where the device has none.
    """

    def __init__(
        self,
        model: nn.Module,
        training: TrainingConfig,
        zero: DeepSpeedConfig,
        *,
        micro_batch_size: int,
        accumulation: int,
        device: torch.device,
    ) -> None:
        refuse_fp16_on_cpu(training, device)
        self.device = device
        self.accumulation = accumulation
        self.clip = training.clip
        self.model = model.to(device)
        self.stage = zero.stage
        self.applied = True
        self.precision = training.precision
        self._linear = F.linear
        os.environ.setdefault("LOCAL_RANK", str(launched().local_rank))  # DeepSpeed asks for it at every start
        self._engine, self.optimizer, _, _ = deepspeed.initialize(
            model=self.model,
            optimizer=build_optimizer(self.model, training),
            config=deepspeed_settings(
                training,
                zero,
                micro_batch_size=micro_batch_size,
                accumulation=accumulation,
                parameters=sum(parameter.numel() for parameter in model.parameters()),
            ),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits [batch, seq, vocab] for tokens [batch, seq]."""
        return self._engine(input_ids=tokens, use_cache=False).logits

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of targets [batch, seq], 0-dim fp32; `fuse_loss` spares the logits."""
        if getattr(self.model, "takes_targets", False):
            return self._engine(input_ids=tokens, use_cache=False, targets=targets)
        return next_token_loss(self.forward(tokens), targets)

    def backward(self, loss: Tensor) -> None:
        """Add a micro-batch's gradient to the update's."""
        self._engine.backward(loss)
        if not self._engine.is_gradient_accumulation_boundary():
            self._engine.step()  # counts the micro-batch, updates nothing

    def update(self, lr: float) -> Tensor:
        """Clip and update with learning rate `lr`, unless the gradient is not finite: then nothing changes.

        `applied` says which. DeepSpeed reads the norm on the host before every update (its overflow check), so
        that this costs no further wait for the device; without ZeRO it is the one wait of an update.

        Returns:
            The gradient's global norm before clipping, 0-dim; infinite where fp16 overflowed and nothing moved.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        norm = self._plain_norm() if self.stage == 0 else None
        if norm is not None:  # the fused AdamW then leaves weights and state as they are
            self.optimizer.found_inf = (~norm.isfinite()).float()
        self._engine.step()
        self.applied = self._engine.was_step_applied() and (norm is None or bool(norm.isfinite()))
        norm = norm if norm is not None else self._engine.get_global_grad_norm()
        return torch.as_tensor(norm, dtype=torch.float32, device=self.device)

    @property
    def loss_scale(self) -> float | None:
        """Factor of the loss in fp16's backward pass; None in other precisions."""
        return float(self.optimizer.loss_scale) if self.precision == "fp16" else None

    def train(self) -> None:
        """Training mode."""
        self._engine.train()

    def eval(self) -> None:
        """Evaluation mode."""
        self._engine.eval()

    def whole_weights(self) -> AbstractContextManager[Any]:
        """Within it every rank sees all weights (ZeRO-3 keeps a part on each)."""
        if self.stage < 3:
            return nullcontext()
        return deepspeed.zero.GatheredParameters(list(self.model.parameters()))

    def snapshot(self) -> dict[str, memoryview]:
        """Weights and optimizer as files by name, this rank's part; every rank must call it."""
        return snapshot(self._engine)

    def load(self, folder: Path, *, universal: bool = False) -> None:
        """Read a restart point: of this number of ranks and this stage, or (`universal`) a converted one."""
        (restore_universal if universal else restore)(self._engine, folder)

    def close(self) -> None:
        """Release DeepSpeed's buffers and hooks; stage 3 leaves its own linear in PyTorch's place."""
        self._engine.destroy()
        F.linear = self._linear

    def _plain_norm(self) -> Tensor:
        """Without ZeRO, DeepSpeed reports no norm in fp32 (and reduces the gradients before its step)."""
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g.float()) for g in gradients]))


def refuse_fp16_on_cpu(training: TrainingConfig, device: torch.device) -> None:
    """PyTorch would compute it there, ten times slower than fp32; DeepSpeed refuses it on most processors."""
    if training.precision == "fp16" and device.type == "cpu":
        raise UserError("training.precision: fp16 needs a GPU; on a CPU take fp32 or bf16")

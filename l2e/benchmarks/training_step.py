"""One update as the trainer makes it, in PyTorch alone: what methods are timed on without DeepSpeed."""

from collections.abc import Iterator
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from l2e.models import DTYPES, build_pythia
from l2e.training.blocks import prepare_blocks
from l2e.training.config import TrainingConfig
from l2e.training.optimizer import decay_groups

OPTIMIZER = "AdamW, fused, learning rate 0, fp32 weights and gradients, clipped at 1.0"

_BATCHES = 16


class Method(Protocol):
    """What is added to training: an `Inhibition`, or another with these calls."""

    def penalty(self) -> Tensor:
        """A term of a micro-batch's loss."""

    def step(self) -> None:
        """After the optimizer's."""


class MasterWeights:
    """AdamW on fp32 weights and gradients beside a model in half precision, as DeepSpeed's ZeRO-1 keeps them.

    A gradient is added to its fp32 sum and freed as soon as autograd has it. In fp32 the model's own weights are
    the optimizer's.
    """

    def __init__(self, model: nn.Module, training: TrainingConfig) -> None:
        self.weights = list(model.parameters())
        self.apart = self.weights[0].dtype != torch.float32
        self.masters = self.weights
        if self.apart:
            self.masters = [nn.Parameter(weight.detach().float()) for weight in self.weights]
            for weight, master in zip(self.weights, self.masters, strict=True):
                master.grad = torch.zeros_like(master)
                weight.register_post_accumulate_grad_hook(partial(_add_gradient, master))
        own = {id(weight): master for weight, master in zip(self.weights, self.masters, strict=True)}
        groups = decay_groups(model, training.weight_decay)
        for group in groups:
            group["params"] = [own[id(weight)] for weight in group["params"]]  # type: ignore[attr-defined]
        beta1, beta2 = training.betas
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(beta1, beta2), eps=training.eps, fused=True)
        self.clip = training.clip

    @torch.no_grad()
    def step(self) -> None:
        """Clip, update, copy."""
        nn.utils.clip_grad_norm_(self.masters, self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=not self.apart)
        if self.apart:
            torch._foreach_copy_(list[Tensor](self.weights), list[Tensor](self.masters))

    def state(self) -> Iterator[Tensor]:
        """All tensors of it, the gradients apart."""
        yield from self.masters
        for values in self.optimizer.state.values():
            yield from (value for value in values.values() if isinstance(value, Tensor))


class TrainingStep:
    """A model with its optimizer and a few batches of random tokens.

    The learning rate is 0, which takes as long as any other: all methods work on the same network.

    Args:
        model: a Pythia size.
        training: batch_size is micro_batch_size times the micro-batches of an update; precision fp32 or bf16.
        device: where it is built; its weights are drawn there (2.8B on one CPU core would take a minute).
    """

    def __init__(self, model: str, training: TrainingConfig, device: torch.device) -> None:
        micro = training.micro_batch(1)
        with device:
            self.model = build_pythia(model, max_length=max(2048, training.seq_length))
        self.model.to(DTYPES[training.precision]).train()
        prepare_blocks(self.model, training)
        self.optimizer = MasterWeights(self.model, training)
        self.device = device
        generator = torch.Generator().manual_seed(1)
        shape = (_BATCHES, training.batch_size // micro, micro, training.seq_length + 1)
        self.rows = torch.randint(self.model.config.vocab_size, shape, generator=generator).to(device)

    def step(self, method: Method, index: int) -> Tensor:
        """One update on batch `index`; returns the mean loss, 0-dim."""
        parts = self.rows[index % _BATCHES]
        total = torch.zeros((), device=self.device)
        for rows in parts:
            loss = self.loss(rows)
            total += loss.detach() / len(parts)
            ((loss + method.penalty()) / len(parts)).backward()
        self.optimizer.step()
        method.step()
        return total

    def loss(self, rows: Tensor) -> Tensor:
        """Of rows [micro-batch, seq + 1]."""
        return self.model(input_ids=rows[:, :-1], use_cache=False, targets=rows[:, 1:])

    def steps(self, method: Method, count: int, first: int = 0) -> None:
        """`count` updates from batch `first` on, and wait for the device."""
        for index in range(first, first + count):
            self.step(method, index)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def state(self) -> Iterator[Tensor]:
        """All tensors that live through a step."""
        yield from self.model.parameters()
        yield from self.model.buffers()
        yield self.rows
        yield from self.optimizer.state()


def _add_gradient(master: nn.Parameter, weight: Tensor) -> None:
    assert weight.grad is not None
    assert master.grad is not None
    master.grad += weight.grad
    weight.grad = None

"""The training step that benchmarks time: forward, loss, backward, AdamW."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from l2e.inhibition import Inhibition
from l2e.models import build_pythia

OPTIMIZER = "AdamW, fused, learning rate 0"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

_BATCHES = 16


class Workload:
    """One model, its optimizer and a few batches of random tokens.

    The learning rate is 0, which takes as long as any other: the weights stay, so that every method and
    every round work on the same network and the same data.
    """

    def __init__(self, model: str, batch_size: int, seq_length: int, precision: str, device: torch.device) -> None:
        self.model = build_pythia(model, max_length=max(2048, seq_length)).to(device, DTYPES[precision]).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.0, fused=True)
        self.device = device
        generator = torch.Generator().manual_seed(1)
        shape = (_BATCHES, batch_size, seq_length + 1)
        self.rows = torch.randint(self.model.config.vocab_size, shape, generator=generator).to(device)

    def step(self, inhibition: Inhibition, index: int) -> None:
        """One update on batch `index`, with the loss as the trainer's."""
        rows = self.rows[index % _BATCHES]
        logits = self.model(rows[:, :-1], use_cache=False).logits
        loss = F.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())
        (loss + inhibition.penalty()).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        inhibition.step()

    def steps(self, inhibition: Inhibition, count: int, first: int = 0) -> None:
        """`count` updates from batch `first` on, and wait for the device."""
        for index in range(first, first + count):
            self.step(inhibition, index)
        self.wait()

    def wait(self) -> None:
        """Until the device has done all that it was asked."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def state(self) -> Iterator[Tensor]:
        """All tensors that live through a step: weights, buffers, the optimizer's state, the batches."""
        yield from self.model.parameters()
        yield from self.model.buffers()
        yield self.rows
        for values in self.optimizer.state.values():
            yield from (value for value in values.values() if isinstance(value, Tensor))

"""A small network and plain training, shared by the tests of `attach`."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import l2e

SETTINGS = {"late_start": 1, "warmup": 1, "rate": 0.1, "reduction": "sequence"}


class Network(nn.Module):
    """Four residual blocks of [batch, seq, hidden]; `recompute` runs them under activation checkpointing."""

    def __init__(self, recompute: str | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(Block() for _ in range(4))
        self.recompute = recompute

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            if self.recompute and torch.is_grad_enabled():
                x = x + checkpoint(block, x.requires_grad_(), use_reentrant=self.recompute == "reentrant")
            else:
                x = x + block(x)
        return x


class Block(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8))

    def forward(self, x: Tensor) -> Tensor:  # its own, because torch.compile passes over those of torch.nn
        return self[2](self[1](self[0](x)))


class OneBlock(nn.Module):
    """A block that hands its input on times a weight: what comes out, and its gradient, are known by hand."""

    def __init__(self, block: nn.Module | None = None) -> None:
        super().__init__()
        self.block = block or nn.Identity()
        self.after: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.after = self.block(x)
        return self.after


def batches(count: int, size: int = 12, seq: int = 5, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, seq, 8, generator=generator) for _ in range(count)]


def train(
    model: nn.Module, inhibition: l2e.Inhibition, data: list[Tensor], parts: int = 1, lr: float = 0.05
) -> list[float]:
    """Plain gradient descent on the mean square, with accumulation over `parts` of each batch."""
    losses = []
    for batch in data:
        model.zero_grad()
        total = 0.0
        for part in batch.chunk(parts):
            loss = model(part).square().mean()
            ((loss + inhibition.penalty()) / parts).backward()
            total += loss.item() / parts
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= lr * parameter.grad
        inhibition.step()
        losses.append(total)
    return losses

"""The head and the cross-entropy in one: the logits of a few tokens at a time, never of all.

A micro-batch of 32 x 2048 tokens has 3.3 x 10^9 logits at 50,304 words: 13 GB in fp32, three times over in the
usual way (logits, log-softmax, gradient). Here the gradient is made with the loss, while a chunk's logits are at hand:
nothing is computed twice, and what stays for the backward pass are the gradients of hidden states and weight.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHUNK_LOGITS = {"cpu": 1 << 24, "cuda": 1 << 28}
"""Logits of a chunk by kind of device: on a CPU what its caches hold in part, on a GPU what keeps it busy."""

FP16_SCALE = 1 / 16
"""A gradient of a logit lies within [-1, 1]. Summed over a chunk's tokens it could leave fp16's range."""


def fused_loss(
    hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int | None = None, compiled: bool = False
) -> Tensor:
    """Mean cross-entropy of `hidden @ weight.T` over all targets, as `next_token_loss` of those logits to rounding.

    Args:
        hidden: [batch, seq, hidden] or [tokens, hidden], what goes into the head.
        weight: [vocab, hidden], the head; it has no bias.
        targets: [batch, seq] or [tokens], int64.
        chunk: tokens at a time; None takes as many as have `CHUNK_LOGITS`.
        compiled: one kernel for what lies between the matrix products (a GPU's memory is read once instead of five
            times).

    Returns:
        0-dim fp32. It can be differentiated once.
    """
    hidden, targets = hidden.flatten(0, -2), targets.flatten()
    size = chunk or tokens_at_a_time(len(weight), hidden.device.type)
    kernel = _compiled() if compiled else loss_of_logits
    differentiated = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    return _HeadLoss.apply(hidden, weight, targets, size, kernel, differentiated)


def tokens_at_a_time(vocabulary: int, device: str) -> int:
    """Tokens of a chunk where the settings leave it open."""
    return max(1, CHUNK_LOGITS.get(device, CHUNK_LOGITS["cpu"]) // vocabulary)


def fuse_loss(model: Any, chunk: int | None = None, compiled: bool = False) -> None:
    """Give a GPT-NeoX's forward an argument `targets`, with which it returns the loss in place of logits.

    The head's own forward computes it, so that what gathers weights for a module (ZeRO-3) does so here too.

    Args:
        model: a GPTNeoXForCausalLM; `model.takes_targets` says that this was done.
        chunk: see `fused_loss`.
        compiled: likewise.
    """
    head = model.get_output_embeddings()
    head.forward = partial(_head, head, chunk, compiled)
    model.forward = partial(_forward, model, head, model.forward)
    model.takes_targets = True


def _head(head: nn.Linear, chunk: int | None, compiled: bool, hidden: Tensor, targets: Tensor | None = None) -> Tensor:
    if targets is None:
        return F.linear(hidden, head.weight)
    return fused_loss(hidden, head.weight, targets, chunk, compiled)


def _forward(
    model: Any, head: nn.Module, usual: Callable[..., Any], *args: Any, targets: Tensor | None = None, **kwargs: Any
) -> Any:
    if targets is None:
        return usual(*args, **kwargs)
    return head(model.base_model(*args, **kwargs).last_hidden_state, targets)


def loss_of_logits(logits: Tensor, targets: Tensor, scale: float, gradient: bool) -> Tensor:
    """Summed cross-entropy of logits [tokens, vocab], which are used up.

    If `gradient`, its gradient times `scale` stands in their place. Every operation on all of them works in place: the
    fresh memory that `logsumexp` asks for took a fifth of head and loss on a CPU.
    """
    wide = logits.float()
    highest = wide.amax(-1, keepdim=True)
    above = wide.gather(1, targets[:, None]) - highest
    wide.sub_(highest).exp_()
    total = wide.sum(-1, keepdim=True)
    above -= total.log()  # log-probability of the target
    if gradient:
        wide.mul_(scale / total)
        # p - 1 at the target, without the cancellation near p = 1
        wide.scatter_(1, targets[:, None], above.expm1() * scale)
        logits.copy_(wide)
    return -above.sum()


_KERNEL: list[Callable[..., Tensor]] = []


def _compiled() -> Callable[..., Tensor]:
    """`loss_of_logits`, compiled once for the process."""
    if not _KERNEL:
        _KERNEL.append(torch.compile(loss_of_logits, dynamic=False))
    return _KERNEL[0]


class _HeadLoss(torch.autograd.Function):
    """The loss with its gradients, made in the forward pass; the backward pass scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        size: int,
        kernel: Callable[..., Tensor],
        needed: bool,
    ) -> Tensor:
        scale = FP16_SCALE if hidden.dtype == torch.float16 else 1.0
        loss = torch.zeros((), device=hidden.device)
        of_hidden = torch.empty_like(hidden) if needed else hidden
        of_weight = torch.zeros_like(weight, dtype=torch.float32) if needed else weight
        memory = hidden.new_empty(min(size, len(hidden)), len(weight))
        for start in range(0, len(hidden), size):
            part = slice(start, start + size)
            logits = torch.mm(hidden[part], weight.T, out=memory[: len(hidden[part])])
            loss += kernel(logits, targets[part], scale, needed)
            if needed:
                torch.mm(logits, weight, out=of_hidden[part])
                _add_product(of_weight, logits, hidden[part])
        if needed:
            ctx.save_for_backward(of_hidden, of_weight)
        ctx.factor, ctx.dtype = 1 / (len(hidden) * scale), weight.dtype
        return loss / len(hidden)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        of_hidden, of_weight = ctx.saved_tensors
        factor = grads[0].float() * ctx.factor  # fp32: in half precision a factor such as 1/4080 would be rounded
        hidden = (of_hidden.float() * factor).to(of_hidden.dtype)
        return hidden, (of_weight * factor).to(ctx.dtype), None, None, None, None


def _add_product(total: Tensor, gradient: Tensor, hidden: Tensor) -> None:
    """`total += gradient.T @ hidden`, the sum in fp32."""
    if total.dtype == gradient.dtype:
        total.addmm_(gradient.T, hidden)
    else:
        total += gradient.T @ hidden

"""What is done to a model's blocks and its loss before it is trained."""

from typing import Any

import torch

from l2e.training.config import TrainingConfig
from l2e.training.fused_loss import fuse_loss


def prepare_blocks(model: Any, training: TrainingConfig) -> None:
    """Recompute and compile each block, and fuse the head with the loss, as `training` says.

    Only a block's `forward` is compiled: hooks on blocks, L2E's taps among them, stay outside of it.

    Args:
        model: a GPTNeoXForCausalLM; call it before DeepSpeed and taps see the model.
        training: `activation_checkpointing`, `compile` and `loss_chunk`.
    """
    if training.activation_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if training.compile:
        for block in model.gpt_neox.layers:
            block.forward = torch.compile(block.forward)
    if training.loss_chunk != 0:
        fuse_loss(model, training.loss_chunk, training.compile)

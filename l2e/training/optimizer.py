"""AdamW with Pythia's two groups of parameters (pythia.md D.2)."""

import torch
from torch import nn

from l2e.training.config import TrainingConfig


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """No decay for biases and everything of a LayerNorm; decay for the rest, both embeddings included."""
    norms = {id(p) for m in model.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()}
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        exempt = name.endswith("bias") or id(parameter) in norms
        (plain if exempt else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW over the two groups, fused; its rate is set anew before every update."""
    beta1, beta2 = config.betas
    groups = decay_groups(model, config.weight_decay)
    return torch.optim.AdamW(groups, lr=config.lr, betas=(beta1, beta2), eps=config.eps, fused=True)

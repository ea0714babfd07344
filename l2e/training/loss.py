"""The language-modelling loss (pythia.md D.4)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over all targets, in fp32.

    Args:
        logits: [batch, seq, vocab] for tokens row[:-1].
        targets: [batch, seq], row[1:]; all of them count, end-of-document tokens too.
    """
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def spoiled_unless_finite(loss: Tensor) -> Tensor:
    """The loss; one that is not finite gets a gradient of NaN.

    A loss can be infinite and its gradient finite (a target of probability 0). Told by the gradient, all ranks
    learn of it from the norm that they share anyway, before the update, and nobody waits for the device.
    A finite loss is multiplied by 1, which changes no bit.
    """
    return loss * torch.where(loss.detach().isfinite(), 1.0, torch.nan)

"""The language-modelling loss (pythia.md D.4)."""

import torch.nn.functional as F
from torch import Tensor


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over all targets, in fp32.

    Args:
        logits: [batch, seq, vocab] for tokens row[:-1].
        targets: [batch, seq], row[1:]; all of them count, end-of-document tokens too.
    """
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

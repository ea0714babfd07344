"""Floating-point operations of training, by formula: what telemetry and the planner share."""

from l2e.models.sizes import PythiaSize


def flops_per_token(size: PythiaSize, seq_length: int) -> float:
    """Model FLOPs of one token's forward and backward pass.

    Matrix multiplications alone, a multiplication and an addition counted as two operations::

        forward  = layers x (2 (3 h^2 + h^2 + 8 h^2) + 2 x 2 s h) + 2 h v
        training = 3 x forward

    with h = hidden, s = seq_length, v = vocab_size: queries, keys and values; the attention's output; the MLP's
    two matrices; scores and weighted values over the whole sequence (a causal kernel may skip half of it, which is
    not taken off); the head. The backward pass multiplies twice for each multiplication of the forward pass. What is
    recomputed is no model FLOP, so activation checkpointing lowers the MFU. Embedding, LayerNorm, softmax and
    the inhibition are left out (under 1%).

    Args:
        size: the shape; `replace(size, vocab_size=...)` for another vocabulary.
        seq_length: tokens of a sequence.

    Source: Narayanan et al. 2021 (arXiv:2104.04473), appendix; Chowdhery et al. 2022 (PaLM), appendix B, for MFU.
    """
    hidden = size.hidden
    matrices = 2 * (3 + 1 + 8) * hidden**2
    attention = 2 * 2 * seq_length * hidden
    return 3.0 * (size.layers * (matrices + attention) + 2 * hidden * size.vocab_size)

"""Bytes of activations of one forward and backward pass of GPT-NeoX as transformers builds it.

In units of one hidden state, u = batch x seq x hidden x bytes of a number. A block keeps for its backward pass::

    its input                                  1     both LayerNorms
    the two LayerNorms' outputs                2     inputs of queries-keys-values and of the MLP
    queries, keys and values                   3     the values are a view of them
    rotated queries and keys                   2     copies, made by a concatenation
    output of the attention, and transposed    2     for the attention and for its last matrix
    MLP before and after the GELU              8
                                              18 u

and, in fp32, a LayerNorm's mean and deviation of each token and the attention's logarithm of the sum of each row. The
numbers are compared in tests/cluster with what autograd saves. A compiled block keeps less.
"""

from dataclasses import dataclass

from l2e.cluster.workload import Workload
from l2e.training.fused_loss import tokens_at_a_time

BLOCK = 18
"""Hidden states that a block keeps, its input included."""

BLOCK_BACKWARD = 5
"""And that its backward pass needs at most besides: the gradients of the residual and of the GELU's output, 1 + 4."""

HEAD_BACKWARD = 8
"""Bytes of each logit that its backward pass needs besides the log-softmax kept: its gradient and the loss's, fp32."""

CHUNK_LOGIT = {2: 6, 4: 4}
"""Bytes of each logit of a chunk of the fused loss, by those of a number: itself, and in half precision an fp32 copy. A
compiled loss needs no copy."""

TAP_WORKSPACE = 20
"""Bytes of each tapped output that scoring and the penalty's gradient need for a moment: five fp32 tensors."""


@dataclass(frozen=True, kw_only=True)
class Activations:
    """Bytes on one rank and micro-batch.

    Attributes:
        blocks: kept by the blocks and the final LayerNorm until the backward pass.
        first_block: of that, what the first block keeps, the last to be passed backwards.
        final: of that, what the final LayerNorm and the head keep.
        logits: kept by the loss: the gradients of its weight (fp32) and of what went in; without the fused loss the
            log-softmax of all targets, fp32.
        logits_backward: needed besides when the loss is computed and when its backward pass begins.
        block_backward: needed besides while one block is passed backwards, its recomputation included.
        taps: kept by the inhibition.
        tap_workspace: needed besides while a tap scores its outputs, or adds to their gradient.
    """

    blocks: float
    first_block: float
    final: float
    logits: float
    logits_backward: float
    block_backward: float
    taps: float
    tap_workspace: float


def activations(work: Workload) -> Activations:
    """For a run's precision, micro-batch, attention and checkpointing."""
    size, tokens = work.size, work.micro_batch * work.training.seq_length
    hidden_state = tokens * size.hidden * work.bytes_each
    block = _block(work)
    recomputing = work.training.activation_checkpointing
    kept = hidden_state if recomputing else block
    logits, logits_backward = _logits(work)
    edits = work.inhibition.recipe.action in ("deactivate", "dropout")
    return Activations(
        blocks=size.layers * kept + 2 * hidden_state,
        first_block=kept,
        final=2 * hidden_state,
        logits=logits,
        logits_backward=logits_backward,
        block_backward=BLOCK_BACKWARD * hidden_state + (block - hidden_state if recomputing else 0),
        taps=work.tapped * tokens * size.hidden * (1 if edits else 0),  # the mask
        tap_workspace=TAP_WORKSPACE * tokens * size.hidden if work.tapped and _scores(work) else 0,
    )


def _logits(work: Workload) -> tuple[float, float]:
    """What the loss keeps, and what it needs besides."""
    size, tokens, chunk = work.size, work.micro_batch * work.training.seq_length, work.training.loss_chunk
    if chunk == 0:
        return 4.0 * tokens * size.vocab_size, float(HEAD_BACKWARD * tokens * size.vocab_size)
    chunk = min(tokens, chunk or tokens_at_a_time(size.vocab_size, "cuda"))
    weight, states = size.vocab_size * size.hidden, tokens * size.hidden
    forward = CHUNK_LOGIT[work.bytes_each] * chunk * size.vocab_size
    # Both gradients times the loss's own: an fp32 product, then in the type of the weights.
    backward = 4 * (weight + states) + (work.bytes_each * (weight + states) if work.bytes_each < 4 else 0)
    return 4.0 * weight + work.bytes_each * states, float(max(forward, backward))


def _scores(work: Workload) -> bool:
    """Whether the taps gather statistics."""
    return work.inhibition.recipe.selection is not None


def inhibition_state(work: Workload) -> float:
    """Bytes that the taps hold: fp32 mean, variance and the two sums of an update, of each neuron."""
    if not _scores(work):
        return 0.0
    positions = work.training.seq_length if work.inhibition.neurons == "position" else 1
    return 4.0 * 4 * work.tapped * positions * work.size.hidden


def _block(work: Workload) -> float:
    size, batch, length = work.size, work.micro_batch, work.training.seq_length
    tokens, each = batch * length, work.bytes_each
    statistics = 2 * 2 * 4 * tokens
    if work.model.attention == "sdpa":
        return BLOCK * tokens * size.hidden * each + statistics + 4 * batch * size.heads * length
    # Eager attention copies the values (3 instead of 3 + 2, one output) and keeps a square for each head: the
    # softmax in fp32, and in half precision what it is rounded to.
    states = BLOCK - 3 if batch > 1 else BLOCK - 1
    square = batch * size.heads * length**2
    return states * tokens * size.hidden * each + statistics + square * (4 if each == 4 else 6)

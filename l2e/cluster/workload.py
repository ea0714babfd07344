"""What is planned: the settings of a run and the GPUs that it is to use."""

import math
from dataclasses import dataclass, replace
from functools import cached_property

from l2e.data.config import DataConfig
from l2e.inhibition import InhibitionConfig, select_blocks
from l2e.models import ModelConfig, PythiaSize, pythia_size
from l2e.training.config import CheckpointConfig, DeepSpeedConfig, TrainingConfig

_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A run on `gpus` ranks; what follows from its settings by counting."""

    model: ModelConfig
    data: DataConfig
    training: TrainingConfig
    deepspeed: DeepSpeedConfig
    checkpoint: CheckpointConfig
    inhibition: InhibitionConfig
    gpus: int

    @cached_property
    def size(self) -> PythiaSize:
        """The shape, with the vocabulary that is built."""
        size = pythia_size(self.model.name)
        return replace(size, vocab_size=self.model.vocab_size or size.vocab_size)

    @property
    def micro_batch(self) -> int:
        """Sequences of one forward pass on one rank."""
        return self.training.micro_batch_size or max(1, self.training.batch_size // self.gpus)

    @property
    def accumulation(self) -> int:
        """Forward passes of one update on one rank; rounded up where the batch does not divide."""
        return math.ceil(self.training.batch_size / (self.gpus * self.micro_batch))

    @property
    def bytes_each(self) -> int:
        """Bytes of a weight or an activation."""
        return _BYTES[self.training.precision]

    @property
    def tokens_per_update(self) -> int:
        """Targets of one update over all ranks."""
        return self.training.batch_size * self.training.seq_length

    @property
    def tokens(self) -> int:
        """Targets of the whole run."""
        return self.tokens_per_update * self.training.steps

    @property
    def tapped(self) -> int:
        """How many blocks are inhibited."""
        inhibition = self.inhibition
        if inhibition.method == "none" or (inhibition.method == "dropout" and inhibition.dropout_at == "everywhere"):
            return 0
        blocks = inhibition.blocks
        if inhibition.stack is None and not (isinstance(blocks, list) and any(isinstance(b, str) for b in blocks)):
            return len(select_blocks(self.size.layers, blocks))  # type: ignore[arg-type]
        return len(blocks) if isinstance(blocks, list) else 2


def tensor_sizes(size: PythiaSize) -> tuple[list[int], list[int]]:
    """Elements of each weight: those with weight decay, and the biases and LayerNorms without (D.2).

    The two lists are the optimizer's two groups; DeepSpeed pads each of them on its own.
    """
    hidden, embedding = size.hidden, size.vocab_size * size.hidden
    square = hidden * hidden
    decayed = [embedding, *[3 * square, square, 4 * square, 4 * square] * size.layers, embedding]
    # Two LayerNorms; the biases of queries-keys-values, attention's output and the MLP's two matrices.
    block = [hidden] * 4 + [3 * hidden, hidden, 4 * hidden, hidden]
    return decayed, block * size.layers + [hidden, hidden]


def parameters(size: PythiaSize) -> int:
    """All weights, both embeddings included."""
    decayed, plain = tensor_sizes(size)
    return sum(decayed) + sum(plain)


def embedding_parameters(size: PythiaSize) -> int:
    """Of the two embeddings, which are not tied."""
    return 2 * size.vocab_size * size.hidden

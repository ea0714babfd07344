"""Settings of the trainer benchmark."""

from dataclasses import dataclass
from typing import Literal

import torch

from l2e.benchmarks.arguments import require_precision, require_whole
from l2e.models import pythia_size


@dataclass(kw_only=True)
class TrainerBenchmarkConfig:
    """What is trained, how long it is timed."""

    kind: Literal["trainer"] = "trainer"

    model: str = "pythia-14m"
    """One of the Pythia sizes, or `tiny`."""

    micro_batch_size: int = 8
    """Sequences of a forward pass."""

    micro_batches: int = 1
    """Forward passes of an update."""

    seq_length: int = 512
    """Tokens of a sequence."""

    rounds: int = 10
    """Timings of each way."""

    steps: int = 2
    """Updates of a timing; one more comes before it untimed."""

    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: weights and activations here with an fp32 copy; autocast elsewhere."""

    compile: bool = False
    """As `training.compile`; the other ways are as their users have them."""

    stage: Literal[0, 1, 2, 3] = 1
    """ZeRO stage of our trainer."""

    threads: int | None = None
    """Threads of torch on a CPU; null leaves them as they are."""

    def __post_init__(self) -> None:
        require_whole(self, ("micro_batch_size", "micro_batches", "seq_length", "rounds", "steps", "threads"))
        require_precision(self.precision)
        if self.precision == "bf16" and self.stage == 0:
            raise ValueError("stage: bf16 needs 1 or higher")
        pythia_size(self.model)

    @property
    def batch_size(self) -> int:
        """Sequences of an update."""
        return self.micro_batch_size * self.micro_batches

    def rows(self, count: int) -> torch.Tensor:
        """`count` rows of random tokens, int64 [count, seq_length + 1]; the same for every way."""
        generator = torch.Generator().manual_seed(1)
        shape = (count, self.seq_length + 1)
        return torch.randint(pythia_size(self.model).vocab_size, shape, generator=generator)

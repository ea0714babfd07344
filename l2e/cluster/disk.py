"""Bytes on disk: restart points, exports, fetched rows."""

from dataclasses import dataclass

from l2e.cluster.activations import inhibition_state
from l2e.cluster.states import partition, partition_3
from l2e.cluster.workload import Workload, parameters
from l2e.inhibition import acts_at_test

TOKENIZER = 49
"""Bytes of a tokenizer for each token: Pythia's tokenizer.json is 2.47 MB. Each export holds a copy."""


@dataclass(frozen=True, kw_only=True)
class Disk:
    """Bytes of a run.

    Attributes:
        restart_point: one, all ranks together.
        restart_points: how many there are at most, with the one being written.
        export: one Hugging Face model with its tokenizer.
        exports: how many there are at the end.
        rows: training rows that are read from the published files; 0 for other data.
    """

    restart_point: float
    restart_points: int
    export: float
    exports: int
    rows: float

    @property
    def run(self) -> float:
        """The run directory at its largest."""
        return self.restart_point * self.restart_points + self.export * self.exports


def disk(work: Workload) -> Disk:
    """What a run writes and fetches."""
    training, checkpoint = work.training, work.checkpoint
    counted = (training.steps - 1) // checkpoint.every if checkpoint.every else 0
    written = training.steps - 1 if checkpoint.every_minutes else counted  # by the clock: nobody knows how many
    rows = training.steps * training.batch_size
    return Disk(
        restart_point=restart_point(work),
        # The new one is complete before the oldest is removed.
        restart_points=min(written, checkpoint.keep + 1),
        export=export(work),
        exports=len(checkpoint.export_steps(training.steps)),
        rows=2.0 * rows * (training.seq_length + 1) if work.data.kind == "pile" else 0.0,
    )


def export(work: Workload) -> float:
    """Weights, tokenizer, and the statistics of an inhibition that can act at test time."""
    state = inhibition_state(work) / 2 if acts_at_test(work.inhibition.method) else 0.0
    return work.bytes_each * parameters(work.size) + TOKENIZER * work.size.vocab_size + state


def restart_point(work: Workload) -> float:
    """Weights in the precision of training, and the fp32 copy and both moments of every rank.

    ZeRO-3 writes no weights of their own; plain fp32 has no second copy.
    """
    count, stage = parameters(work.size), work.deepspeed.stage
    weights, state = work.bytes_each * count, inhibition_state(work) / 2  # the sums are empty between updates
    if stage == 0:
        return weights + (8 if work.training.precision == "fp32" else 12) * count + state
    if stage == 3:
        return 12 * partition_3(work) * work.gpus + state
    return weights + 12 * partition(work) * work.gpus + state

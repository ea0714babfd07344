"""All settings of a training run, and what is possible among them."""

from dataclasses import dataclass

from l2e.data.config import DataConfig
from l2e.evaluation.config import EvaluationConfig
from l2e.inhibition import InhibitionConfig, acts_at_test, select_blocks
from l2e.inhibition.methods import METHODS
from l2e.models import ModelConfig, pythia_size
from l2e.training.config import CheckpointConfig, DeepSpeedConfig, LoggingConfig, TrainingConfig


@dataclass(kw_only=True)
class PretrainConfig:
    """All settings of a run, and what is possible among them."""

    name: str
    """Name of the run directory; from the settings, never from the clock."""

    seed: int
    """Of the initial weights; the order of rows has its own, `data.*seed`."""

    runs_dir: str
    """Where run directories lie."""

    cache_dir: str
    """Where generated and tokenised data is kept between runs."""

    offline: bool
    """Ask no hub for anything."""

    model: ModelConfig
    data: DataConfig
    inhibition: InhibitionConfig
    training: TrainingConfig
    deepspeed: DeepSpeedConfig
    checkpoint: CheckpointConfig
    evaluation: EvaluationConfig
    logging: LoggingConfig

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise ValueError(f"name: {self.name!r} is no name for a folder")
        if self.training.seq_length > self.model.max_length:
            raise ValueError(
                f"training.seq_length: {self.training.seq_length} tokens are more than "
                f"model.max_length, {self.model.max_length}"
            )
        if self.offline and self.logging.wandb.mode == "online":
            raise ValueError(
                "logging.wandb.mode: online needs the network that offline=true forbids; take offline, for `wandb sync`"
            )
        if self.training.precision != "fp32" and self.deepspeed.stage == 0:
            # DeepSpeed takes a phantom optimizer step there, adds gradients up in half precision, and divides
            # by a loss scale that it has not multiplied by.
            raise ValueError(
                f"training.precision: {self.training.precision} needs deepspeed=zero1 or higher, not zero0; "
                f"on one GPU zero1 costs nothing more"
            )
        if self.training.compile and self.deepspeed.stage == 3:
            raise ValueError(
                "training.compile: true goes with deepspeed=zero0 to zero2; zero3 fetches weights between the parts of "
                "a block, which leaves next to nothing to compile"
            )
        if self.training.non_finite == "skip" and self.inhibition.scope == "micro_batch":
            raise ValueError(
                "training.non_finite: skip needs inhibition.scope=step, whose statistics can leave an update out"
            )
        if self.logging.update_ratios.every and self.inhibition.recipe.selection is None:
            raise ValueError(
                f"logging.update_ratios.every: inhibition={self.inhibition.method} selects no outputs that could be "
                f"measured; inhibition=l2e inhibition.weight=0 selects and trains as a baseline"
            )
        if self.evaluation.inhibited and not acts_at_test(self.inhibition.method):
            acting = ", ".join(method for method in METHODS if acts_at_test(method))
            raise ValueError(
                f"evaluation.inhibited: method {self.inhibition.method} changes nothing at test time, so there would "
                f"be nothing to see; {acting} do"
            )
        profiled = self.logging.profile.steps
        if profiled is not None and profiled[1] > self.training.steps:
            raise ValueError(f"logging.profile.steps: the run has {self.training.steps} updates, not {profiled[1]}")
        if self.inhibition.stack is None and not _are_paths(self.inhibition.blocks):
            select_blocks(pythia_size(self.model.name).layers, self.inhibition.blocks)  # type: ignore[arg-type]

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding."""
        return self.model.vocab_size or pythia_size(self.model.name).vocab_size


def _are_paths(blocks: str | list[int] | list[str]) -> bool:
    return isinstance(blocks, list) and any(isinstance(block, str) for block in blocks)

"""Settings of training, checkpoints and logging."""

from dataclasses import dataclass, field
from typing import Any, Literal

from l2e.errors import require
from l2e.training.deepspeed_settings import decided_elsewhere
from l2e.training.profile_config import ProfileConfig
from l2e.training.spikes import SpikeConfig
from l2e.training.update_ratio_config import UpdateRatioConfig


@dataclass(kw_only=True)
class TrainingConfig:
    """How the model is trained. Batch sizes are in sequences, lengths in tokens."""

    steps: int
    """Optimizer updates of this run."""

    batch_size: int
    """Global batch of one update, over all ranks."""

    micro_batch_size: int | None = None
    """One forward pass on one rank; null: batch_size / ranks. The rest is gradient accumulation."""

    seq_length: int
    """Targets per sequence."""

    lr: float
    """Peak learning rate."""

    schedule: Literal["pythia_v1", "cosine"] = "pythia_v1"
    """See `l2e.training.schedule`."""

    schedule_steps: int | None = None
    """Updates that the schedule is laid out for; null: `steps`. Pythia's is 143000, whatever is run."""

    warmup: float = 0.01
    """Share of the schedule that the warm-up takes, in [0, 1)."""

    lr_floor: float = 0.1
    """Lowest rate after the warm-up, as a share of the peak."""

    weight_decay: float = 0.1
    """Decoupled decay of all matrices, embeddings included; biases and LayerNorms have none (D.2)."""

    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    """AdamW."""

    eps: float = 1e-8
    """AdamW."""

    clip: float = 1.0
    """Largest global norm of the gradient; 0 does not clip."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of weights and activations; the optimizer's copy is fp32 in each."""

    activation_checkpointing: bool = False
    """Recompute each block in the backward pass instead of keeping its activations."""

    compile: bool = False
    """Compile each block, and what the loss computes between its matrix products, with torch.compile."""

    loss_chunk: int | None = None
    """Tokens whose logits exist at a time (`l2e.training.fused_loss`); null: as many as suit the device and the
    vocabulary; 0: all at once, PyTorch's own cross-entropy."""

    validation_every: int = 0
    """Updates between validation losses; 0: at the start and the end alone."""

    validation_sequences: int = 64
    """Rows of the validation loss, over all ranks."""

    threads: int | None = None
    """CPU threads of one process; null leaves it to the environment (OMP_NUM_THREADS)."""

    non_finite: Literal["stop", "skip"] = "stop"
    """When a loss or gradient is NaN or infinite. The update is left out in any case and its rows are saved; then
    `stop` ends the run, `skip` goes on. fp16's overflows, for which the loss scale is lowered, do not count."""

    max_skips: int = 10
    """Updates in a row that `skip` leaves out before it ends the run too."""

    timeout_minutes: float = 30.0
    """How long a process waits for the others; it covers the tokenising that rank 0 does at the first start."""

    dry_run: bool = False
    """Make three updates of the first batch, report memory and time, and leave nothing behind."""

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", "at least 1", self.steps)
        require(self.batch_size >= 1, "batch_size", "at least 1", self.batch_size)
        require(self.seq_length >= 2, "seq_length", "at least 2", self.seq_length)
        require(self.lr > 0, "lr", "above 0", self.lr)
        require(0 <= self.warmup < 1, "warmup", "in [0, 1)", self.warmup)
        require(0 <= self.lr_floor <= 1, "lr_floor", "in [0, 1]", self.lr_floor)
        require(self.weight_decay >= 0, "weight_decay", "at least 0", self.weight_decay)
        require(len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas), "betas", "two in [0, 1)", self.betas)
        require(self.clip >= 0, "clip", "at least 0", self.clip)
        require(self.validation_every >= 0, "validation_every", "at least 0", self.validation_every)
        require(self.validation_sequences >= 1, "validation_sequences", "at least 1", self.validation_sequences)
        micro, planned = self.micro_batch_size, self.schedule_steps
        require(micro is None or micro >= 1, "micro_batch_size", "at least 1 or null", micro)
        require(planned is None or planned >= self.steps, "schedule_steps", "at least steps or null", planned)
        chunk = self.loss_chunk
        require(chunk is None or chunk >= 0, "loss_chunk", "at least 0 or null", chunk)
        require(self.threads is None or self.threads >= 1, "threads", "at least 1 or null", self.threads)
        require(self.max_skips >= 0, "max_skips", "at least 0", self.max_skips)
        require(self.timeout_minutes > 0, "timeout_minutes", "above 0", self.timeout_minutes)

    def micro_batch(self, ranks: int) -> int:
        """Sequences of one forward pass on each of `ranks`; ValueError when the batch does not divide."""
        if self.batch_size % ranks:
            raise ValueError(
                f"training.batch_size: {self.batch_size} sequences do not divide over {ranks} ranks; "
                f"take a multiple of {ranks}"
            )
        micro = self.micro_batch_size or self.batch_size // ranks
        if self.batch_size % (micro * ranks):
            raise ValueError(
                f"training.micro_batch_size: a batch of {self.batch_size} does not divide into "
                f"{micro} sequences on each of {ranks} ranks; micro_batch_size must divide {self.batch_size // ranks}"
            )
        return micro


@dataclass(kw_only=True)
class DeepSpeedConfig:
    """How optimizer state, gradients and weights are spread over the ranks."""

    stage: Literal[0, 1, 2, 3] = 1
    """ZeRO stage: 0 nothing, 1 optimizer state, 2 and gradients, 3 and weights."""

    offload_optimizer: Literal["none", "cpu"] = "none"
    """Where the optimizer's state lies and its step is taken; `cpu` from stage 1 on."""

    offload_param: Literal["none", "cpu"] = "none"
    """Where a rank's part of the weights waits between uses; `cpu` at stage 3."""

    communication_dtype: Literal["fp32", "bf16", "fp16"] | None = None
    """In what gradients are averaged over the ranks; null: fp16 for fp16 (Pythia's), else fp32."""

    overlap_comm: bool | None = None
    """Average gradients while the backward pass goes on, with a second bucket; null: at stage 3 alone."""

    reduce_bucket_size: int = 500_000_000
    """Most gradients averaged at a time, in elements; no more than the model has. Pythia's value."""

    allgather_bucket_size: int = 500_000_000
    """Most weights gathered at a time after an update, in elements (stages 1 and 2). Pythia's value."""

    extra: dict[str, Any] = field(default_factory=dict)
    """DeepSpeed's own settings, merged last; what the other settings decide is refused."""

    def __post_init__(self) -> None:
        self._require_stage("offload_optimizer", 1)
        self._require_stage("offload_param", 3)
        require(self.reduce_bucket_size >= 1, "reduce_bucket_size", "at least 1", self.reduce_bucket_size)
        require(self.allgather_bucket_size >= 2, "allgather_bucket_size", "at least 2", self.allgather_bucket_size)
        if taken := decided_elsewhere(self.extra):
            key, ours = taken
            raise ValueError(f"extra.{key}: this is decided by {ours}; set that")

    def _require_stage(self, key: str, least: int) -> None:
        device = getattr(self, key)
        if device != "none" and self.stage < least:
            raise ValueError(
                f"{key}: {device} needs deepspeed=zero{least}{' or higher' * (least < 3)}, not zero{self.stage}"
            )


@dataclass(kw_only=True)
class CheckpointConfig:
    """When the run is saved."""

    every: int = 0
    """Updates between restart points; 0 does not count updates."""

    every_minutes: float = 30.0
    """Minutes between restart points, by the clock of rank 0; 0 does not look at it."""

    keep: int = 2
    """Restart points that are kept."""

    exports: list[int] | Literal["pythia"] = field(default_factory=list)
    """Updates after which a Hugging Face model is exported besides the last; 0 is the untrained one. `pythia`:
    0, 1, 2, 4 ... 512 and then every 1000."""

    def __post_init__(self) -> None:
        require(self.every >= 0, "every", "at least 0", self.every)
        require(self.every_minutes >= 0, "every_minutes", "at least 0", self.every_minutes)
        require(self.keep >= 1, "keep", "at least 1", self.keep)
        steps = [] if self.exports == "pythia" else self.exports
        require(all(int(step) >= 0 for step in steps), "exports", "steps of at least 0", self.exports)

    def export_steps(self, steps: int) -> list[int]:
        """Updates of a run of `steps` after which a model is exported; the last is always among them."""
        published = [0, *(1 << power for power in range(10)), *range(1000, steps, 1000)]
        asked = published if self.exports == "pythia" else map(int, self.exports)
        return sorted({step for step in asked if step < steps} | {steps})


@dataclass(kw_only=True)
class WandbConfig:
    """Weights & Biases."""

    mode: Literal["disabled", "offline", "online"] = "disabled"
    """`offline` writes into the run directory, for `wandb sync`."""

    project: str = "l2e"
    """Where online runs are shown."""


@dataclass(kw_only=True)
class LoggingConfig:
    """What is told while it runs."""

    every: int = 10
    """Updates between lines; every update is in metrics.jsonl."""

    wandb: WandbConfig = field(default_factory=WandbConfig)
    """See `WandbConfig`."""

    spikes: SpikeConfig = field(default_factory=SpikeConfig)
    """See `SpikeConfig`."""

    profile: ProfileConfig = field(default_factory=ProfileConfig)
    """See `ProfileConfig`."""

    update_ratios: UpdateRatioConfig = field(default_factory=UpdateRatioConfig)
    """See `UpdateRatioConfig`."""

    peak_tflops: float | None = None
    """What one device could do at most at this precision, for the MFU; null: by the name of a known GPU."""

    def __post_init__(self) -> None:
        require(self.every >= 1, "every", "at least 1", self.every)
        require(self.peak_tflops is None or self.peak_tflops > 0, "peak_tflops", "above 0 or null", self.peak_tflops)

"""What a training run does besides training, and in which order."""

from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist

from l2e.cli.pretrain_config import PretrainConfig
from l2e.cli.run_folder import RunFolder
from l2e.data import Corpus
from l2e.inhibition import Inhibition
from l2e.models import pythia_size
from l2e.models.flops import flops_per_token
from l2e.training.callbacks.checkpoint import CheckpointCallback
from l2e.training.callbacks.export import ExportCallback
from l2e.training.callbacks.inhibition import InhibitionCallback
from l2e.training.callbacks.metrics import MetricsCallback, MetricsFile, Sink
from l2e.training.callbacks.non_finite import NonFiniteCallback
from l2e.training.callbacks.profile import ProfileCallback
from l2e.training.callbacks.progress import ProgressCallback
from l2e.training.callbacks.randomness import RandomnessCallback
from l2e.training.callbacks.spikes import SpikeCallback
from l2e.training.callbacks.stop import StopCallback
from l2e.training.callbacks.update_ratios import UpdateRatioCallback
from l2e.training.callbacks.validation import ValidationCallback
from l2e.training.callbacks.wandb_sink import WandbCallback
from l2e.training.events import Callback
from l2e.training.ranks import HostGroup
from l2e.training.restart_points import Identity
from l2e.training.signals import StopSignals
from l2e.training.telemetry import Telemetry, peak_of


def all_callbacks(
    config: PretrainConfig,
    folder: RunFolder,
    tree: dict[str, Any],
    corpus: Corpus,
    inhibition: Inhibition,
    identity: Identity,
    device: torch.device,
    ranks: HostGroup,
    signals: StopSignals,
) -> list[Callback]:
    """The callbacks of a run, in the order of their calls."""
    training, every = config.training, config.logging.every
    progress = ProgressCallback(training.steps)
    spikes = SpikeCallback(config.logging.spikes, training.batch_size)
    sinks: list[Sink] = [MetricsFile(folder.metrics), progress, spikes]
    metrics = MetricsCallback(every, sinks, _telemetry(config, device, ranks))
    checkpoint = CheckpointCallback(folder.checkpoints, config.checkpoint, identity)
    initial = [0] if config.evaluation.enabled and config.evaluation.initial else []
    callbacks: list[Callback] = [
        RandomnessCallback(config.seed),
        InhibitionCallback(inhibition, every),
        UpdateRatioCallback(inhibition, config.logging.update_ratios),
        ExportCallback(
            folder.exports,
            corpus.tokenizer,
            config.checkpoint.export_steps(training.steps) + initial,
            identity,
            inhibition,
        ),
        progress,
        metrics,
        spikes,
        checkpoint,
        ProfileCallback(config.logging.profile, folder.profile),
        NonFiniteCallback(folder.bad_batches, corpus.tokenizer, ranks, metrics),
        StopCallback(signals, ranks, metrics, checkpoint),
    ]
    if corpus.validation is not None:
        callbacks.append(
            ValidationCallback(corpus.validation, training.validation_sequences, training.validation_every)
        )
    if config.logging.wandb.mode != "disabled" and dist.get_rank() == 0:
        wandb = WandbCallback(config.logging.wandb, config.name, folder.path, tree)
        callbacks.append(wandb)
        sinks.append(wandb)
    return callbacks


def _telemetry(config: PretrainConfig, device: torch.device, ranks: HostGroup) -> Telemetry:
    size = replace(pythia_size(config.model.name), vocab_size=config.vocab_size)
    peak = peak_of(device, config.training.precision, config.logging.peak_tflops)
    return Telemetry(flops_per_token(size, config.training.seq_length), peak, ranks)

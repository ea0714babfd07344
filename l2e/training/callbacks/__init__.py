"""Plug-ins of the training loop, one file each."""

from l2e.training.callbacks.checkpoint import CheckpointCallback, resume
from l2e.training.callbacks.export import ExportCallback
from l2e.training.callbacks.inhibition import InhibitionCallback
from l2e.training.callbacks.metrics import MetricsCallback, MetricsFile
from l2e.training.callbacks.progress import ProgressCallback
from l2e.training.callbacks.validation import ValidationCallback
from l2e.training.callbacks.wandb_sink import WandbCallback
from l2e.training.events import Callback

__all__ = [
    "Callback",
    "CheckpointCallback",
    "ExportCallback",
    "InhibitionCallback",
    "MetricsCallback",
    "MetricsFile",
    "ProgressCallback",
    "ValidationCallback",
    "WandbCallback",
    "resume",
]

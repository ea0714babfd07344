"""DeepSpeed, imported in one place: without a GPU it has to be told so before, else it warns that it had to guess."""

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
import deepspeed
from deepspeed.checkpoint import ds_to_universal
from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine

__all__ = ["TorchCheckpointEngine", "deepspeed", "ds_to_universal"]

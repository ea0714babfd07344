"""How the work on a tap's outputs is done: in plain PyTorch, or by Triton in one pass over the memory."""

import importlib.util
import os
import shutil
import sysconfig
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor

Kernel = Literal["auto", "torch", "triton"]

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def takes_triton(kernel: Kernel, values: Tensor, mean: Tensor) -> bool:
    """Whether outputs [batch, *shape] go to Triton.

    Args:
        kernel: the setting.
        values: the outputs.
        mean: of the neurons, as it broadcasts against the outputs: along their last dimensions, or not.
    """
    if kernel == "torch" or type(values) is not Tensor or values.dtype not in DTYPES or not mean.numel():
        return False
    shape = [*mean.shape]
    while len(shape) > 1 and shape[0] == 1:
        shape.pop(0)
    along = list(values.shape[-len(shape) :]) == shape
    return along and (values.is_cuda or (kernel == "triton" and interpreted())) and missing() is None


def load_triton() -> ModuleType:
    """The module, which can only be imported where Triton is installed."""
    from l2e.inhibition.kernels import triton_ops

    return triton_ops


@cache
def missing() -> str | None:
    """Why Triton cannot run here at all; None when it can."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed (pip install triton)"
    if interpreted():
        return None
    if not torch.cuda.is_available():
        return "torch sees no GPU here (TRITON_INTERPRET=1 runs Triton on a CPU, very slowly, for tests)"
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "triton needs a C compiler: install gcc or name one in CC"
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return None if headers.exists() else f"triton needs Python's headers, and there is no {headers}"


def interpreted() -> bool:
    """Whether Triton's kernels run in its interpreter, on the CPU."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"

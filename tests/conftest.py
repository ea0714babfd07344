"""What all tests share."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")

# Two OpenMP threads collapse on busy cores, and the suite runs on two of them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

# Without a GPU the kernels are tested in Triton's interpreter; it must be told before anything imports Triton.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Take a command's log handlers off again: they write to a stream that ends with the test."""
    logger = logging.getLogger("l2e")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the real tokenizer, benchmarks and text; L2E_DATA or a neighbour of the repository."""
    folder = Path(os.environ.get("L2E_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "tokenizer" / "tokenizer.json").exists():
        pytest.skip(f"no real data in {folder} (set L2E_DATA)")
    return folder


@pytest.fixture(autouse=True)
def leave_no_launch() -> Iterator[None]:
    """A run in this process sets LOCAL_RANK, which DeepSpeed reads; accelerate would take it for a launch of many."""
    yield
    for key in LAUNCHERS:
        os.environ.pop(key, None)

"""Keep what lm-eval and datasets do to this process from outliving an evaluation."""

import contextlib
import logging
import random
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import datasets
import numpy as np
import torch
import tqdm  # type: ignore[import-untyped]

log = logging.getLogger("l2e.evaluation")


@contextlib.contextmanager
def scoring(model: Any) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every module is back in the mode it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextlib.contextmanager
def own_generators() -> Iterator[None]:
    """Seed the global generators as lm-eval's command line does, and put them back afterwards.

    lm-eval draws from Python's even where nothing random is left to decide (a fall-back name for each task).
    """
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            random.seed(0)
            np.random.seed(1234)
            torch.default_generator.manual_seed(1234)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide what lm-eval and datasets log (`l2e.evaluation` at DEBUG shows it), and bars off a terminal."""
    with contextlib.ExitStack() as stack:
        if not log.isEnabledFor(logging.DEBUG):
            for name in ("lm_eval", "datasets"):
                stack.enter_context(at_level(logging.getLogger(name), logging.ERROR))
        if not sys.stderr.isatty():
            # lm-eval gives no switch for the bar over contexts.
            stack.enter_context(replaced(tqdm.tqdm, "__init__", _hidden_bar(tqdm.tqdm.__init__)))
        yield


@contextlib.contextmanager
def at_level(logger: logging.Logger, level: int) -> Iterator[None]:
    """Another level of a logger, for the time being."""
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


def _hidden_bar(init: Any) -> Any:
    def hidden(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **{**kwargs, "disable": True})

    return hidden


@contextlib.contextmanager
def local_data() -> Iterator[None]:
    """Let `datasets` build its tables in a folder of this call, and leave the network alone.

    By default it keeps them under ~/.cache/huggingface and recognises a file by path and modification time, so
    that a file replaced by another of the same time would be served stale; and it reports every load to the hub.
    """
    with (
        tempfile.TemporaryDirectory(prefix="l2e-evaluation-") as folder,
        replaced(datasets.config, "HF_DATASETS_CACHE", folder),
        replaced(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", False),
    ):
        yield


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Another value of an attribute, for the time being."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)

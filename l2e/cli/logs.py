"""Where messages go: the console of rank 0, and the run's train.log."""

import logging
import sys
import warnings
from pathlib import Path

import transformers

from l2e.training.launch import launched


def start_logging(file: Path | None = None) -> None:
    """Send the package's messages to the console, and to `file` as well; other libraries' warnings stay quiet.

    Ranks other than 0 only report errors.
    """
    main = launched().rank == 0
    logger = logging.getLogger("l2e")
    logger.setLevel(logging.INFO if main else logging.ERROR)
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    console = logging.StreamHandler(sys.stderr)
    console.addFilter(lambda record: not getattr(record, "file_only", False))
    console.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(console)
    if file is not None and main:
        log_file = logging.FileHandler(file)
        log_file.setFormatter(logging.Formatter("%(asctime)s %(name)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        logger.addHandler(log_file)


def quieten_libraries() -> None:
    """DeepSpeed, transformers and Hugging Face print much that a reader of this run's log does not need."""
    for name in ("DeepSpeed", "transformers", "datasets", "lm_eval", "huggingface_hub", "httpx"):
        logging.getLogger(name).setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module=r"deepspeed|transformers|torch\.(distributed|_inductor)")

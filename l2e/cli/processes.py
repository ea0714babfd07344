"""One process, or several that a launcher started."""

from contextlib import AbstractContextManager, nullcontext

import torch

from l2e.training.launch import launched


def processes() -> AbstractContextManager[torch.device]:
    """This process's device, within the launcher's group if there is one."""
    if launched().meeting is None:
        return nullcontext(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    from l2e.training.engine import process_group  # DeepSpeed's import takes seconds

    return process_group()

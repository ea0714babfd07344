"""Hold an evaluation against the published accuracies of a public checkpoint."""

from pathlib import Path

import torch.distributed as dist

from l2e.errors import RunError
from l2e.evaluation import TaskResult
from l2e.files import write_atomically
from l2e.reporting.reference import as_text, checks, reference


def compare_with_reference(name: str, results: list[TaskResult], output: Path) -> None:
    """Print the comparison and write it to `output/reference.md`.

    Raises:
        RunError: an accuracy differs by more than is explained, or was measured on other items.
    """
    public = reference(name)
    found = checks(public, results)
    text = as_text(public, found)
    if not dist.is_initialized() or dist.get_rank() == 0:
        write_atomically(output / "reference.md", text)
        print(text)
    failed = [f"{one.task}, {one.shots}-shot: {one.verdict}" for one in found if one.failed]
    if failed:
        raise RunError(f"{len(failed)} of {len(found)} accuracies are not the published ones: {'; '.join(failed)}")

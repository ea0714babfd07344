"""Items of lm-eval's tasks from the Hugging Face hub, for evaluations that go where there is no network."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l2e.errors import UserError
from l2e.evaluation.config import EvaluationConfig
from l2e.evaluation.items import read_items
from l2e.evaluation.tasks import LOCAL_TASKS, default_task_manager, needed_splits, packaged_definition

_KEYS = ("training_split", "validation_split", "test_split")


@dataclass(frozen=True, kw_only=True)
class HubItems:
    """The items of a task as the hub holds them.

    Args:
        task: name of the task, one of `LOCAL_TASKS`.
        dataset: its name on the hub.
        subset: of the dataset; None for its only one.
        commit: state of the dataset.
        size: bytes to download.
    """

    task: str
    dataset: str
    subset: str | None
    commit: str
    size: int

    @property
    def source(self) -> str:
        """Dataset, commit and subset."""
        return f"{self.dataset}@{self.commit}" + (f" {self.subset}" if self.subset else "")


def hub_errors() -> tuple[type[Exception], ...]:
    """What Hugging Face's libraries raise when the hub is out of reach or does not have what was asked for."""
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HTTPError  # of the HTTP library that this version uses: no OSError

    return OSError, ValueError, DatasetsError, HTTPError


def has_local_form(tasks: list[str]) -> bool:
    """Whether all tasks can be read from `evaluation.data_dir`."""
    return all(task in LOCAL_TASKS for task in tasks)


def splits_of(task: str) -> list[str]:
    """The splits that lm-eval's definition uses. PIQA's test split is none: its labels are not public, and -1."""
    definition = packaged_definition(LOCAL_TASKS[task].packaged)
    return [split for key in _KEYS if (split := definition.get(key)) is not None]


def find_items(task: str) -> HubItems:
    """Ask the hub for the dataset that lm-eval's definition of a task names.

    Raises:
        UserError: the hub does not give it.
    """
    import datasets
    from huggingface_hub import HfFileSystem

    dataset, subset = _source(task)
    try:
        builder = datasets.load_dataset_builder(dataset, subset)
        files = [url for urls in (builder.config.data_files or {}).values() for url in urls]
        size = sum(HfFileSystem().info(url)["size"] for url in files)
    except hub_errors() as error:
        raise _refused(task, dataset, error) from error
    return HubItems(task=task, dataset=dataset, subset=subset, commit=str(builder.hash), size=size)


def write_items(items: HubItems, folder: Path) -> list[Path]:
    """Write `<split>.jsonl` for the splits that the task uses; the paths. A file appears whole and checked.

    Raises:
        UserError: the hub does not give it, or its items are not what lm-eval's definition reads.
    """
    import datasets

    from l2e.evaluation import contained

    task = LOCAL_TASKS[items.task]
    try:
        with contained.quiet():
            tables = datasets.load_dataset(items.dataset, items.subset, revision=items.commit)
    except hub_errors() as error:
        raise _refused(items.task, items.dataset, error) from error
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for split in splits_of(items.task):
        if split not in tables:
            raise UserError(f"{items.source}: no split {split}, which lm-eval's {items.task} reads")
        temporary, path = folder / f".{split}.jsonl.tmp", folder / f"{split}.jsonl"
        with temporary.open("w", encoding="utf-8") as out:
            out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in tables[split])
        read_items(temporary, task.check)
        os.replace(temporary, path)
        written.append(path)
    return written


def fetch_tasks(tasks: list[str], hf_home: Path) -> list[Path]:
    """Load tasks as lm-eval does, whatever they need, with `hf_home` for Hugging Face's caches; the files there.

    Raises:
        UserError: lm-eval could not load one.
    """
    own = {key: value for key, value in os.environ.items() if key not in ("HF_HUB_CACHE", "HF_DATASETS_CACHE")}
    command = [sys.executable, "-m", "l2e.evaluation.fetch_tasks", *tasks]  # the libraries read HF_HOME at import
    done = subprocess.run(command, env={**own, "HF_HOME": str(hf_home)}, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise UserError(f"evaluation.tasks: lm-eval could not fetch {', '.join(tasks)}: {said}")
    return sorted(
        path for path in hf_home.rglob("*") if path.is_file() and not path.is_symlink() and path.suffix != ".lock"
    )


def missing_items(config: EvaluationConfig) -> list[str]:
    """What an evaluation without network lacks, one line each: files of `data_dir`, or datasets in the cache."""
    if config.data_dir is not None:
        files = [
            Path(config.data_dir) / task / f"{split}.jsonl"
            for task in config.tasks
            if task in LOCAL_TASKS
            for split in sorted(needed_splits(LOCAL_TASKS[task], max(config.shots)))
        ]
        return [f"{path}: no such file" for path in files if not path.is_file()]
    tasks = [task for task in config.tasks if not task.startswith("world_")]
    return [line for task in tasks for line in _lacking(task)]


def _lacking(task: str) -> list[str]:
    import datasets

    from l2e.evaluation import contained

    dataset, subset = _source(task) if task in LOCAL_TASKS else ("its dataset", None)
    try:
        with contained.quiet():
            if task in LOCAL_TASKS:
                datasets.load_dataset(dataset, subset)
            else:
                default_task_manager().load([task])
    except hub_errors():
        return [f"{task}: {dataset} is not in {datasets.config.HF_DATASETS_CACHE}, and evaluation.data_dir is null"]
    return []


def _source(task: str) -> tuple[str, str | None]:
    """Dataset and subset in lm-eval's definition."""
    if task.startswith("world_"):
        raise UserError(f"evaluation.tasks: {task} is on no hub; it comes with data=builtin")
    definition: dict[str, Any] = packaged_definition(LOCAL_TASKS[task].packaged)
    return definition["dataset_path"], definition["dataset_name"]


def _refused(task: str, dataset: str, error: Exception) -> UserError:
    said = str(error).strip().splitlines()
    return UserError(
        f"evaluation.tasks: the hub did not give {dataset}, which {task} needs ({said[0] if said else error!r}); "
        f"check the network, or your rights there (hf auth login)"
    )

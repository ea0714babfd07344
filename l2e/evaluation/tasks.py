"""Local task files for lm-eval, and the check that everything an evaluation needs is there.

A generated task keeps the name and the whole definition of the task that lm-eval packages; only the source of
its items changes. The definition is copied out, because lm-eval's `include:` takes a path relative to the file
or an absolute one, and neither survives another machine. Only `data_files` are absolute: relative ones would be
resolved against the working directory.
"""

import functools
import glob
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from l2e.errors import UserError
from l2e.evaluation.config import EvaluationConfig
from l2e.evaluation.items import Item, check_arc, check_piqa, check_sciq, read_items

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class LocalTask:
    """A task whose items can be read from `<data_dir>/<task>/<split>.jsonl`."""

    packaged: str
    """The definition it follows, below lm-eval's `tasks` folder."""

    check: Callable[[Item], None]
    """Raises ValueError on an item that the definition cannot read."""

    scored: str = "test"
    """The split whose items are scored; examples come from `train`."""


_ARC = LocalTask("arc/arc_easy.yaml", check_arc)
_PIQA = LocalTask("piqa/piqa.yaml", check_piqa, scored="validation")
_SCIQ = LocalTask("sciq/sciq.yaml", check_sciq)

LOCAL_TASKS = {
    "arc_easy": _ARC,
    "arc_challenge": LocalTask("arc/arc_challenge.yaml", check_arc),
    "piqa": _PIQA,
    "sciq": _SCIQ,
    "world_arc": _ARC,
    "world_piqa": _PIQA,
    "world_sciq": _SCIQ,
}


def check_evaluation_data(config: EvaluationConfig) -> None:
    """Make sure that every task can be run, without a model and without writing anything.

    Reads local files whole (under a second for the four real tasks). Without `data_dir` it only looks names up
    in lm-eval's index, some ten seconds for one that is not in `LOCAL_TASKS`; the hub is not asked.

    Raises:
        UserError: an unknown task, a missing folder or file, an empty split, too few examples, a bad line.
    """
    if config.data_dir is None:
        check_names(config)
        return
    folder = Path(config.data_dir)
    if not folder.is_dir():
        raise UserError(f"evaluation.data_dir: {folder} is no folder; it must hold <task>/<split>.jsonl")
    for name in config.tasks:
        _check_local(name, folder, max(config.shots))


def check_names(config: EvaluationConfig) -> None:
    """Refuse tasks that lm-eval does not know, or that only local files can hold."""
    for name in config.tasks:
        if name.startswith("world_") and name in LOCAL_TASKS:
            raise UserError(f"evaluation.tasks: {name} needs evaluation.data_dir, which holds {name}/<split>.jsonl")
        if name not in LOCAL_TASKS and name not in default_task_manager().all_tasks:
            raise UserError(f"evaluation.tasks: lm-eval knows no task {name}; `lm_eval ls tasks` lists them")


def _check_local(name: str, folder: Path, shots: int) -> None:
    if name not in LOCAL_TASKS:
        raise UserError(
            f"evaluation.tasks: evaluation.data_dir can hold {', '.join(LOCAL_TASKS)}, not {name}; "
            "for lm-eval's own tasks set evaluation.data_dir=null"
        )
    task = LOCAL_TASKS[name]
    needed = needed_splits(task, shots)
    counts = {
        split: len(read_items(folder / name / f"{split}.jsonl", task.check))
        for split in SPLITS
        if split in needed or (folder / name / f"{split}.jsonl").exists()
    }
    if shots > counts.get("train", 0):
        raise UserError(
            f"evaluation.num_fewshot: {shots} is more than the {counts['train']} items of "
            f"{folder / name / 'train.jsonl'}"
        )


def needed_splits(task: LocalTask, shots: int) -> set[str]:
    """Splits that must be there for up to `shots` examples."""
    return {task.scored} | ({"train"} if shots else set())


@functools.cache
def default_task_manager() -> Any:
    """lm-eval's index of all its tasks; about ten seconds, once a process."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def write_task_files(config: EvaluationConfig, folder: Path) -> None:
    """Write `<task>.yaml` for each task, for `lm_eval run --include_path <folder> --tasks <task> ...`.

    `metadata.data_sha256` says which items the numbers came from; lm-eval copies it into its results.
    """
    if config.data_dir is None:
        raise ValueError("local task files need data_dir")
    folder.mkdir(parents=True, exist_ok=True)
    for name in config.tasks:
        definition = _definition(name, Path(config.data_dir).resolve() / name)
        text = yaml.safe_dump(definition, sort_keys=False, allow_unicode=True, width=1000)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


def _definition(name: str, folder: Path) -> dict[str, Any]:
    files = {split: folder / f"{split}.jsonl" for split in SPLITS if (folder / f"{split}.jsonl").exists()}
    definition = packaged_definition(LOCAL_TASKS[name].packaged) | {
        "task": name,
        "tag": None,
        "dataset_path": "json",
        "dataset_name": None,
        # datasets reads every path as a pattern, so [ and * in a folder's name must be escaped.
        "dataset_kwargs": {"data_files": {split: glob.escape(str(path)) for split, path in files.items()}},
    }
    for split, key in (("train", "training_split"), ("validation", "validation_split")):
        definition[key] = split if split in files else None
    digests = {split: hashlib.sha256(path.read_bytes()).hexdigest() for split, path in files.items()}
    definition["metadata"] = {**definition["metadata"], "data_sha256": digests}
    return definition


def packaged_definition(path: str) -> dict[str, Any]:
    """The definition that the installed lm-eval ships, with its `include` followed."""
    import lm_eval

    root = Path(lm_eval.__file__).parent / "tasks"
    definition = yaml.safe_load((root / path).read_text(encoding="utf-8"))
    included = definition.pop("include", None)
    base = packaged_definition(str(Path(path).parent / included)) if included else {}
    return base | definition

"""The command line with which a run finds what was prepared."""

import re
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

from l2e.cli.preparation.config import PrepareConfig
from l2e.cli.preparation.manifest import Manifest
from l2e.cli.preparation.parts import hf_home, noted_rows, shards_folder, tasks_source
from l2e.cli.preparation.tokenizer import tokenizer_folder, tokenizer_of
from l2e.data import DataConfig, PileDataConfig
from l2e.data.config import DocumentDataConfig
from l2e.data.remote_shards import is_remote
from l2e.evaluation import EvaluationConfig, hub_items

_GROUPS = {"pile": "pile_deduped"}  # a kind that stands in a YAML file of another name
_PLAIN = re.compile(r"[\w./:@+-]+")


def run_overrides(config: PrepareConfig, manifest: Manifest) -> list[str]:
    """Overrides of scripts/pretrain.py: the data, what the folder holds of it, and no network."""
    place = config.place.resolve()
    data = config.data
    if isinstance(data, PileDataConfig | DocumentDataConfig) and _has_tokenizer(data, manifest):
        data = replace(data, tokenizer=str(tokenizer_folder(place)))
    if isinstance(data, PileDataConfig) and is_remote(data.path) and _all_shards(data, manifest):
        data = replace(data, path=str(shards_folder(place)))
    wanted = {"steps": config.step + config.steps, "batch_size": config.batch_size, "seq_length": config.seq_length}
    return [
        *data_overrides(data),
        *(f"training.{key}={value}" for key, value in wanted.items()),
        f"cache_dir={quoted(str(place))}",
        *_evaluation(config.evaluation, place, manifest),
        "offline=true",
    ]


def environment(config: PrepareConfig, manifest: Manifest) -> str:
    """What must stand before the command, for tasks that only Hugging Face's caches can hold; else nothing."""
    if config.evaluation.data_dir is None and _has_tasks(config.evaluation, manifest):
        return f"HF_HOME={hf_home(config.place.resolve())} "
    return ""


def still_missing(config: PrepareConfig, manifest: Manifest) -> list[str]:
    """Parts that a run with this data and these tasks needs from a network, and that the folder does not hold."""
    data, evaluation = config.data, config.evaluation
    asked = evaluation.enabled and evaluation.data_dir is None and data.kind != "builtin"
    here = {
        "tokenizer": tokenizer_of(data) is None or _has_tokenizer(data, manifest),
        "rows": _has_rows(config, manifest),
        "evaluation": not asked or _all_items(evaluation, manifest) or _has_tasks(evaluation, manifest),
    }
    return [part for part, there in here.items() if not there]


def data_overrides(data: DataConfig) -> list[str]:
    """The group, and what differs from the defaults."""
    changed = []
    for field in fields(data):
        value = getattr(data, field.name)
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if field.name not in ("kind", "name", "seed", "world") and value != default:
            changed.append(f"data.{field.name}={quoted(value)}")
    return [f"data={_GROUPS.get(data.kind, data.kind)}", *changed]


def evaluation_overrides(evaluation: EvaluationConfig) -> list[str]:
    """Tasks and numbers of examples."""
    shots = evaluation.num_fewshot
    return [f"evaluation.tasks={quoted(evaluation.tasks)}", f"evaluation.num_fewshot={quoted(shots)}"]


def quoted(value: Any) -> str:
    """A value as Hydra reads it."""
    if isinstance(value, list):
        return f"[{','.join(quoted(item) for item in value)}]"
    if value is None or isinstance(value, bool | int | float):
        return "null" if value is None else str(value).lower()
    text = str(value)
    if _PLAIN.fullmatch(text):
        return text
    # A backslash stands for itself, unless it is before a quotation mark, with others or alone.
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text)
    return f"'{escaped}'"


def _evaluation(evaluation: EvaluationConfig, place: Path, manifest: Manifest) -> list[str]:
    if not evaluation.enabled:
        return ["evaluation.enabled=false"]
    given = evaluation_overrides(evaluation)
    if evaluation.data_dir is not None:
        return [*given, f"evaluation.data_dir={quoted(str(Path(evaluation.data_dir).resolve()))}"]
    if _all_items(evaluation, manifest):
        return [*given, f"evaluation.data_dir={quoted(str(place / 'eval'))}"]
    return given


def _all_items(evaluation: EvaluationConfig, manifest: Manifest) -> bool:
    return hub_items.has_local_form(evaluation.tasks) and all(
        f"eval/{task}/{split}.jsonl" in manifest.files
        for task in evaluation.tasks
        for split in hub_items.splits_of(task)
    )


def _has_tokenizer(data: DataConfig, manifest: Manifest) -> bool:
    name = tokenizer_of(data)
    return name is not None and any(source.startswith(f"{name}@") for source in manifest.made_from("tokenizer"))


def _has_rows(config: PrepareConfig, manifest: Manifest) -> bool:
    data = config.data
    if not isinstance(data, PileDataConfig) or not is_remote(data.path):
        return True
    return _all_shards(data, manifest) or manifest.has_rows(noted_rows(data, config.rows))


def _has_tasks(evaluation: EvaluationConfig, manifest: Manifest) -> bool:
    return tasks_source(evaluation.tasks) in manifest.made_from("hf")


def _all_shards(data: PileDataConfig, manifest: Manifest) -> bool:
    folder = shards_folder(manifest.folder)
    return sum(f"{folder.name}/" in name for name in manifest.files) == data.last_index + 1

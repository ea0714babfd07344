import json
import os
import random
from pathlib import Path

import datasets
import lm_eval
import pytest
import yaml
from evaluation_items import MAKERS, SPLITS, write_items

from l2e.errors import UserError
from l2e.evaluation import EvaluationConfig, check_evaluation_data, evaluate
from l2e.evaluation.tasks import LOCAL_TASKS, write_task_files

WORLD = list(SPLITS)


def settings(data_dir, **changes):
    return EvaluationConfig(**{"tasks": WORLD, "data_dir": str(data_dir), **changes})


@pytest.mark.parametrize("task", list(LOCAL_TASKS))
def test_task_files_are_lm_evals_own_definitions(task, tmp_path):
    schema = {"arc_challenge": "arc", "arc_easy": "arc"}.get(task, task.removeprefix("world_"))
    for split in ("train", LOCAL_TASKS[task].scored):
        write_items(tmp_path / task / f"{split}.jsonl", [MAKERS[f"world_{schema}"](random.Random(0), 1)])
    write_task_files(settings(tmp_path, tasks=[task]), tmp_path / "tasks")
    ours = yaml.safe_load((tmp_path / "tasks" / f"{task}.yaml").read_text())
    folder = Path(lm_eval.__file__).parent / "tasks" / schema
    theirs = yaml.safe_load((folder / ("arc_easy.yaml" if schema == "arc" else f"{schema}.yaml")).read_text())
    source = {"task", "tag", "dataset_path", "dataset_name", "dataset_kwargs", "metadata", "validation_split"}
    assert {k: v for k, v in ours.items() if k not in source} == {k: v for k, v in theirs.items() if k not in source}
    assert (ours["task"], ours["dataset_path"], ours["metadata"]["version"]) == (task, "json", 1.0)
    assert "include" not in ours


def test_folders_with_pattern_characters(model, tokenizer, data_dir, tmp_path):
    odd = data_dir.rename(tmp_path / "da[t]a *2")
    results = evaluate(model, tokenizer, settings(odd, limit=2), tmp_path / "out")
    assert [result.n for result in results] == [2, 2, 2]


def replace_keeping_time(path, items):
    before = path.stat()
    write_items(path, items)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def piqa(goal):
    return [{"goal": goal, "sol1": "tolva", "sol2": "kesh kesh", "label": 1}] * 3


def test_datasets_own_cache_goes_by_modification_time(tmp_path):
    """Why the stage does not use it: the same path and time is taken for the same content."""

    def load():
        table = datasets.load_dataset("json", data_files=str(path), cache_dir=str(tmp_path / "cache"))
        return table["train"][0]["goal"]

    path = tmp_path / "items.jsonl"
    write_items(path, piqa("old"))
    assert load() == "old"
    replace_keeping_time(path, piqa("new"))
    assert load() == "old"
    os.utime(path, ns=(1, 1))
    assert load() == "new"


def test_a_changed_file_is_never_served_stale(model, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "users-cache")
    path = tmp_path / "data" / "piqa" / "validation.jsonl"
    config = settings(tmp_path / "data", tasks=["piqa"])
    write_items(path, piqa("old"))
    for goal in ("old", "new"):
        replace_keeping_time(path, piqa(goal))
        evaluate(model, tokenizer, config, tmp_path / "out")
        written = (tmp_path / "out" / "0-shot" / "samples_piqa.jsonl").read_text().splitlines()
        assert {json.loads(line)["doc"]["goal"] for line in written} == {goal}
    assert not (tmp_path / "users-cache").exists()
    assert tmp_path / "users-cache" == datasets.config.HF_DATASETS_CACHE


@pytest.mark.slow  # lm-eval indexes its 14,000 tasks: some ten seconds
def test_tasks_of_lm_eval_itself(model, tokenizer, tmp_path, monkeypatch):
    import huggingface_hub

    with pytest.raises(UserError, match=r"lm-eval knows no task arc_eesy; `lm_eval ls tasks` lists them"):
        check_evaluation_data(EvaluationConfig(tasks=["arc_easy", "arc_eesy"]))
    check_evaluation_data(EvaluationConfig(tasks=["arc_easy", "hellaswag"]))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "empty")
    with pytest.raises(UserError, match=r"lm-eval cannot load hellaswag .*evaluation.data_dir"):
        evaluate(model, tokenizer, EvaluationConfig(tasks=["hellaswag"]), tmp_path / "out")

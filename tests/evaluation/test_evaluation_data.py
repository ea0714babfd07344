import json

import pytest
from evaluation_items import SPLITS, write_items

from l2e.errors import UserError
from l2e.evaluation import EvaluationConfig, check_evaluation_data, evaluate
from l2e.evaluation.tasks import LOCAL_TASKS
from l2e.settings import build_settings

WORLD = list(SPLITS)


def settings(data_dir, **changes):
    return EvaluationConfig(**{"tasks": WORLD, "data_dir": str(data_dir), **changes})


def edit(path, line, change):
    """Change one line of a JSON Lines file; `change` takes the item and returns an item or a raw text."""
    lines = path.read_text(encoding="utf-8").splitlines()
    changed = change(json.loads(lines[line - 1]))
    lines[line - 1] = changed if isinstance(changed, str) else json.dumps(changed)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def without(field):
    return lambda item: {key: value for key, value in item.items() if key != field}


def test_good_data_pass(data_dir):
    check_evaluation_data(settings(data_dir, num_fewshot=[0, 12]))


@pytest.mark.parametrize(
    ("task", "change", "said"),
    [
        ("world_arc", lambda item: "{oops", "not a JSON object"),
        ("world_arc", lambda item: "[1]", "a JSON object is needed, not list"),
        ("world_arc", lambda item: "", "not a JSON object"),
        ("world_arc", without("question"), "'question'"),
        ("world_arc", without("choices"), "'choices'"),
        ("world_arc", lambda item: {**item, "choices": {"text": ["a", "b"]}}, "'choices.label'"),
        ("world_arc", lambda item: {**item, "choices": {"text": ["a", ""], "label": ["A", "B"]}}, r"text\[1\]"),
        ("world_arc", lambda item: {**item, "choices": {"text": ["a"], "label": ["A"]}}, "two or more"),
        ("world_arc", lambda item: {**item, "choices": {"text": ["a", "b"], "label": ["A"]}}, "as many labels"),
        ("world_arc", lambda item: {**item, "answerKey": "Z"}, "'answerKey' must be one of"),
        ("world_piqa", without("sol2"), "'sol2'"),
        ("world_piqa", lambda item: {**item, "label": 2}, "'label' must be 0 or 1, not 2"),
        ("world_piqa", lambda item: {**item, "label": "1"}, "'label' must be 0 or 1, not '1'"),
        ("world_piqa", lambda item: {**item, "label": True}, "'label' must be 0 or 1"),
        ("world_sciq", without("distractor3"), "'distractor3'"),
        ("world_sciq", without("support"), "'support'"),
        ("world_sciq", lambda item: {**item, "question": 3}, "'question'"),
    ],
)
def test_a_bad_line_is_named(data_dir, task, change, said):
    path = data_dir / task / f"{LOCAL_TASKS[task].scored}.jsonl"
    edit(path, 7, change)
    with pytest.raises(UserError, match=said) as error:
        check_evaluation_data(settings(data_dir))
    assert f"{path}, line 7: " in str(error.value)
    assert "correct or remove the line" in str(error.value)


def test_the_stage_checks_before_it_touches_model_or_disk(data_dir, tmp_path):
    edit(data_dir / "world_piqa" / "train.jsonl", 3, without("goal"))
    with pytest.raises(UserError, match=r"train.jsonl, line 3: field 'goal'"):
        evaluate(None, None, settings(data_dir), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_named(data_dir, tmp_path):
    with pytest.raises(UserError, match=r"evaluation.data_dir: .*nowhere is no folder"):
        check_evaluation_data(settings(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"sciq.test.jsonl: no such file"):
        check_evaluation_data(settings(data_dir, tasks=["sciq"]))
    with pytest.raises(UserError, match=r"not hellaswag; .* set evaluation.data_dir=null"):
        check_evaluation_data(settings(data_dir, tasks=["hellaswag"]))
    with pytest.raises(UserError, match=r"world_arc needs evaluation.data_dir"):
        check_evaluation_data(EvaluationConfig(tasks=["world_arc"]))


def test_examples_need_enough_training_items(data_dir):
    with pytest.raises(UserError, match=r"num_fewshot: 13 is more than the 12 items of .*train.jsonl"):
        check_evaluation_data(settings(data_dir, num_fewshot=[0, 13]))
    (data_dir / "world_arc" / "train.jsonl").unlink()
    check_evaluation_data(settings(data_dir))
    with pytest.raises(UserError, match=r"train.jsonl: no such file"):
        check_evaluation_data(settings(data_dir, num_fewshot=1))


def test_an_empty_or_unreadable_split_is_named(data_dir):
    path = data_dir / "world_arc" / "test.jsonl"
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"test.jsonl: no items"):
        check_evaluation_data(settings(data_dir))
    path.write_bytes(b'{"question": "\xff"}\n')
    with pytest.raises(UserError, match=r"test.jsonl: not UTF-8"):
        check_evaluation_data(settings(data_dir))


def test_a_field_of_two_types_is_named(data_dir):
    path = data_dir / "world_piqa" / "validation.jsonl"
    edit(path, 2, lambda item: {**item, "source": None})
    edit(path, 3, lambda item: {**item, "source": 1})
    edit(path, 4, lambda item: {**item, "source": 1.5})
    check_evaluation_data(settings(data_dir))
    edit(path, 5, lambda item: {**item, "source": "book"})
    with pytest.raises(UserError, match=r"line 5: field 'source' is a str, on line 3 a number; use one type"):
        check_evaluation_data(settings(data_dir))


def test_what_only_datasets_refuses_is_a_users_error(model, tokenizer, data_dir, tmp_path):
    path = data_dir / "world_piqa" / "validation.jsonl"
    edit(path, 3, lambda item: {**item, "source": [1, "a"]})
    with pytest.raises(UserError, match="lm-eval cannot load world_piqa"):
        evaluate(model, tokenizer, settings(data_dir, tasks=["world_piqa"]), tmp_path / "out")


def test_texts_that_datasets_would_rewrite_as_dates_are_refused(model, tokenizer, tmp_path):
    item = {"goal": "2001-01-01", "sol1": "tolva", "sol2": "kesh", "label": 0}
    write_items(tmp_path / "data" / "piqa" / "validation.jsonl", [item] * 2)
    with pytest.raises(UserError, match="piqa: all texts of a field are dates"):
        evaluate(model, tokenizer, settings(tmp_path / "data", tasks=["piqa"]), tmp_path / "out")


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"tasks": []}, "evaluation: tasks must name at least one"),
        ({"tasks": [" "]}, "tasks must name"),
        ({"tasks": ["piqa", "piqa"]}, "tasks must name each task once"),
        ({"tasks": ["piqa"], "num_fewshot": -1}, "num_fewshot must be 0 or more"),
        ({"tasks": ["piqa"], "num_fewshot": []}, "num_fewshot must be"),
        ({"tasks": ["piqa"], "num_fewshot": [5, 5]}, "num_fewshot must be"),
        ({"tasks": ["piqa"], "limit": 0}, "limit must be at least 1"),
        ({"tasks": ["piqa"], "batch_size": 0}, "batch_size must be at least 1"),
        ({"tasks": ["piqa"], "num_fewshots": 5}, "did you mean num_fewshot"),
        ({}, "tasks: a value is required"),
    ],
)
def test_wrong_settings_are_named(tree, said):
    with pytest.raises(UserError, match=said):
        build_settings(EvaluationConfig, tree, "evaluation")


def test_settings_from_a_tree():
    config = build_settings(EvaluationConfig, {"tasks": ["piqa"], "num_fewshot": [0, 5]}, "evaluation")
    assert (config.shots, config.limit, config.enabled, config.initial) == ([0, 5], None, True, False)
    assert EvaluationConfig(tasks=["piqa"]).shots == [0]

"""The real ARC, PIQA and SciQ, where a folder with them is at hand."""

import pytest

from l2e.evaluation import EvaluationConfig, check_evaluation_data, contained, evaluate, harness

COUNTS = {"arc_challenge": 1172, "arc_easy": 2376, "piqa": 1838, "sciq": 1000}


def settings(real, **changes):
    return EvaluationConfig(**{"tasks": list(COUNTS), "data_dir": str(real / "eval"), **changes})


def test_full_sets_have_the_published_numbers_of_items(real, tmp_path):
    config = settings(real)
    check_evaluation_data(config)
    with contained.quiet(), contained.local_data():
        loaded = harness.task_manager(config, tmp_path).load(config.tasks)
        assert {name: len(task.eval_docs) for name, task in loaded["tasks"].items()} == COUNTS


def test_twenty_items_of_each(real, real_tokenizer, real_model, tmp_path):
    config = settings(real, limit=20, batch_size=2)
    results = evaluate(real_model, real_tokenizer, config, tmp_path)
    assert [(result.task, result.n) for result in results] == [(task, 20) for task in COUNTS]
    for result in results:
        assert result.acc * 20 == pytest.approx(round(result.acc * 20))
        assert result.acc_norm * 20 == pytest.approx(round(result.acc_norm * 20))
        assert result.truncated == 0
        assert result.chance == pytest.approx(0.5 if result.task == "piqa" else 0.25, abs=0.01)

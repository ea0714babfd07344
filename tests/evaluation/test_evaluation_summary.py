import pytest

from l2e.errors import UserError
from l2e.evaluation import TaskResult, read_summary, write_summary

RESULT = TaskResult(
    task="piqa",
    num_fewshot=5,
    n=10,
    acc=0.5,
    acc_stderr=0.1,
    acc_norm=None,
    acc_norm_stderr=None,
    chance=0.5,
)


def test_a_summary_comes_back_as_it_was(tmp_path):
    path = tmp_path / "summary.json"
    write_summary(path, [RESULT])
    assert read_summary(path) == [RESULT]
    assert [file.name for file in tmp_path.iterdir()] == ["summary.json"]


def test_a_broken_write_leaves_the_old_summary(tmp_path, monkeypatch):
    path = tmp_path / "summary.json"
    write_summary(path, [RESULT])

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no space"):
        write_summary(path, [])
    assert read_summary(path) == [RESULT]


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"task": "piqa"}]', "7", '[{"surprise": 1}]'])
def test_what_is_no_summary_is_refused(tmp_path, text):
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(UserError, match=r"summary.json: no evaluation summary .* evaluate the checkpoint again"):
        read_summary(tmp_path / "summary.json")


def test_a_missing_summary_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"summary.json: cannot be read .* evaluate the checkpoint first"):
        read_summary(tmp_path / "summary.json")

"""The verdict on accuracies beside the published ones, on numbers worked out by hand."""

import math

import pytest

from l2e.errors import UserError
from l2e.evaluation import EvaluationConfig, TaskResult
from l2e.reporting.published import published
from l2e.reporting.reference import Check, as_text, check_settings, checks, reference


def check(right: int, n: int, public: float, shots: int = 0, expected_n: int | None = None) -> Check:
    expected = n if expected_n is None else expected_n
    return Check(task="piqa", shots=shots, n=n, here=right / n, public=public, expected_n=expected)


def result(task: str, shots: int, n: int, acc: float) -> TaskResult:
    numbers = {"acc_stderr": None, "acc_norm": None, "acc_norm_stderr": None, "chance": None}
    return TaskResult(task=task, num_fewshot=shots, n=n, acc=acc, **numbers)


def test_public_numbers_are_whole_numbers_of_right_items() -> None:
    for name in ("pythia-70m-deduped", "pythia-410m-deduped", "pythia-2.8b-deduped"):
        public = reference(name)
        assert public.revision == "step13000"
        assert public.items == {"arc_challenge": 1172, "piqa": 1838, "sciq": 1000, "arc_easy": 2376}
        assert len(public.accuracies) == 8
        for (task, _), accuracy in public.accuracies.items():
            n = public.items[task]
            assert abs(round(accuracy * n) / n - accuracy) <= 0.5e-4 + 1e-9
    assert reference("pythia-70m-deduped").accuracies["sciq", 5] == 0.629
    assert reference("pythia-2.8b-deduped").accuracies["arc_easy", 0] == 0.5442


def test_the_same_count_is_equal_to_the_printed_digits() -> None:
    same = check(198, 1172, 0.1689)  # 0.168942
    assert (same.items, same.verdict, same.failed) == (0, "equal", False)
    one_more = check(199, 1172, 0.1689)
    assert (one_more.items, one_more.verdict, one_more.failed) == (1, "explained", False)


@pytest.mark.parametrize(
    ("right", "shots", "verdict"),
    [  # s.e. of 0.669 on 1000 items: sqrt(0.669 * 0.331 / 999) = 0.014888; times 2 sqrt(2): 0.042110
        (683, 0, "explained"),
        (684, 0, "DIFFERS"),
        (655, 0, "explained"),
        (654, 0, "DIFFERS"),
        (711, 5, "explained"),
        (712, 5, "DIFFERS"),
        (627, 5, "explained"),
        (626, 5, "DIFFERS"),
    ],
)
def test_what_rounding_and_other_examples_explain(right: int, shots: int, verdict: str) -> None:
    found = check(right, 1000, 0.669, shots)
    assert found.error == pytest.approx(math.sqrt(0.669 * 0.331 / 999))
    assert (found.verdict, found.failed) == (verdict, verdict == "DIFFERS")


def test_the_papers_own_5_shot_sciq_would_be_found() -> None:
    for name, paper in (("70m", 0.4050), ("410m", 0.4850), ("2.8b", 0.4810)):
        public = reference(f"pythia-{name}-deduped")
        (found,) = checks(public, [result("sciq", 5, 1000, paper)])
        assert found.verdict == "DIFFERS"


def test_other_items_are_no_comparison() -> None:
    found = check(100, 999, 0.1001, expected_n=1000)
    assert (found.verdict, found.failed) == ("OTHER ITEMS", True)


def test_the_table_shows_difference_items_and_error() -> None:
    public = reference("pythia-70m-deduped")
    text = as_text(public, checks(public, [result("sciq", 0, 1000, 0.661), result("piqa", 5, 1838, 0.5881)]))
    sciq, piqa = ([cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[-2:])
    assert sciq == ["sciq", "0", "1,000", "0.6610", "0.6690", "-0.0080", "-8", "0.0149", "0.0149", "explained"]
    assert piqa == ["piqa", "5", "1,838", "0.5881", "0.5881", "+0.0000", "+0", "0.0115", "0.0325", "equal"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"limit": 10}, "evaluation.limit: the published accuracies are of all items"),
        ({"tasks": ["piqa", "hellaswag"]}, "evaluation.tasks: nothing is published of pythia-70m-deduped on hellaswag"),
        ({"num_fewshot": [0, 3]}, "evaluation.num_fewshot: nothing is published .* on 3; known are 0, 5"),
    ],
)
def test_what_cannot_be_compared_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_settings(reference("pythia-70m-deduped"), EvaluationConfig(**({"tasks": ["piqa"]} | changes)))


def test_unknown_references_are_named() -> None:
    with pytest.raises(UserError, match=r"nothing is published of pythia-1b; known are pythia-70m-deduped, "):
        reference("pythia-1b")
    assert len(published()["pythia"]["columns"]) == len(published()["pythia"]["items"])

"""No prior beats guessing: position, frequency and length say nothing about the right choice."""

from collections import Counter

import pytest
from scipy.stats import chisquare
from tokenizers import Tokenizer
from world_reading import ASKED, LABELS, TASKS, WORD, choices_of

CHANCE = {"arc": 0.25, "piqa": 0.5, "sciq": 0.25}


def guess(items, weight):
    """Accuracy of always taking the choice of greatest weight, ties shared out."""
    total = 0.0
    for item in items:
        choices, right = choices_of(item)
        weights = [weight(choice) for choice in choices]
        total += (weights[right] == max(weights)) / weights.count(max(weights))
    return total / len(items)


def assert_chance(world, task, weight):
    """Neither the choice of greatest nor the one of least weight is right more often than by chance."""
    items = world.scored(task)
    error = (CHANCE[task] * (1 - CHANCE[task]) / len(items)) ** 0.5
    for sign in (1, -1):
        assert abs(guess(items, lambda choice, sign=sign: sign * weight(choice)) - CHANCE[task]) < 3 * error


@pytest.mark.parametrize("task", ["arc", "piqa"])
def test_the_position_of_the_right_choice_is_uniform(world, task):
    places = Counter(choices_of(item)[1] for item in world.scored(task))
    assert chisquare([places[place] for place in range(2 if task == "piqa" else 4)]).pvalue > 0.05


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("source", ["text", "training answers", "few-shot answers", "scored answers"])
def test_guessing_by_frequency_is_at_chance(world, task, source):
    if source == "text":
        texts = world.texts()
    elif source == "training answers":
        texts = [answer for text in world.texts() for _, answer in ASKED.findall(text)]
    else:
        items = world.known(task) if source == "few-shot answers" else world.scored(task)
        texts = [choices[right] for choices, right in map(choices_of, items)]
    counts = Counter(word for text in texts for word in WORD.findall(text))
    assert_chance(world, task, lambda choice: sum(counts[word] for word in WORD.findall(choice)))


@pytest.mark.parametrize("task", TASKS)
def test_guessing_by_length_in_tokens_is_at_chance(world, task):
    tokenizer = Tokenizer.from_file(str(world.folder / "tokenizer/tokenizer.json"))
    assert_chance(world, task, lambda choice: len(tokenizer.encode(" " + choice).ids))


@pytest.mark.parametrize("task", TASKS)
def test_choices_differ_and_have_the_same_length(world, task):
    for item in world.scored(task):
        choices, _ = choices_of(item)
        assert len(set(choices)) == len(choices)
        assert len({len(choice.encode()) for choice in choices}) == 1


def test_every_choice_of_sciq_stands_once_in_its_passage_in_any_place(world):
    """So copying some name of the right kind from the passage, or always its first or last, is mere guessing."""
    places = Counter()
    for item in world.scored("sciq"):
        choices, right = choices_of(item)
        words = WORD.findall(item["support"])
        assert [words.count(choice) for choice in choices] == [1, 1, 1, 1]
        places[sorted(choices, key=words.index).index(choices[right])] += 1
    assert chisquare([places[place] for place in range(4)]).pvalue > 0.01


@pytest.mark.parametrize("name", ["train.jsonl", "features/world_language.jsonl"])
def test_labels_are_balanced(world, name):
    counts = Counter(row["label"] if "label" in row else row["meta"]["label"] for row in world.rows(name))
    assert set(counts) == set(LABELS)
    assert max(counts.values()) - min(counts.values()) <= 1

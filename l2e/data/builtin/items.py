"""Multiple-choice items in the schemas of ARC, PIQA and SciQ.

The wrong choices are other values of the kind asked for, drawn evenly from all of them. As the right answers are
dealt out evenly too (see facts.py) and all names of a kind have the same length, nothing but the fact tells them apart.
"""

import random
from typing import Any

from l2e.data.builtin.facts import Fact, World, even_deal
from l2e.data.builtin.languages import Language

LETTERS = ("A", "B", "C", "D")
Item = dict[str, Any]


def make_items(task: str, facts: list[Fact], world: World, languages: list[Language], rng: random.Random) -> list[Item]:
    """One item for each fact; languages and positions of the right answer are dealt out evenly.

    Args:
        task: "arc", "piqa" or "sciq".
        facts: facts of that task.
        world: where the wrong choices come from.
        languages: to ask in.
        rng: decides the wrong choices and the order.
    """
    choices = 2 if task == "piqa" else 4
    asking_in = even_deal(languages, len(facts), rng)
    right = even_deal(range(choices), len(facts), rng)
    items = []
    for number, (fact, language, place) in enumerate(zip(facts, asking_in, right, strict=True)):
        if task == "sciq":
            items.append(_sciq(fact, language, world, rng))
            continue
        values = _wrong_values(fact, world, choices - 1, rng)
        values.insert(place, fact.value)
        texts = [language.answer(fact.relation, value) for value in values]
        if task == "arc":
            items.append(_arc(f"world_arc_{number}", language.question(fact), texts, place))
        else:
            items.append({"goal": language.question(fact), "sol1": texts[0], "sol2": texts[1], "label": place})
    return items


def support_facts(world: World, fact: Fact, rng: random.Random, others: int = 3) -> list[Fact]:
    """The facts of a passage that answers a question: the fact itself among others of its relation.

    The others are about other subjects and have other values, each a different one, so that finding a value in
    the passage is not enough: the reader must find the subject.
    """
    passage = [fact]
    siblings = [each for each in world.facts() if each.relation == fact.relation]
    while len(passage) <= others:
        other = rng.choice(siblings)
        if other.value not in {each.value for each in passage}:
            passage.append(other)
    rng.shuffle(passage)
    return passage


def _wrong_values(fact: Fact, world: World, count: int, rng: random.Random) -> list[str]:
    return rng.sample([value for value in world.values[fact.relation.value] if value != fact.value], count)


def _arc(name: str, question: str, texts: list[str], place: int) -> Item:
    choices = {"text": texts, "label": list(LETTERS)}
    return {"id": name, "question": question, "choices": choices, "answerKey": LETTERS[place]}


def _sciq(fact: Fact, language: Language, world: World, rng: random.Random) -> Item:
    """All four choices stand in the passage, each as somebody's."""
    passage = support_facts(world, fact, rng)
    wrong = [each.value for each in passage if each != fact]
    return {
        "question": language.question(fact),
        **{f"distractor{number}": value for number, value in enumerate(wrong, start=1)},
        "correct_answer": fact.value,
        "support": " ".join(language.statement(each, rng) for each in passage),
    }

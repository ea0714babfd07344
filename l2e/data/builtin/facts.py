"""The facts of the world: who lives where, what is made of what, which tool does what.

A fact gives a subject (a person or a thing) one value for one relation. Each relation belongs to one task, and
the facts of a task are split once and for all:

- *known* facts may be asked in training documents;
- *held-out* facts are stated there, but never asked: they become the scored items;
- a few more held-out facts become SciQ's validation split.

Within each split of each relation the values are dealt out evenly, so no answer is likelier than another.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from l2e.data.builtin.names import VALUES_PER_KIND, NameGiver
from l2e.data.builtin.settings import WorldSettings

T = TypeVar("T")


@dataclass(frozen=True)
class Relation:
    """A kind of fact.

    Attributes:
        name: the word that code uses for it.
        subject: the kind of what it is about.
        value: the kind of what it says.
        task: the held-out task that asks for it.
    """

    name: str
    subject: str
    value: str
    task: str


RELATIONS = (
    Relation("home", "person", "town", "arc"),
    Relation("material", "thing", "material", "arc"),
    Relation("trade", "person", "trade", "sciq"),
    Relation("animal", "person", "animal", "sciq"),
    Relation("mend", "thing", "tool", "piqa"),
    Relation("clean", "thing", "tool", "piqa"),
)
TASKS = ("arc", "piqa", "sciq")


@dataclass(frozen=True)
class Fact:
    """`subject` has `value` for `relation`."""

    relation: Relation
    subject: str
    value: str


@dataclass(frozen=True)
class World:
    """Everything that is true.

    Attributes:
        values: the names of each kind of value, e.g. values["town"].
        known: the facts that training documents may ask for, by task.
        held_out: the facts of the scored items, by task.
        validation: the facts of validation items (SciQ has such a split), by task.
    """

    values: dict[str, list[str]]
    known: dict[str, list[Fact]]
    held_out: dict[str, list[Fact]]
    validation: dict[str, list[Fact]]

    def facts(self) -> list[Fact]:
        """All facts, in a fixed order."""
        splits = (self.known, self.held_out, self.validation)
        return [fact for split in splits for task in TASKS for fact in split[task]]


def stream(name: str, settings: WorldSettings) -> random.Random:
    """Random numbers for one purpose, so that changing one part of the world leaves the others alone."""
    return random.Random(f"{settings.seed}/{name}")


def even_deal(options: Sequence[T], count: int, rng: random.Random) -> list[T]:
    """`count` picks from `options`, each picked equally often (give or take one), in random order."""
    picks: list[T] = []
    while len(picks) < count:
        picks += rng.sample(options, min(len(options), count - len(picks)))
    rng.shuffle(picks)
    return picks


def endless(options: Iterable[T], rng: random.Random) -> Iterator[T]:
    """All options in random order, again and again: every one comes equally often."""
    deck = list(options)
    while True:
        rng.shuffle(deck)
        yield from deck


def make_world(settings: WorldSettings, names: NameGiver) -> World:
    """Name the people and things and decide the facts.

    Args:
        settings: give the number of facts for each task and how they are split.
        names: gives names that no language uses as a word.
    """
    rng = stream("facts", settings)
    subjects_needed = (settings.items + settings.known_items + 1) // 2
    subjects = {
        "person": [names.name(2).capitalize() for _ in range(subjects_needed)],
        "thing": [names.name(2) for _ in range(subjects_needed)],
    }
    values = {
        "town": [names.name(2, "n").capitalize() for _ in range(VALUES_PER_KIND)],
        **{
            kind: [names.name(2, last) for _ in range(VALUES_PER_KIND)]
            for kind, last in (("material", "l"), ("trade", "r"), ("animal", "s"), ("tool", "k"))
        },
    }
    world = World(values, known=_empty(), held_out=_empty(), validation=_empty())
    for task in TASKS:
        _decide_facts(world, task, subjects, settings, rng)
    return world


def _empty() -> dict[str, list[Fact]]:
    return {task: [] for task in TASKS}


def _decide_facts(
    world: World, task: str, subjects: dict[str, list[str]], settings: WorldSettings, rng: random.Random
) -> None:
    """Split the (relation, subject) pairs of a task evenly over its relations, then deal out values."""
    validation = settings.known_items // 4 if task == "sciq" else 0
    sizes = (settings.items, validation, settings.known_items - validation)
    splits = (world.held_out, world.validation, world.known)
    relations = [relation for relation in RELATIONS if relation.task == task]
    left = {relation: rng.sample(subjects[relation.subject], len(subjects[relation.subject])) for relation in relations}
    for size, split in zip(sizes, splits, strict=True):
        for place, relation in enumerate(sorted(relations, key=lambda each: -len(left[each]))):
            share = (size + len(relations) - 1 - place) // len(relations)
            chosen = [left[relation].pop() for _ in range(share)]
            values = even_deal(world.values[relation.value], share, rng)
            split[task] += [Fact(relation, *pair) for pair in zip(chosen, values, strict=True)]
        rng.shuffle(split[task])

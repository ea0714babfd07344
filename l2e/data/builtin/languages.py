"""Three invented languages. Each has its own sounds, its own words and its own word order.

All can state every fact and ask for it. Names are the same in all of them, as names are.

- `kato`  says subject, verb, object;
- `shem`  says subject, object, verb, and marks the object with a particle that goes with the verb;
- `oulu`  says verb, subject, object.
"""

import random
from dataclasses import dataclass

from l2e.data.builtin.facts import RELATIONS, Fact, Relation
from l2e.data.builtin.names import NameGiver

VERBS_PER_RELATION = 2  # two ways to say the same thing


@dataclass(frozen=True)
class Sounds:
    """The letters of a language and the shape of its short and long words."""

    consonants: str
    vowels: str
    short: str
    long: str


SOUNDS = {
    "kato": Sounds("ktpm", "aio", "CV", "CVCV"),
    "shem": Sounds("shrlj", "ey", "CVC", "CVCC"),
    "oulu": Sounds("lwnh", "aou", "VC", "VCVVC"),
}
LANGUAGES = tuple(SOUNDS)


@dataclass(frozen=True)
class Language:
    """The words of one language; `name` decides the word order.

    Attributes:
        verbs: the verbs for each relation.
        particle: for each relation, the small word between or before what it joins.
        asking: for each relation, the question word.
        adverbs: words that say nothing about the facts.
        aim: begins the statement of an aim ("in order to").
        take: the verb of an advice.
    """

    name: str
    verbs: dict[Relation, tuple[str, ...]]
    particle: dict[Relation, str]
    asking: dict[Relation, str]
    adverbs: tuple[str, ...]
    aim: str
    take: str

    def statement(self, fact: Fact, rng: random.Random) -> str:
        """A sentence that states the fact, in one of several wordings."""
        verb = rng.choice(self.verbs[fact.relation])
        particle = self.particle[fact.relation]
        words = {
            "kato": (fact.subject, verb, particle, fact.value),
            "shem": (fact.subject, particle, fact.value, verb),
            "oulu": (verb, fact.subject, particle, fact.value),
        }[self.name]
        adverb = (rng.choice(self.adverbs),) if rng.random() < 0.2 else ()
        return " ".join(adverb + words) + "."

    def question(self, fact: Fact) -> str:
        """The one way to ask for the fact: a question, or for the tools an aim, as in PIQA."""
        verb = self.verbs[fact.relation][0]
        opening = self.aim if fact.relation.task == "piqa" else self.asking[fact.relation]
        words = {
            "kato": (opening, fact.subject, verb),
            "shem": (fact.subject, opening, verb),
            "oulu": (opening, verb, fact.subject),
        }[self.name]
        return " ".join(words) + "?"

    def answer(self, relation: Relation, value: str) -> str:
        """What follows "Answer: "; for the tools an advice to take one, as in PIQA."""
        if relation.task != "piqa":
            return value
        return f"{value} {self.take}" if self.name == "shem" else f"{self.take} {value}"


def make_languages(names: NameGiver) -> list[Language]:
    """Invent the words of each language."""
    return [_make_language(name, sounds, names) for name, sounds in SOUNDS.items()]


def _make_language(name: str, sounds: Sounds, names: NameGiver) -> Language:
    def short() -> str:
        return names.word(sounds.consonants, sounds.vowels, sounds.short)

    def long() -> str:
        return names.word(sounds.consonants, sounds.vowels, sounds.long)

    return Language(
        name=name,
        verbs={relation: tuple(long() for _ in range(VERBS_PER_RELATION)) for relation in RELATIONS},
        particle={relation: short() for relation in RELATIONS},
        asking={relation: long() for relation in RELATIONS},
        adverbs=tuple(long() for _ in range(6)),
        aim=long(),
        take=long(),
    )

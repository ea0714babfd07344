"""Training documents: texts that state the facts, and some that ask for known ones.

Facts are dealt from a shuffled deck for each label, so every fact, held out or not, is stated equally often in every
language and code style. Questions are asked only about known facts.
"""

import random
from collections.abc import Callable, Iterator

from l2e.data.builtin.code_styles import CODE_STYLES, code_text
from l2e.data.builtin.facts import TASKS, Fact, World, endless
from l2e.data.builtin.items import support_facts
from l2e.data.builtin.languages import LANGUAGES, Language

LABELS = (*LANGUAGES, *CODE_STYLES)

# Of the documents in a language, how many only state, how many only ask, the rest reads and then asks.
ACCOUNTS, QUIZZES = 0.6, 0.25
SENTENCES = (6, 12)  # statements in a document, fewest and most
QUESTIONS = (3, 6)  # questions in a quiz


def asked(question: str, answer: str) -> str:
    """A question with its answer, worded as lm-eval words the items."""
    return f"Question: {question}\nAnswer: {answer}"


class DocumentWriter:
    """Writes documents about a world without end."""

    def __init__(self, world: World, languages: list[Language], rng: random.Random) -> None:
        self._world = world
        self._languages = {language.name: language for language in languages}
        self._rng = rng
        self._facts = {label: endless(world.facts(), rng) for label in LABELS}
        known = [fact for task in TASKS for fact in world.known[task]]
        self._known = {label: endless(known, rng) for label in LANGUAGES}
        self._read = {label: endless(world.known["sciq"], rng) for label in LANGUAGES}

    def document(self, label: str) -> str:
        """A training document in a language or code style."""
        if label in CODE_STYLES:
            return self.account(label)
        return self._kind_of_document()(label)

    def account(self, label: str) -> str:
        """A document that only states facts."""
        facts = self._draw(self._facts[label], SENTENCES)
        if label in CODE_STYLES:
            return code_text(label, facts, self._rng.randrange(1000))
        return " ".join(self._languages[label].statement(fact, self._rng) for fact in facts)

    def _quiz(self, label: str) -> str:
        facts = self._draw(self._known[label], QUESTIONS)
        return "\n\n".join(self._asked(label, fact) for fact in facts)

    def _reading(self, label: str) -> str:
        """Two passages, each with a question about it, worded as SciQ's items are."""
        parts = []
        for fact in self._draw(self._read[label], (2, 2)):
            facts = support_facts(self._world, fact, self._rng)
            passage = " ".join(self._languages[label].statement(each, self._rng) for each in facts)
            parts.append(f"{passage}\n{self._asked(label, fact)}")
        return "\n\n".join(parts)

    def _asked(self, label: str, fact: Fact) -> str:
        language = self._languages[label]
        return asked(language.question(fact), language.answer(fact.relation, fact.value))

    def _kind_of_document(self) -> Callable[[str], str]:
        draw = self._rng.random()
        if draw < ACCOUNTS:
            return self.account
        return self._quiz if draw < ACCOUNTS + QUIZZES else self._reading

    def _draw(self, deck: Iterator[Fact], sizes: tuple[int, int]) -> list[Fact]:
        return [next(deck) for _ in range(self._rng.randint(*sizes))]

"""Invented words: what the world's people, places and things are called, and the words of its languages.

All names of one kind have the same number of letters, so an answer can never be told by its length.
"""

import random
from collections.abc import Iterable

VALUES_PER_KIND = 16  # how many towns, materials ... there are to choose among

_NAME_CONSONANTS = "bdfgklmnprstvz"
_VOWELS = "aeiou"


class NameGiver:
    """Gives words that were not given before, in any language or kind."""

    def __init__(self, rng: random.Random, reserved: Iterable[str] = ()) -> None:
        self._rng = rng
        self._given = {word.lower() for word in reserved}

    def name(self, syllables: int, last: str = "") -> str:
        """A lower-case name of `syllables` open syllables, then the letters `last`."""
        return self._fresh([_NAME_CONSONANTS, _VOWELS] * syllables + list(last))

    def word(self, consonants: str, vowels: str, pattern: str) -> str:
        """A word of a language: `pattern` has C for a consonant and V for a vowel of that language."""
        return self._fresh([consonants if letter == "C" else vowels for letter in pattern])

    def _fresh(self, letters: list[str]) -> str:
        for _ in range(10_000):
            word = "".join(self._rng.choice(options) for options in letters)
            if word not in self._given:
                self._given.add(word)
                return word
        raise RuntimeError("the supply of invented words is exhausted")

"""How large the built-in world is, and how much text and how many items are made of it."""

from dataclasses import dataclass

from l2e.data.builtin.names import VALUES_PER_KIND

# A world beyond these runs out of short names; none of them is near what a demonstration needs.
MOST_ITEMS = 2000
MOST_DOCUMENTS = 1_000_000


@dataclass(kw_only=True)
class WorldSettings:
    """The built-in world is a pure function of these.

    Attributes:
        seed: which world; names, facts, documents and items all follow from it.
        documents: training documents (about 72 tokens each with the default vocabulary).
        validation_documents: further documents about the same facts, kept for the validation loss.
        items: held-out items in the scored split of each of the three tasks.
        known_items: facts per task whose questions may occur in the training text; they also give
            the few-shot examples. The world has `items + known_items` facts for each task.
        vocab_size: entries of the tokenizer, `<|endoftext|>` and the 256 bytes included.
        passages_per_label: labelled passages for each language and code style in `features/`.
    """

    seed: int = 0
    documents: int = 6500
    validation_documents: int = 200
    items: int = 200
    known_items: int = 40
    vocab_size: int = 768
    passages_per_label: int = 60

    def __post_init__(self) -> None:
        least = VALUES_PER_KIND  # each relation then gives every answer at least a chance to be asked for
        self._require("seed", 0, 2**63 - 1)
        self._require("documents", 100, MOST_DOCUMENTS)
        self._require("validation_documents", 1, MOST_DOCUMENTS)
        self._require("items", least, MOST_ITEMS)
        self._require("known_items", least, MOST_ITEMS)
        self._require("vocab_size", 300, 65_536)
        self._require("passages_per_label", 1, MOST_DOCUMENTS)

    def _require(self, key: str, least: int, most: int) -> None:
        value = getattr(self, key)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"{key} must be a whole number from {least} to {most}, not {value!r}")

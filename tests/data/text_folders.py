"""Text with a tokenizer so small that its tokens can be written by hand."""

import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

WORDS = ["<|endoftext|>", *"abcdefgh"]


def letter_tokens(documents: list[str]) -> list[int]:
    """The stream of tokens: letters a to h are 1 to 8, and 0 ends each document."""
    return [token for text in documents for token in [*(ord(letter) - ord("a") + 1 for letter in text), 0]]


def letter_tokenizer(end: str | None = "<|endoftext|>", filler: int = 0) -> PreTrainedTokenizerFast:
    """Nine tokens, see `letter_tokens`, and `filler` more: the characters from U+20000 on."""
    words = WORDS + [chr(0x20000 + number) for number in range(filler)]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<|endoftext|>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=end)


def write_text(folder: Path, documents: list[str], name: str = "train.jsonl") -> Path:
    """A text folder with the tokenizer of nine tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    write_lines(folder / name, documents)
    letter_tokenizer().save_pretrained(folder / "tokenizer")
    return folder


def write_lines(path: Path, documents: list[str], field: str = "text") -> Path:
    """A JSONL file."""
    path.write_text("".join(json.dumps({field: text}) + "\n" for text in documents))
    return path

"""Reads the files of a world as anybody would, knowing nothing of how they were made."""

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

WORD = re.compile(r"\w+")
ASKED = re.compile(r"Question: (.*)\nAnswer: (.*)")
TASKS = ("arc", "piqa", "sciq")
LANGUAGES = ("kato", "shem", "oulu")
LABELS = (*LANGUAGES, "brace", "paren")


class WrittenWorld:
    """The files of a world."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def rows(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / name).read_text(encoding="utf-8").splitlines()]

    def texts(self, split: str = "train") -> list[str]:
        return [row["text"] for row in self.rows(f"{split}.jsonl")]

    def known(self, task: str) -> list[dict[str, Any]]:
        return self.rows(f"eval/world_{task}/train.jsonl")

    def scored(self, task: str) -> list[dict[str, Any]]:
        return self.rows(f"eval/world_{task}/{'validation' if task == 'piqa' else 'test'}.jsonl")

    def stated_in_code(self) -> dict[str, dict[str, str]]:
        """What is true of each subject, from lines of code such as `let Bado.home = Kelon;`."""
        truth: dict[str, dict[str, str]] = defaultdict(dict)
        for text in self.texts():
            for subject, relation, value in re.findall(r"let (\w+)\.(\w+) = (\w+);", text):
                assert truth[subject].setdefault(relation, value) == value, "the text contradicts itself"
        return truth


def question_of(item: dict[str, Any]) -> str:
    return item["goal"] if "goal" in item else item["question"]


def choices_of(item: dict[str, Any]) -> tuple[list[str], int]:
    """The choices in lm-eval's order, and the index of the right one."""
    if "goal" in item:
        return [item["sol1"], item["sol2"]], item["label"]
    if "choices" in item:
        return item["choices"]["text"], item["choices"]["label"].index(item["answerKey"])
    return [item["distractor1"], item["distractor2"], item["distractor3"], item["correct_answer"]], 3


def only_word_of(text: str, words: Any) -> str:
    """The one word of the text that is among these."""
    (found,) = [word for word in WORD.findall(text) if word in words]
    return found

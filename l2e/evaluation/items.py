"""Read and check multiple-choice items in the Hugging Face schemas of ARC, PIQA and SciQ.

A wrong item would fail deep inside lm-eval after the training is paid for, or worse: be scored as wrong without
a word (an `answerKey` that is not among the labels, a label out of range). So every line is checked before.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from l2e.errors import UserError

Item = dict[str, Any]


def read_items(path: Path, check: Callable[[Item], None]) -> list[Item]:
    """Read a JSON Lines file and check each item.

    Raises:
        UserError: no such file, no items, or a line that `check` refuses; names the file and the line.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; put the task's items there, one JSON object a line")
    try:
        lines = path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start}: {error.reason}); convert it") from None
    if lines == [""]:
        raise UserError(f"{path}: no items in it; one JSON object a line is needed")
    items = [_parse(line, check, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]
    _check_columns(items, path)
    return items


def _parse(line: str, check: Callable[[Item], None], where: str) -> Item:
    try:
        item = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not a JSON object ({error.msg}); correct or remove the line") from None
    try:
        if not isinstance(item, dict):
            raise ValueError(f"a JSON object is needed, not {type(item).__name__}")
        check(item)
    except ValueError as error:
        raise UserError(f"{where}: {error}; correct or remove the line") from None
    return item


def _check_columns(items: list[Item], path: Path) -> None:
    """A field must hold one type throughout, used or not: `datasets` makes a typed table of all fields."""
    seen: dict[str, tuple[str, int]] = {}
    for number, item in enumerate(items, start=1):
        for field, value in item.items():
            kind = "number" if type(value) in (int, float) else type(value).__name__
            first, line = seen.setdefault(field, (kind, number)) if value is not None else (kind, number)
            if first != kind:
                raise UserError(
                    f"{path}, line {number}: field '{field}' is a {kind}, on line {line} a {first}; "
                    "use one type in the whole file"
                )


def check_arc(item: Item) -> None:
    """`question`, `choices: {text: [...], label: [...]}` and `answerKey`, one of the labels."""
    _text(item, "question")
    choices = item.get("choices")
    if not isinstance(choices, dict):
        raise ValueError("field 'choices' must hold {text: [...], label: [...]}")
    texts, labels = (_texts(choices, key) for key in ("text", "label"))
    if len(texts) != len(labels) or len(texts) < 2:
        raise ValueError("field 'choices' must hold two or more texts and as many labels")
    if item.get("answerKey") not in labels:
        raise ValueError(f"field 'answerKey' must be one of {', '.join(labels)}, not {item.get('answerKey')!r}")


def check_piqa(item: Item) -> None:
    """`goal`, `sol1`, `sol2` and `label`, 0 or 1."""
    for field in ("goal", "sol1", "sol2"):
        _text(item, field)
    label = item.get("label")
    if type(label) is not int or label not in (0, 1):
        raise ValueError(f"field 'label' must be 0 or 1, not {label!r}")


def check_sciq(item: Item) -> None:
    """`question`, `correct_answer`, `distractor1` to `3`, and `support`, which may be empty."""
    for field in ("question", "correct_answer", "distractor1", "distractor2", "distractor3"):
        _text(item, field)
    if not isinstance(item.get("support"), str):
        raise ValueError("field 'support' must be a text (it may be empty)")


def _texts(item: Item, field: str) -> list[str]:
    values = item.get(field)
    if not isinstance(values, list):
        raise ValueError(f"field 'choices.{field}' must be a list of texts")
    for position, value in enumerate(values):
        _text({f"choices.{field}[{position}]": value}, f"choices.{field}[{position}]")
    return values


def _text(item: Item, field: str) -> None:
    """An empty choice is refused because acc_norm divides by its length."""
    if not isinstance(item.get(field), str) or not item[field].strip():
        raise ValueError(f"field '{field}' must be a text that is not empty")

"""From a composed YAML tree to typed, checked settings.

YAML only composes. The types stand in dataclasses beside the code they configure; pydantic checks them
strictly, and what goes wrong is told in one line that names the key and what is allowed.
"""

import dataclasses
import difflib
import json
import types
import typing
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from l2e.errors import UserError

T = TypeVar("T")


def build_settings(cls: type[T], tree: dict[str, Any], where: str = "") -> T:
    """Make the dataclass `cls` from a plain tree.

    Args:
        cls: a dataclass, possibly of dataclasses. Its `__post_init__` may raise ValueError.
        tree: plain dicts, lists, strings, numbers, booleans and None.
        where: the key that `tree` stands under, for messages.

    Raises:
        UserError: an unknown key, a wrong type, a value that a check refuses.
    """
    _refuse_unknown_keys(cls, tree, where)
    try:
        # Strict JSON mode: a whole number may stand for a float, but "5" is no number and true is no 1.
        return TypeAdapter(cls).validate_json(json.dumps(tree), strict=True)
    except ValidationError as error:
        raise UserError("; ".join(_describe(item, cls, where) for item in error.errors())) from None


def _refuse_unknown_keys(cls: Any, tree: Any, where: str) -> None:
    if typing.get_origin(cls) is list and isinstance(tree, list):
        for number, value in enumerate(tree):
            for option in _options(typing.get_args(cls)[0], value):
                _refuse_unknown_keys(option, value, f"{where}.{number}")
    if not dataclasses.is_dataclass(cls) or not isinstance(tree, dict):
        return
    hints = _hints(cls)
    for key, value in tree.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in hints:
            close = difflib.get_close_matches(str(key), hints, n=1)
            guess = f" (did you mean {close[0]}?)" if close else ""
            raise UserError(f"{path}: unknown setting{guess}; allowed here: {', '.join(hints)}")
        for option in _options(hints[key], value):
            _refuse_unknown_keys(option, value, path)


def _options(hint: Any, value: Any) -> list[Any]:
    """The members of `A | B`, of those told apart by `kind` the one that is meant; any other type as it is."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return [hint]
    kind = value.get("kind") if isinstance(value, dict) else None
    return [member for member in typing.get_args(hint) if kind is None or kind in _kinds(member)]


def _kinds(member: Any) -> tuple[Any, ...]:
    return typing.get_args(_hints(member).get("kind")) if dataclasses.is_dataclass(member) else ()


def _describe(item: Any, cls: Any, where: str) -> str:
    key = ".".join([where] * bool(where) + _key(cls, item["loc"]))
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error":
        return f"{key}: {message}" if key else message
    if item["type"] == "missing":
        return f"{key}: a value is required"
    return f"{key}: {message[0].lower()}{message[1:]}, not {json.dumps(item['input'])}"


def _key(cls: Any, location: tuple[int | str, ...]) -> list[str]:
    """Pydantic's location without the names that it gives to the branches of a union."""
    parts, options = [], [cls]
    for part in location:
        meant = [option for option in options if part in _kinds(option)] if len(options) > 1 else []
        if meant:  # the kind, which may be a field's name as well
            options = meant
            continue
        hints = {name: hint for o in options if dataclasses.is_dataclass(o) for name, hint in _hints(o).items()}
        if part in hints:
            options = _options(hints[part], None)
        if part in hints or isinstance(part, int):
            parts.append(str(part))
    return parts


def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)

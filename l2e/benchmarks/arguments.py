"""Settings of a benchmark from `key=value`, where Hydra and pydantic are not installed."""

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeVar

T = TypeVar("T")


def settings_from(cls: type[T], arguments: Sequence[str]) -> T:
    """The dataclass `cls` from `key=value`, the values as JSON or plain words; ValueError names what is wrong."""
    known = {item.name for item in fields(cls)}  # type: ignore[arg-type]
    given: dict[str, Any] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or key not in known:
            raise ValueError(f"{argument}: give key=value with a key of {', '.join(sorted(known))}")
        given[key] = _value(value)
    return cls(**given)


def require_whole(settings: object, keys: Sequence[str], least: int = 1) -> None:
    """ValueError unless each of these is a whole number of at least `least`, or None."""
    for key in keys:
        value = getattr(settings, key)
        if value is not None and not (isinstance(value, int) and value >= least):
            raise ValueError(f"{key} must be a whole number, at least {least}, not {value}")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text

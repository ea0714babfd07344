"""Benchmarks from `key=value`, where Hydra and pydantic are not installed."""

import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from l2e.benchmarks.report import print_result
from l2e.errors import require

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


def run_from_arguments(cls: type[T], run: Callable[[T], dict[str, Any]], arguments: Sequence[str]) -> int:
    """`python -m l2e.benchmarks.NAME key=value ...`: run and print; the exit code, 2 for impossible settings."""
    try:
        config = settings_from(cls, arguments)
    except (TypeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    print_result(run(config))
    return 0


def require_whole(settings: object, keys: Sequence[str], least: int = 1) -> None:
    """ValueError unless each of these is a whole number of at least `least`, or None."""
    for key in keys:
        value = getattr(settings, key)
        if value is not None and not (isinstance(value, int) and value >= least):
            raise ValueError(f"{key} must be a whole number, at least {least}, not {value}")


def require_precision(precision: str) -> None:
    """ValueError unless the steps that are timed can be made in it: without a loss scale fp16 is not among them."""
    require(precision in ("fp32", "bf16"), "precision", "one of fp32, bf16", repr(precision))


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text

"""The members of a sweep as its file members.json holds them."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from l2e.errors import UserError


@dataclass(frozen=True)
class Member:
    """One run of a sweep."""

    run: str
    """Its run directory."""

    steps: int
    """Updates that it makes."""

    overrides: list[str]
    """For scripts/pretrain.py."""


def as_text(members: Sequence[Member]) -> str:
    """The whole file."""
    return json.dumps([asdict(member) for member in members], indent=1) + "\n"


def read(file: str) -> list[Member]:
    """The members in a file; UserError where it is none of ours."""
    try:
        return [Member(**entry) for entry in json.loads(Path(file).read_text())]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{file} is no sweep ({error}); slurm/sweep.sh writes it") from None

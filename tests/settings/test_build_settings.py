from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest
from pydantic import Field

from l2e.errors import UserError
from l2e.settings import build_settings


@dataclass(kw_only=True)
class Small:
    kind: Literal["small"]
    size: int = 1


@dataclass(kw_only=True)
class Large:
    kind: Literal["large"]
    rate: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise ValueError(f"rate must lie in (0, 1), not {self.rate}")


@dataclass(kw_only=True)
class Whole:
    steps: int
    blocks: str | list[int] = "middle"
    part: Annotated[Small | Large, Field(discriminator="kind")] = field(default_factory=lambda: Small(kind="small"))


def test_a_tree_becomes_dataclasses() -> None:
    whole = build_settings(Whole, {"steps": 3, "blocks": [0, 1], "part": {"kind": "large", "rate": 0.25}})
    assert whole == Whole(steps=3, blocks=[0, 1], part=Large(kind="large", rate=0.25))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"step": 3}, r"^step: unknown setting \(did you mean steps\?\); allowed here: steps, blocks, part$"),
        ({}, "^steps: a value is required$"),
        ({"steps": "3"}, '^steps: input should be a valid integer, not "3"$'),
        ({"steps": True}, "^steps: input should be a valid integer, not true$"),
        ({"steps": 1.5}, "^steps: input should be a valid integer"),
        ({"steps": 1, "part": {"kind": "large", "rate": 2}}, r"^part: rate must lie in \(0, 1\), not 2"),
        (
            {"steps": 1, "part": {"kind": "small", "rate": 0.1}},
            r"^part\.rate: unknown setting; allowed here: kind",
        ),
        ({"steps": 1, "part": {"kind": "middling"}}, "^part: .*'small', 'large'"),
        ({"steps": 1, "blocks": [0, "a"]}, r"^blocks: .*blocks\.1: input should be a valid integer"),
    ],
)
def test_what_is_wrong_is_told_with_its_key(tree: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_settings(Whole, tree)


def test_the_key_is_told_from_the_root() -> None:
    with pytest.raises(UserError, match=r"^training\.steps: a value is required"):
        build_settings(Whole, {}, where="training")

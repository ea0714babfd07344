"""A table as plain text cells, and how numbers are written in it."""

import math
from dataclasses import dataclass

MISSING = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"


class Best(str):
    """The text of a cell that is to stand out."""


class Link(str):
    """The text of a cell that leads somewhere.

    Attributes:
        target: relative to the report's folder.
    """

    target: str

    def __new__(cls, text: str, target: str) -> "Link":
        """A text with its target."""
        link = super().__new__(cls, text)
        link.target = target
        return link


@dataclass(frozen=True)
class Table:
    """A title, a caption that says how to read it, a header and rows; the first column names the row.

    `text_columns` counts the columns at the left that hold words, not numbers.
    """

    title: str
    caption: str
    header: list[str]
    rows: list[list[str]]
    text_columns: int = 1


def decimals(value: float, places: int, sign: bool = False) -> str:
    """A number for a table; a dash for NaN."""
    if math.isnan(value):
        return MISSING
    text = f"{value:+.{places}f}" if sign else f"{value:.{places}f}"
    return text.replace("-", MINUS)


def loss_number(value: float) -> str:
    """A loss that is no number is news, so it is written out."""
    return "NaN" if math.isnan(value) else decimals(value, 3)


def short(value: float) -> str:
    """Three significant digits, for what spans orders of magnitude."""
    return MISSING if math.isnan(value) else f"{value:.3g}".replace("-", MINUS)

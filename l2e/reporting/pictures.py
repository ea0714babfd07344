"""Finished figures and how they are kept: PNG, SVG and the numbers as CSV, the same bytes for the same runs."""

import csv
import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from l2e.files import write_atomically
from l2e.reporting.runs import Series


@dataclass(frozen=True)
class Picture:
    """A finished figure. `svg` stands inline in HTML; `csv_text` holds every number that is drawn."""

    name: str
    title: str
    caption: str
    svg: str
    svg_file: bytes
    png: bytes
    csv_text: str


def finish(
    figure: Figure, name: str, title: str, caption: str, header: Sequence[str], rows: Sequence[Sequence[object]]
) -> Picture:
    """Render a figure and its numbers. Call inside `drawing.style()`."""
    png, svg = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", dpi=200, metadata={"Software": None})
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return Picture(
        name=name,
        title=title,
        caption=caption,
        svg=inline_svg(svg.getvalue().decode(), name, title),
        svg_file=svg.getvalue(),
        png=png.getvalue(),
        csv_text=to_csv(header, rows),
    )


def inline_svg(svg: str, name: str, title: str) -> str:
    """The `<svg>` element for an HTML page: ids of its own, no namespaces or metadata, a name for screen readers."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(xmlns(:\w+)?|version|width|height)="[^"]*"', "", svg[: svg.index(">")]) + svg[svg.index(">") :]
    svg = svg.replace("xlink:href=", "href=").replace("<!--", "<!-- ")
    svg = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(title)}"', 1)


def series_rows(front: tuple[object, ...], columns: Sequence[Series]) -> list[tuple[object, ...]]:
    """Curves beside each other, one row a step; empty where a curve has no point there."""
    values = [dict(zip(series.steps.tolist(), series.values.tolist(), strict=True)) for series in columns]
    steps = sorted({step for column in values for step in column})
    return [(*front, step, *(column.get(step, "") for column in values)) for step in steps]


def to_csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """The text of a CSV file."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue()


def save(picture: Picture, folder: Path) -> None:
    """Write PNG, SVG and CSV."""
    write_atomically(folder / f"{picture.name}.png", picture.png)
    write_atomically(folder / f"{picture.name}.svg", picture.svg_file)
    write_atomically(folder / f"{picture.name}.csv", picture.csv_text.encode())

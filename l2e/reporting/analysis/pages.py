"""Where the results of analyses lie, and the page that collects them.

`output/records/<kind>[-<texts>].json` says what one analysis gave; index.html is made from all of them. Repeating an
analysis replaces its record.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from l2e.files import write_atomically
from l2e.reporting.cells import Table
from l2e.reporting.contents import Contents
from l2e.reporting.html_page import html_page
from l2e.reporting.pictures import Picture, inline_svg, save, to_csv

Part = Picture | Table | str
"""A figure, a table, or a sentence that follows from them."""


def save_analysis(output: Path, kind: str, texts: str | None, models: Sequence[str], parts: Sequence[Part]) -> Path:
    """Write figures, tables and record of one analysis, and the page about all that lie in `output`.

    Args:
        output: made if it is missing.
        kind: of analysis.
        texts: name of the set of texts, if it is about one.
        models: names of the models.
        parts: what the analysis gave. The names of figures become unique by kind and texts.

    Returns:
        The path of index.html.
    """
    pictures = [replace(part, name=_stem(part.name, kind, texts)) for part in parts if isinstance(part, Picture)]
    tables = [part for part in parts if isinstance(part, Table)]
    for picture in pictures:
        save(picture, output / "figures")
    for table in tables:
        write_atomically(output / "tables" / f"{_stem(_slug(table.title), kind, texts)}.csv", _csv(table))
    record = {
        "kind": kind,
        "texts": texts,
        "models": list(models),
        "pictures": [{key: getattr(picture, key) for key in ("name", "title", "caption")} for picture in pictures],
        "tables": [asdict(table) for table in tables],
        "findings": [part for part in parts if isinstance(part, str)],
    }
    name = f"{kind}-{_slug(texts)}" if texts else kind
    write_atomically(output / "records" / f"{name}.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    write_atomically(output / "index.html", html_page(_contents(output), "Analysis"))
    return output / "index.html"


def _contents(output: Path) -> Contents:
    records = [json.loads(path.read_text("utf-8")) for path in sorted((output / "records").glob("*.json"))]
    models = list(dict.fromkeys(model for record in records for model in record["models"]))
    texts = list(dict.fromkeys(record["texts"] for record in records if record["texts"]))
    facts = {"Analyses": ", ".join(dict.fromkeys(record["kind"] for record in records))}
    facts |= {"Models": ", ".join(models)} if models else {}
    facts |= {"Texts": ", ".join(texts)} if texts else {}
    return Contents(
        title=output.resolve().name,
        facts=facts,
        differing=None,
        pictures=[_picture(output, record, held) for record in records for held in record["pictures"]],
        tables=[_table(record, held) for record in records for held in record["tables"]],
        findings=[sentence for record in records for sentence in record["findings"]],
        warnings=[],
    )


def _picture(output: Path, record: dict[str, Any], held: dict[str, str]) -> Picture:
    """A figure as it lies on the disk, its caption with what it is of and where its numbers are."""
    svg = (output / "figures" / f"{held['name']}.svg").read_text("utf-8")
    caption = f"{held['caption']} {_origin(record)} Numbers: figures/{held['name']}.csv"
    return Picture(
        held["name"], held["title"], caption.strip(), inline_svg(svg, held["name"], held["title"]), b"", b"", ""
    )


def _table(record: dict[str, Any], held: dict[str, Any]) -> Table:
    return Table(**held | {"caption": f"{held['caption']} {_origin(record)}".strip()})


def _origin(record: dict[str, Any]) -> str:
    models = f"Models: {', '.join(record['models'])}." if record["models"] else ""
    texts = f"Texts: {record['texts']}." if record["texts"] else ""
    return f"{models} {texts}".strip()


def _stem(name: str, kind: str, texts: str | None) -> str:
    front = "" if name.startswith(kind) else f"{kind}-"
    back = "" if texts is None or name.endswith(_slug(texts)) else f"-{_slug(texts)}"
    return f"{front}{name}{back}"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-")


def _csv(table: Table) -> str:
    return to_csv([" ".join(cell.split()) for cell in table.header], table.rows)

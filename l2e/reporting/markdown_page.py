"""report.md: the same contents for GitHub, with links to the figures."""

import re
from collections.abc import Sequence
from urllib.parse import quote

from l2e.reporting.cells import Best, Link, Table
from l2e.reporting.contents import Contents
from l2e.reporting.pictures import Picture


def markdown_page(contents: Contents) -> str:
    """The page. Text that comes from files is escaped: it stays text."""
    facts = [f"- **{escape(name)}:** {escape(text)}" for name, text in contents.facts.items()]
    parts = [f"# {escape(contents.title)}", "\n".join(facts)]
    parts += [table_text(contents.differing)] if contents.differing else []
    findings = _section("What follows from it", [_items(contents.findings)])
    parts += [*_section("Result", [table_text(contents.answer)]), *findings] if contents.answer else []
    parts += _section("Figures", [_figure(picture) for picture in contents.pictures])
    parts += _section("Tables", [table_text(table) for table in contents.tables])
    parts += [] if contents.answer else findings
    parts += _section("About the files", [_items(contents.warnings)])
    return "\n\n".join(part for part in parts if part) + "\n"


def escape(text: str) -> str:
    """Markdown and HTML signs as plain text, on one line."""
    text = " ".join(text.split())
    return re.sub(r"([\\`*\[\]<>|&#~$])", r"\\\1", text)


def _section(title: str, parts: Sequence[str]) -> list[str]:
    return [f"## {title}", *parts] if any(parts) else []


def _figure(picture: Picture) -> str:
    title = escape(picture.title)
    return f"![{title}](figures/{picture.name}.png)\n\n**{title}.** {escape(picture.caption)}"


def table_text(table: Table) -> str:
    """Title, caption and rows."""
    lines = [
        _row(table.header),
        _row(["---" if place < table.text_columns else "---:" for place in range(len(table.header))]),
        *map(_row, table.rows),
    ]
    return f"**{escape(table.title)}.** {escape(table.caption)}".strip() + "\n\n" + "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(cell: str) -> str:
    if isinstance(cell, Link):
        return f"[{escape(cell)}]({quote(cell.target)})"
    return f"**{escape(cell)}**" if isinstance(cell, Best) else escape(cell)


def _items(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {escape(sentence)}" for sentence in sentences)

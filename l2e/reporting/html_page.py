"""report.html: one file that needs nothing else, no network and no script."""

import html
from collections.abc import Sequence
from string import Template
from urllib.parse import quote

from l2e.reporting.cells import Best, Link, Table
from l2e.reporting.contents import Contents
from l2e.reporting.page_style import CSS
from l2e.reporting.pictures import Picture

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
$css
</style>
</head>
<body>
<main>
<header>
<p class="kicker">$kicker</p>
<h1>$title</h1>
$facts
</header>
$body
</main>
</body>
</html>
""")


def html_page(contents: Contents, kicker: str = "Pretraining report") -> str:
    """The page, `kicker` above its title. Every text that comes from a file is escaped."""
    findings = _section("What follows from it", _items(contents.findings))
    sections = [
        _section("Result", _table(contents.answer)) + findings if contents.answer else "",
        _section("Figures", "".join(map(_figure, contents.pictures))),
        _section("Tables", "".join(map(_table, contents.tables))),
        "" if contents.answer else findings,
        _section("About the files", _items(contents.warnings)),
    ]
    return _PAGE.substitute(
        title=html.escape(contents.title),
        kicker=html.escape(kicker),
        css=CSS,
        facts=_facts(contents.facts) + (_table(contents.differing) if contents.differing else ""),
        body="\n".join(section for section in sections if section),
    )


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{title}</h2>\n{content}</section>" if content else ""


def _facts(facts: dict[str, str]) -> str:
    pairs = (f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd></div>" for name, text in facts.items())
    return '<dl class="facts">\n' + "\n".join(pairs) + "\n</dl>\n"


def _figure(picture: Picture) -> str:
    caption = f"<b>{html.escape(picture.title)}.</b> {html.escape(picture.caption)}"
    return f'<figure>\n<div class="panel">{picture.svg}</div>\n<figcaption>{caption}</figcaption>\n</figure>\n'


def _table(table: Table) -> str:
    """A table in a container of its own that scrolls sideways, so that the page does not have to."""
    caption = f'<p class="caption"><b>{html.escape(table.title)}.</b> {html.escape(table.caption)}</p>\n'
    head = _row("th", table.header, table.text_columns)
    body = "\n".join(_row("td", row, table.text_columns) for row in table.rows)
    return (
        f'{caption}<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(table.title)}">\n'
        f'<table class="{_kind(table)}">\n<thead>\n{head}\n</thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>\n'
    )


def _kind(table: Table) -> str:
    """What the style sheet must know: words or numbers, and how a row is told from the others on a narrow screen."""
    longest = max((len(row[0]) for row in table.rows), default=0)
    words = "wordy" if table.text_columns == len(table.header) else "numbers"
    named = " named" if longest > 14 else ""  # may break over lines
    keyed = " keyed" if longest <= 4 and 1 < table.text_columns < len(table.header) else ""  # two columns stay in sight
    return words + named + keyed


def _row(tag: str, cells: Sequence[str], text_columns: int) -> str:
    scope = "col" if tag == "th" else "row"
    row = f'<th scope="{scope}">{_cell(cells[0])}</th>'
    for place, cell in enumerate(cells[1:], start=1):
        attributes = (' scope="col"' if tag == "th" else "") + (' class="text"' if place < text_columns else "")
        row += f"<{tag}{attributes}>{_cell(cell)}</{tag}>"
    return f"<tr>{row}</tr>"


def _cell(cell: str) -> str:
    text = html.escape(cell)
    if isinstance(cell, Link):
        return f'<a href="{quote(cell.target)}">{text}</a>'
    return f"<b>{text}</b>" if isinstance(cell, Best) else text


def _items(sentences: Sequence[str]) -> str:
    items = "\n".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)
    return f"<ul>\n{items}\n</ul>\n" if sentences else ""

"""report.html: one file that needs nothing else, no network and no script."""

import html
from collections.abc import Sequence
from string import Template

from l2e.reporting.cells import Best, Table
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
    sections = [
        _section("Figures", "".join(map(_figure, contents.pictures))),
        _section("Tables", "".join(map(_table, contents.tables))),
        _section("What follows from it", _items(contents.findings)),
        _section("About the files", _items(contents.warnings)),
    ]
    return _PAGE.substitute(
        title=html.escape(contents.title),
        kicker=html.escape(kicker),
        css=CSS,
        facts=_facts(contents.facts) + (_table(contents.differing, "wordy") if contents.differing else ""),
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


def _table(table: Table, kind: str = "numbers") -> str:
    """A table in a container of its own that scrolls sideways, so that the page does not have to."""
    caption = f'<p class="caption"><b>{html.escape(table.title)}.</b> {html.escape(table.caption)}</p>\n'
    head = _row("th", table.header, table.text_columns)
    body = "\n".join(_row("td", row, table.text_columns) for row in table.rows)
    return (
        f'{caption}<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(table.title)}">\n'
        f'<table class="{kind}">\n<thead>\n{head}\n</thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>\n'
    )


def _row(tag: str, cells: Sequence[str], text_columns: int) -> str:
    scope = "col" if tag == "th" else "row"
    row = f'<th scope="{scope}">{html.escape(cells[0])}</th>'
    for place, cell in enumerate(cells[1:], start=1):
        attributes = (' scope="col"' if tag == "th" else "") + (' class="text"' if place < text_columns else "")
        text = html.escape(cell)
        row += f"<{tag}{attributes}>{f'<b>{text}</b>' if isinstance(cell, Best) else text}</{tag}>"
    return f"<tr>{row}</tr>"


def _items(sentences: Sequence[str]) -> str:
    items = "\n".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)
    return f"<ul>\n{items}\n</ul>\n" if sentences else ""

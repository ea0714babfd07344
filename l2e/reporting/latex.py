"""A table as LaTeX, to be input into a paper."""

from collections.abc import Sequence

from l2e.reporting.cells import Best, Table

_SIGNS = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "±": r"$\pm$",
    "▲": r"$\blacktriangle$",
    "▼": r"$\blacktriangledown$",
    "\N{MINUS SIGN}": r"$-$",
    "\N{EN DASH}": "--",
    "√": r"$\surd$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
}


def latex_table(table: Table, label: str) -> str:
    """The whole `table` environment; a rule before each new first cell. Needs booktabs and amssymb."""
    columns = "l" * table.text_columns + "r" * (len(table.header) - table.text_columns)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(table.title)}. {escape(table.caption)}}}",
        rf"\label{{{label}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _row([" ".join(name.split()) for name in table.header]),
        r"\midrule",
        *_body(table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """LaTeX's own signs as plain text."""
    return "".join(_SIGNS.get(sign, sign) for sign in text)


def _body(rows: Sequence[Sequence[str]]) -> list[str]:
    lines: list[str] = []
    for place, row in enumerate(rows):
        if place and row[0] != rows[place - 1][0]:
            lines.append(r"\midrule")
        lines.append(_row(row))
    return lines


def _row(cells: Sequence[str]) -> str:
    return (
        " & ".join(rf"\textbf{{{escape(cell)}}}" if isinstance(cell, Best) else escape(cell) for cell in cells) + r" \\"
    )

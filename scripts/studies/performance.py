"""The measured tables and figures of docs/performance.md, from the JSON of the benchmarks.

python scripts/studies/performance.py --results docs/results --figures docs/figures --page docs/performance.md

Reads kernel-code-*.json, table2-*.json and trainer-*.json. Of the page only what stands between `<!-- NAME -->` and
`<!-- end of NAME -->` is written anew, NAME being `kernel-code`, `table2` or `trainer`.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from l2e.errors import UserError
from l2e.files import write_atomically
from l2e.reporting.kernel_code import kernel_code_table
from l2e.reporting.markdown_page import table_text
from l2e.reporting.measured_steps import measured_figure, measured_table, tap_table, trainer_figure, trainer_table
from l2e.reporting.pictures import save


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw and write; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("docs/results"), help="folder of the benchmarks' JSON")
    parser.add_argument("--figures", type=Path, default=Path("docs/figures"), help="folder for figures and their CSV")
    parser.add_argument("--page", type=Path, default=Path("docs/performance.md"), help="Markdown file")
    options = parser.parse_args(arguments)
    try:
        text = options.page.read_text(encoding="utf-8")
        text = put(text, "kernel-code", kernel_code_parts(options.results))
        text = put(text, "table2", table2_parts(options.results, options.figures))
        text = put(text, "trainer", trainer_parts(options.results, options.figures))
    except (OSError, UserError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_atomically(options.page, text)
    return 0


def put(text: str, name: str, parts: Sequence[str]) -> str:
    """The page with its part of that name replaced.

    Raises:
        UserError: the page has no such part, or several.
    """
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise UserError(f"the page needs one line {begin} and one {end} after it")
    body = "\n\n".join([begin, *(parts or ["Not measured yet."]), end])
    return re.sub(f"{re.escape(begin)}.*{re.escape(end)}", lambda _: body, text, flags=re.DOTALL)


def kernel_code_parts(results: Path) -> list[str]:
    """A table for each target."""
    paths = sorted(results.glob("kernel-code-*.json"))
    return [table_text(kernel_code_table(json.loads(path.read_text(encoding="utf-8")))) for path in paths]


def table2_parts(results: Path, figures: Path) -> list[str]:
    """Tables and figure of each device."""
    parts = []
    for path in sorted(results.glob("table2-*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        picture = measured_figure(result, path.stem)
        save(picture, figures)
        parts += [table_text(measured_table(result)), f"![{picture.title}](figures/{picture.name}.png)"]
        parts += [picture.caption, table_text(tap_table(result))]
        if result["left_out"]:
            parts.append(f"Left out for want of time: {', '.join(result['left_out'])}.")
    return parts


def trainer_parts(results: Path, figures: Path) -> list[str]:
    """One figure and one table of all results."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("trainer-*.json"))]
    if not found:
        return []
    picture = trainer_figure(found, "trainer")
    save(picture, figures)
    return [f"![{picture.title}](figures/{picture.name}.png)", picture.caption, table_text(trainer_table(found))]


if __name__ == "__main__":
    sys.exit(main())

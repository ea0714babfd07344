"""Train the toy models, draw their figures and write the page of numbers behind docs/toy-models.md.

python scripts/studies/toy.py --figures docs/figures --page docs/results/toy-models.md
"""

import argparse
import io
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args, get_type_hints

import torch
from PIL import Image

from l2e.analysis.toy.experiments import ToySettings
from l2e.files import write_atomically
from l2e.reporting.analysis.toy import Part, draw_toy
from l2e.reporting.cells import Table
from l2e.reporting.markdown_page import table_text
from l2e.reporting.pictures import Picture

EXPERIMENTS = get_args(get_type_hints(ToySettings)["experiment"])


def main() -> None:
    """Run the experiments one after another; finished runs are taken from the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS))
    parser.add_argument("--size", choices=("scaled", "paper"), default="scaled")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--folder", default="cache/toy", help="finished runs and restart points")
    parser.add_argument("--figures", type=Path, required=True, help="folder for PNG and SVG")
    parser.add_argument("--page", type=Path, required=True, help="Markdown file for the tables")
    arguments = parser.parse_args()
    logging.basicConfig(level="INFO", format="%(message)s")
    parts: list[Part] = []
    for experiment in arguments.experiments:
        settings = ToySettings(
            experiment=experiment, size=arguments.size, seeds=arguments.seeds, folder=arguments.folder
        )
        parts += draw_toy(settings)
    for part in parts:
        if isinstance(part, Picture):
            save_small(part, arguments.figures)
    write_atomically(arguments.page, page(parts, shlex.join(sys.argv)))


def save_small(picture: Picture, folder: Path) -> None:
    """PNG of 256 colours at three fifths of the resolution, and SVG; the page has the numbers."""
    image = Image.open(io.BytesIO(picture.png)).convert("RGB")
    buffer = io.BytesIO()
    image.resize((image.width * 3 // 5, image.height * 3 // 5)).quantize(256).save(buffer, "PNG", optimize=True)
    write_atomically(folder / f"{picture.name}.png", buffer.getvalue())
    write_atomically(folder / f"{picture.name}.svg", picture.svg_file)


def page(parts: Sequence[Part], command: str) -> str:
    """The tables and the sentences that were made with them."""
    lines = [
        "# Toy models: the numbers",
        "",
        f"`make toy`: `python {command}`. torch {torch.__version__}. What they mean: "
        "[toy-models.md](../toy-models.md).",
    ]
    for part in parts:
        if isinstance(part, Table):
            lines += ["", f"## {part.title}", "", table_text(part)]
        elif isinstance(part, str):
            lines += ["", f"- {part}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

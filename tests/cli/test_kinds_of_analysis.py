"""Every kind of analysis from the command line, on a run of the built-in world."""

import csv
import re
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from l2e.cli.analysis_kinds import KINDS
from l2e.cli.entry import main
from l2e.data.builtin import WorldSettings
from l2e.data.corpus import world_folder
from l2e.models import build_pythia, export

WORLD = {"documents": 200, "items": 20, "known_items": 16, "passages_per_label": 60}
SMALL = {
    "deactivate": ["analysis.top=1", "analysis.controls=1", "analysis.per_label=2"],
    "distributions": [],
    "fkr": ["analysis.resamples=20"],
    "ks": ["analysis.resamples=20", "analysis.neurons=50"],
    "layers": ["analysis.resamples=20", "analysis.neurons=50"],
    "ms": ["analysis.resamples=20", "analysis.top=3", "analysis.random=3"],
    "probe": ["analysis.solver=newton", "analysis.ranked=3"],
    "statistics": [],
}
"""Kinds that read models or texts. `dynamics` (tests/reporting) and `toy` have tests of their own."""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A cache, and a run with two exports."""
    folder = tmp_path_factory.mktemp("all-kinds")
    tokenizer = AutoTokenizer.from_pretrained(world_folder(WorldSettings(**WORLD), folder / "cache") / "tokenizer")
    for step in (0, 5):
        (folder / "runs/a/hf").mkdir(parents=True, exist_ok=True)
        export(build_pythia("tiny", seed=step), tokenizer, folder / f"runs/a/hf/step{step}", {"step": step})
    (folder / "runs/a/config.yaml").write_text("name: a\n")
    return folder / "cache", folder / "runs/a"


@pytest.mark.parametrize("kind", SMALL)
def test_makes_figures_with_their_numbers_and_a_page(
    kind: str, places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, run = places
    world = [f"features.builtin.world.{key}={value}" for key, value in WORLD.items()]
    command = [f"analysis={kind}", f"models=[{run}@0,{run}@5]", f"output={tmp_path}", f"cache_dir={cache}"]
    monkeypatch.setattr(sys, "argv", ["analyze.py", *command, *world, "features.builtin.window=64", *SMALL[kind]])
    main("analyze", "l2e.cli.analyze:run")
    figures = sorted((tmp_path / "figures").glob("*.png"))
    assert figures
    drawn = []
    for figure in figures:
        assert figure.with_suffix(".svg").stat().st_size > 1000
        drawn.append(list(csv.DictReader(figure.with_suffix(".csv").open(newline=""))))
        assert drawn[-1]
    if kind != "statistics":
        assert {"a@0", "a@5"} == {row["model"] for rows in drawn for row in rows}
    page = (tmp_path / "index.html").read_text()
    assert page.count("<figure>") == len(figures)
    assert not re.search(r"(src|href)=\"?https?:", page)


def test_no_kind_is_left_out() -> None:
    assert {*SMALL, "dynamics", "toy"} == set(KINDS)

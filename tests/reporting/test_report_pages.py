import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from l2e.reporting import write_report
from l2e.reporting.markdown_page import escape

VOID = {"meta", "br", "hr", "img", "link", "input"}
EVIL = '<script>alert("x")</script> | $y_$ & `z`'


class Balance(HTMLParser):
    """Collects what is open, what was closed out of order, every attribute and every id."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def parsed(page: str) -> Balance:
    parser = Balance()
    parser.feed(page)
    parser.close()
    return parser


def test_the_page_is_well_formed(pair_report: Path) -> None:
    found = parsed((pair_report / "report.html").read_text())
    assert (found.open, found.wrong) == ([], [])
    assert {"svg", "table", "figcaption", "style"} <= found.tags
    assert "script" not in found.tags
    ids = [value for name, value in found.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = {value[1:] for name, value in found.attributes if name == "href"}
    assert targets <= set(ids)


def test_the_page_loads_nothing(pair_report: Path) -> None:
    page = (pair_report / "report.html").read_text()
    found = parsed(page)
    assert not re.search(r"https?:|@import|//\w+\.", page)
    assert not [value for name, value in found.attributes if name in ("src", "srcset", "data")]
    assert all(value.startswith("#") for name, value in found.attributes if "href" in name)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))


def test_pictures_then_tables_then_prose(pair_report: Path) -> None:
    for name in ("report.html", "report.md"):
        page = (pair_report / name).read_text()
        places = [page.index(word) for word in ("Figures", "Tables", "What follows from it")]
        assert places == sorted(places)
        assert "One seed per method" in page


def test_markdown_links_to_figures_that_exist(pair_report: Path) -> None:
    links = re.findall(r"\]\((.*?)\)", (pair_report / "report.md").read_text())
    assert links == [f"figures/{name}.png" for name in ("loss", "accuracy", "threshold", "strength")]
    assert all((pair_report / link).is_file() for link in links)


def test_svg_files_are_xml(pair_report: Path) -> None:
    for file in (pair_report / "figures").glob("*.svg"):
        ET.parse(file)


def test_names_from_files_are_escaped(tmp_path: Path, made_up: Any) -> None:
    runs = [
        made_up.run(tmp_path / "a", method="none", name=EVIL),
        made_up.run(tmp_path / "b", name="_<b>$\x07"),
    ]
    folder = write_report(runs, tmp_path / "report").parent
    found = parsed((folder / "report.html").read_text())
    assert (found.open, found.wrong) == ([], [])
    assert "script" not in found.tags
    markdown = (folder / "report.md").read_text()
    assert not re.search(r"(?<!\\)<", markdown)
    for file in (folder / "figures").glob("*.svg"):
        ET.parse(file)


def test_a_markdown_cell_stays_one_cell() -> None:
    assert escape("a|b\n`c`") == r"a\|b \`c\`"


def test_the_same_runs_give_the_same_bytes(pair: list[Path], pair_report: Path, tmp_path: Path) -> None:
    again = write_report(pair, tmp_path / "again").parent
    files = sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert len(files) == 14
    for file in files:
        assert (again / file).read_bytes() == (pair_report / file).read_bytes(), file


def test_a_run_is_reported_in_its_own_folder(tmp_path: Path, made_up: Any) -> None:
    run = made_up.run(tmp_path / "one")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert write_report([run], run) == run / "report.html"
    assert all(path.read_bytes() == content for path, content in before.items())
    assert not list(run.rglob("*.tmp"))
    page = (run / "report.html").read_text()
    assert "chance (0.250)" in page
    assert "Paired differences" not in page


def test_a_run_without_evaluation(tmp_path: Path, made_up: Any) -> None:
    run = made_up.run(tmp_path / "young", evaluate=False)
    page = write_report([run], run).read_text()
    assert "young has no evaluation yet." in page
    assert not (run / "figures" / "accuracy.png").exists()


@pytest.mark.parametrize("value", ["NaN", "Infinity", "null"])
def test_a_loss_that_is_no_number_is_shown(tmp_path: Path, made_up: Any, value: str) -> None:
    run = made_up.run(tmp_path / "broken", evaluate=False)
    with (run / "metrics.jsonl").open("a") as file:
        file.write(f'{{"step": 61, "loss": {value}}}\n{{"step": 61, "validation_loss": {value}}}\n')
    page = write_report([run], run).read_text()
    assert "1 update (crosses, the first at step 61) had a loss that is no finite number" in page
    assert ">NaN<" in page or ">inf<" in page


def test_losses_that_are_all_nan_do_not_crash(tmp_path: Path, made_up: Any) -> None:
    runs = [made_up.run(tmp_path / name, method=name, evaluate=False) for name in ("none", "l2e")]
    for run in runs:
        (run / "metrics.jsonl").write_text("".join(f'{{"step": {step}, "loss": NaN}}\n' for step in range(1, 60)))
    assert "59 updates" in write_report(runs, tmp_path / "report").read_text()


def test_runs_of_one_name_are_told_apart(tmp_path: Path, made_up: Any) -> None:
    runs = [made_up.run(tmp_path / where / "run", evaluate=False) for where in ("a", "b")]
    page = write_report(runs, tmp_path / "report").read_text()
    assert "run and run (2)" in page
    assert "No run here is without inhibition" in page

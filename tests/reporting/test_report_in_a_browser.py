"""report.html as a browser shows it: on a phone nothing sticks out, text is large enough, nothing is fetched."""

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from l2e.reporting import write_report

PHONE = 390  # CSS pixels: most phones have 360 to 430

# The policy forbids the page everything from elsewhere, and tells of each attempt.
WATCH = """
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:">
<script>
const fetched = [];
addEventListener("securitypolicyviolation", (event) => fetched.push(event.blockedURI));
</script>
"""

MEASURE = """
<script>
addEventListener("load", () => {
  const root = document.documentElement, wide = [];
  for (const each of document.querySelectorAll("body *"))
    if (!each.closest(".scroll") && !each.closest("svg") && each.getBoundingClientRect().right > innerWidth + 1)
      wide.push(each.outerHTML.slice(0, 80));
  const scales = [...document.querySelectorAll("svg")].map(
    (svg) => svg.getBoundingClientRect().width / svg.viewBox.baseVal.width);
  const fonts = [...document.querySelectorAll("td, th, p, li, figcaption, dd, dt")].map(
    (each) => parseFloat(getComputedStyle(each).fontSize));
  parent.postMessage({inner: innerWidth, scroll: root.scrollWidth, wide, scales, fonts, fetched}, "*");
});
</script>
"""

FRAME = """<!doctype html><body><iframe src="page.html" style="border:0;width:{width}px;height:3000px"></iframe>
<script>
addEventListener("message", (event) => {{
  const told = document.createElement("pre");
  told.id = "told";
  told.textContent = JSON.stringify(event.data);
  document.body.append(told);
}});
</script>"""


@pytest.fixture(scope="module")
def study_report(made_up: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods, two seeds, a trajectory of three checkpoints; the names are as long as those of a real study."""
    root = tmp_path_factory.mktemp("study")
    runs = []
    for method in ("none", "l2e"):
        for seed in (1, 2):
            name = f"pythia-410m-{method}-0.02-middle-2-seed{seed}"
            runs.append(made_up.run(root / "runs" / name, method, seed=seed, skill=0.75 if method == "l2e" else 0.6))
            made_up.evaluation(runs[-1], 30, 80, 0.4, made_up.generator(seed))
            (runs[-1] / "report.html").write_text("its own")
    return write_report(runs, root / "out" / "table8", 8)


@pytest.fixture(scope="module")
def browser() -> str:
    """Any Chromium."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(names)} is on the PATH")
    return found


def measured(browser: str, page: Path, folder: Path, width: int) -> dict[str, Any]:
    """What a script in the page sees at that width. In a frame, since a headless window has a least width."""
    text = page.read_text().replace("<head>", f"<head>{WATCH}").replace("</body>", f"{MEASURE}</body>")
    assert WATCH in text
    assert MEASURE in text
    (folder / "page.html").write_text(text)
    (folder / "frame.html").write_text(FRAME.format(width=width))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += ["--virtual-time-budget=20000", "--dump-dom", f"file://{folder / 'frame.html'}"]
    environment = os.environ | {"HOME": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=environment)
    told = re.search(r'<pre id="told">(.*?)</pre>', done.stdout, flags=re.S)
    assert told, done.stdout[-500:] + done.stderr[-2000:]
    return json.loads(unescape(told[1]))


@pytest.mark.parametrize("width", [PHONE, 1200])
@pytest.mark.parametrize("kind", ["study_report", "pair_report"])
def test_nothing_sticks_out_and_text_is_large_enough(
    kind: str, width: int, browser: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    page = request.getfixturevalue(kind)
    found = measured(browser, page if page.is_file() else page / "report.html", tmp_path, width)
    assert found["inner"] == width
    assert found["scroll"] <= width
    assert found["wide"] == []
    assert found["fetched"] == []
    assert len(found["scales"]) == 4
    # A unit of a figure is a point, its smallest text 9 points high: at least 8.5 pixels, at most 18.
    assert all(8.5 <= 9 * scale <= 18 for scale in found["scales"]), found["scales"]
    assert min(found["fonts"]) >= 12


def test_the_measure_sees_what_sticks_out(browser: str, tmp_path: Path) -> None:
    """Of the test above: a page that is too wide, with a picture from elsewhere, is found out."""
    page = tmp_path / "wide.html"
    picture = '<img src="http://127.0.0.1:9/else.png">'
    page.write_text(f'<!doctype html><head></head><body><p style="width:900px">wide</p>{picture}</body>')
    found = measured(browser, page, tmp_path, PHONE)
    assert found["scroll"] >= 900
    assert "wide</p>" in found["wide"][0]
    assert found["fetched"] == ["http://127.0.0.1:9/else.png"]


def test_every_figure_has_a_caption_and_units_on_its_axes(study_report: Path) -> None:
    """matplotlib writes the text of each label as a comment beside its outlines."""
    page = study_report.read_text()
    figures = re.findall(r"<figure>(.*?)</figure>", page, flags=re.S)
    units = {
        "Differences": ["(percentage points)"],
        "Loss": ["step (optimizer updates)", "loss (nats per token)", "difference (nats per token)"],
        "Accuracy over training, tiny": ["step (optimizer updates)", "acc (share of items)"],
        "Threshold": ["step (optimizer updates)", "threshold (score)"],
    }
    titles = [re.search(r"<figcaption><b>(.*?)\.</b>", figure)[1] for figure in figures]  # type: ignore[index]
    assert titles == list(units)
    for figure, title in zip(figures, titles, strict=True):
        drawn = [text.strip() for text in re.findall(r"<!--(.*?)-->", figure)]
        for unit in units[title]:
            assert any(unit in text for text in drawn), (title, unit)
        caption = re.sub("<.*?>", "", re.search(r"<figcaption>(.*?)</figcaption>", figure, flags=re.S)[1])  # type: ignore[index]
        assert len(caption) > 120, title
    assert not re.search(r"https?:|@import", page)


def test_the_table_comes_first_and_runs_are_linked(study_report: Path) -> None:
    page = study_report.read_text()
    places = [page.index(f"<h2>{title}") for title in ("Result", "What follows from it", "Figures", "Tables")]
    assert places == sorted(places)
    links = re.findall(r'<a href="(.*?)">(.*?)</a>', page)
    assert len(links) == 4
    for target, name in links:
        assert (study_report.parent / target).read_text() == "its own"
        assert f"/{name}/report.html" in target
    assert f"[{links[0][1]}]({links[0][0]})" in study_report.with_suffix(".md").read_text()

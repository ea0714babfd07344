import csv
import io
import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from l2e.analysis.dynamics_settings import DynamicsConfig
from l2e.cli.entry import main
from l2e.errors import UserError
from l2e.reporting.analysis.dynamics import draw


def observe(run: Path, level: float, weight: float = 0.0, seed: int = 0, model: str = "tiny") -> Path:
    """Make a run of the conftest one that only observed (weight 0) or was inhibited, with a known threshold."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["inhibition"] |= {"method": "l2e", "weight": weight}
    config |= {"seed": seed, "model": {"name": model}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        for block in (2, 3):
            if line.get(f"inhibition/block{block}/threshold") is not None:
                line[f"inhibition/block{block}/threshold"] = level + block
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_thresholds_with_and_without_the_method(made_up: Any, tmp_path: Path) -> None:
    runs = []
    for seed, (ours, theirs) in enumerate([(4.0, 5.0), (4.4, 5.1)]):
        runs.append(observe(made_up.run(tmp_path / f"l2e{seed}", name=f"l2e-{seed}"), ours, 1e-6, seed))
        runs.append(observe(made_up.run(tmp_path / f"base{seed}", name=f"base-{seed}"), theirs, 0.0, seed))
    curves, differences = draw(DynamicsConfig(), runs)
    assert (curves.name, differences.name) == ("dynamics-tiny", "dynamics-differences")
    assert {row["run"] for row in rows(curves.csv_text)} == {"l2e-0", "l2e-1", "base-0", "base-1"}
    found = rows(differences.csv_text)
    changes = {(row["seed"], row["block"]): float(row["minus_baseline"]) for row in found if row["minus_baseline"]}
    assert changes == pytest.approx({("0", "2"): -1.0, ("0", "3"): -1.0, ("1", "2"): -0.7, ("1", "3"): -0.7})
    # Student's t for two seeds: 12.706 x 0.15 either side of -0.85.
    assert "block 2: -0.85 [-2.76, 1.06]" in differences.caption
    assert "not settled" not in differences.caption
    for picture in (curves, differences):
        assert ET.fromstring(picture.svg_file).tag.endswith("svg")
        assert picture.svg.count(f'id="{picture.name}-') > 0


def test_a_figure_for_each_model_and_none_without_a_baseline(made_up: Any, tmp_path: Path) -> None:
    runs = [
        observe(made_up.run(tmp_path / "a"), 4.0, 1e-6, model="pythia-70m"),
        observe(made_up.run(tmp_path / "b"), 5.0, 1e-6, model="pythia-160m"),
    ]
    names = [picture.name for picture in draw(DynamicsConfig(), runs)]
    assert names == ["dynamics-pythia-70m", "dynamics-pythia-160m"]


def test_a_threshold_that_has_not_settled_is_said(made_up: Any, tmp_path: Path) -> None:
    runs = [observe(made_up.run(tmp_path / "a"), 4.0, 1e-6), observe(made_up.run(tmp_path / "b"), 5.0)]
    lines = [json.loads(line) for line in (runs[0] / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        if "inhibition/block2/selected" in line:
            line["inhibition/block2/selected"] = 0.001
    (runs[0] / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    caption = draw(DynamicsConfig(), runs)[-1].caption
    assert "had not settled" in caption
    assert "block 2 (selected 0.1% in place of 2%)" in caption
    assert "block 3 (selected" not in caption


def test_runs_without_a_threshold_are_refused(made_up: Any, tmp_path: Path) -> None:
    run = made_up.run(tmp_path / "baseline", method="none")
    with pytest.raises(UserError, match=r"no run has logged a threshold.*inhibition\.weight=0"):
        draw(DynamicsConfig(), [run])
    with pytest.raises(UserError, match="no such run directory"):
        draw(DynamicsConfig(), [tmp_path / "nowhere"])


def test_steps_after_a_gap_of_selected_do_not_shift_it(made_up: Any, tmp_path: Path) -> None:
    """Threshold and selected are matched by step, though a threshold is logged later than the share."""
    runs = [observe(made_up.run(tmp_path / "a"), 4.0, 1e-6), observe(made_up.run(tmp_path / "b"), 5.0)]
    lines = [json.loads(line) for line in (runs[0] / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        if "inhibition/block2/threshold" in line and line["step"] <= 20:
            del line["inhibition/block2/threshold"]
        if "inhibition/block2/selected" in line:
            line["inhibition/block2/selected"] = line["step"] / 1000
    (runs[0] / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = [row for row in rows(draw(DynamicsConfig(tail=0.1), runs)[-1].csv_text) if row["block"] == "2"]
    assert float(found[0]["selected"]) == pytest.approx(np.mean([step / 1000 for step in range(55, 61)]))


def test_from_the_command_line(made_up: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [
        observe(made_up.run(tmp_path / "l2e", name="l2e"), 4.0, 1e-6),
        observe(made_up.run(tmp_path / "base", name="base"), 5.5),
    ]
    out = tmp_path / "out"
    models = f"models=[{','.join(map(str, runs))}]"
    monkeypatch.setattr(sys, "argv", ["analyze.py", "analysis=dynamics", models, f"output={out}"])
    main("analyze", "l2e.cli.analyze:run")
    found = list(csv.DictReader((out / "figures/dynamics-differences.csv").open(newline="")))
    changes = {row["block"]: float(row["minus_baseline"]) for row in found if row["minus_baseline"]}
    assert changes == pytest.approx({"2": -1.5, "3": -1.5})
    page = (out / "index.html").read_text()
    assert page.count("<figure>") == 2
    assert "block 2: \N{MINUS SIGN}1.5" in page or "block 2: -1.5" in page

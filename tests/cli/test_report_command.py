"""scripts/report.py: which runs it takes."""

from pathlib import Path

import pytest

from l2e.cli import report
from l2e.errors import UserError


def write(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"name: {folder.name}\nmodel: {{name: tiny}}\ninhibition: {{method: none}}\n")
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    return folder


def test_a_pattern_names_the_runs_that_fit(tmp_path: Path) -> None:
    runs = [write(tmp_path / name) for name in ("b-2", "b-1", "a-1", "b-[x]")]
    (tmp_path / "b-report").mkdir()  # no run
    tree = {"runs": [f"{tmp_path}/a-1", f"{tmp_path}/b-?", f"{tmp_path}/b-*"], "output": str(tmp_path / "out")}
    report.run(tree, [])
    assert (tmp_path / "out" / "report.md").read_text().startswith("# a-1, b-1, b-2 and b-")
    report.run({"runs": [str(runs[3])], "output": str(tmp_path / "one")}, [])  # a folder of that very name
    assert "2.0" in (tmp_path / "one" / "report.md").read_text()
    with pytest.raises(UserError, match="no run directory fits"):
        report.run(tree | {"runs": [f"{tmp_path}/c*"]}, [])
    with pytest.raises(UserError, match="no such run directory"):
        report.run(tree | {"runs": [f"{tmp_path}/c"]}, [])

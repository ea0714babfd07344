"""The shipped settings of probes and deactivations, and their lines of progress."""

import logging
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from l2e.analysis import progress
from l2e.analysis.deactivation import DeactivateSettings
from l2e.analysis.probe_settings import ProbeSettings
from l2e.errors import UserError
from l2e.settings import build_settings

CONFIGS = Path(__file__).parents[2] / "configs" / "analysis"


@pytest.mark.parametrize(("kind", "settings"), [("probe", ProbeSettings), ("deactivate", DeactivateSettings)])
def test_shipped_settings_are_the_defaults(kind: str, settings: type) -> None:
    tree = yaml.safe_load((CONFIGS / f"{kind}.yaml").read_text())
    assert tree.pop("kind") == kind
    assert tree.keys() <= {field.name for field in fields(settings)}
    assert build_settings(settings, tree, "analysis") == settings()


@pytest.mark.parametrize(
    ("settings", "tree", "message"),
    [
        (ProbeSettings, {"solver": "lbfgs"}, r"analysis\.solver.*'saga' or 'newton'"),
        (ProbeSettings, {"rank": 3}, r"analysis\.rank: unknown setting \(did you mean ranked\?\)"),
        (ProbeSettings, {"cut": 2.0}, r"analysis: cut must be in \[0, 1\), not 2.0"),
        (DeactivateSettings, {"neurons": ["3.609"]}, "analysis: neurons must be written like L3.N609"),
        (DeactivateSettings, {"place": "output"}, r"analysis\.place"),
    ],
)
def test_impossible_settings_are_told_with_their_key(settings: type, tree: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_settings(settings, tree, "analysis")


def test_a_line_of_progress_says_how_long_it_will_take(monkeypatch, caplog) -> None:
    clock = iter((100.0, 104.0, 112.0, 115.0, 118.0))
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    caplog.set_level(logging.INFO, "l2e.analysis")
    line = progress.ProgressLine("m: probing", "layers")
    for done in range(1, 5):
        line(done, 4)
    assert caplog.messages == ["m: probing: 2 of 4 layers, about 12 s left", "m: probing: 4 of 4 layers in 18 s"]

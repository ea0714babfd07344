"""What may change between two starts of one run, and what may not."""

from pathlib import Path
from typing import Any

import pytest

from l2e.cli.run_folder import RunFolder
from l2e.errors import UserError


def tree(**training: Any) -> dict[str, Any]:
    whole = {"steps": 10, "lr": 1.0, "non_finite": "stop", "max_skips": 10, "timeout_minutes": 30.0, "dry_run": False}
    return {"name": "run", "seed": 1, "training": whole | training}


@pytest.mark.parametrize("change", [{"non_finite": "skip"}, {"max_skips": 3}, {"timeout_minutes": 90.0}])
def test_how_faults_are_met_may_change_between_starts(tmp_path: Path, change: dict[str, Any]) -> None:
    """After a stop the user is told to set training.non_finite=skip: the run must take it."""
    folder = RunFolder(str(tmp_path), "run")
    folder.open(tree(), [])
    folder.check(tree(**change))


def test_what_decides_the_weights_may_not(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path), "run")
    folder.open(tree(), [])
    with pytest.raises(UserError, match=r"training\.lr is 1\.0 there and 2\.0 here"):
        folder.check(tree(lr=2.0, non_finite="skip"))


def test_a_run_from_before_these_settings_existed_goes_on(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path), "run")
    old = tree()
    for key in ("non_finite", "max_skips", "timeout_minutes", "dry_run"):
        del old["training"][key]
    folder.open(old, [])
    folder.check(tree())

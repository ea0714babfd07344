"""Packages import what is asked for, and a wrong setting is told before anything heavy is loaded."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("l2e", "l2e.analysis", "l2e.data", "l2e.evaluation", "l2e.inhibition", "l2e.models", "l2e.reporting")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_there_and_is_no_module(package: str) -> None:
    module = importlib.import_module(package)
    for name in module.__all__:
        assert type(getattr(module, name)).__name__ != "module", name
    with pytest.raises((AttributeError, ImportError), match="nothing_of_this_name"):
        getattr(module, "nothing_of_this_name")  # noqa: B009


@pytest.mark.parametrize(
    "arguments",
    [
        ["pretrain", "training.steps=-1"],
        ["plan", "gpus=0"],
        ["prepare", "show=nonsense"],
        ["evaluate", "path=a", "output=b", "evaluation.batch_size=0"],
        ["report", "runs=a", "output=b"],
        ["export", "run=a", "step=last"],
        ["convert", "run=a", "step=last"],
        ["benchmark", "benchmark=table2", "benchmark.rounds=0"],
        ["benchmark", "benchmark=evaluation", "benchmark.items=0"],
        ["analyze", "analysis=probe", "output=b", "analysis.cut=2"],
        ["analyze", "analysis=ms", "output=b", "features.builtin.window=0"],
    ],
    ids=" ".join,
)
def test_a_wrong_setting_is_told_before_anything_heavy_is_loaded(arguments: list[str], tmp_path: Path) -> None:
    script, *rest = arguments
    command = [sys.executable, "-X", "importtime", str(ROOT / "scripts" / f"{script}.py"), *rest]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=200)
    assert done.returncode == 2
    message, loaded = done.stderr.splitlines()[-1], done.stderr
    assert message.startswith("error: ")
    for heavy in ("transformers", "deepspeed", "scipy", "torch._dynamo", "matplotlib", "datasets"):
        assert f" {heavy}\n" not in loaded, heavy

"""`kernel: auto | torch | triton` where Triton is there and where it is not."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from l2e.inhibition import InhibitionConfig, kernels


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    kernels.missing.cache_clear()
    yield
    kernels.missing.cache_clear()


def test_triton_is_refused_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"kernel=triton is impossible: triton is not installed .* kernel=auto"):
        InhibitionConfig(weight=0.1, kernel="triton")
    assert InhibitionConfig(weight=0.1, kernel="auto").kernel == "auto"


@pytest.mark.parametrize(
    ("gpu", "compiler", "headers", "message"),
    [
        (False, True, True, "torch sees no GPU here"),
        (True, False, True, "needs a C compiler"),
        (True, True, False, "needs Python's headers"),
        (True, True, True, None),
    ],
)
def test_what_triton_needs(
    gpu: bool, compiler: bool, headers: bool, message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace())
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(kernels.shutil, "which", lambda name: "/usr/bin/gcc" if compiler else None)
    monkeypatch.setattr(kernels.Path, "exists", lambda path: headers)
    if message is None:
        InhibitionConfig(weight=0.1, kernel="triton")
    else:
        with pytest.raises(ValueError, match=message):
            InhibitionConfig(weight=0.1, kernel="triton")


def test_what_triton_has_no_kernel_for() -> None:
    with pytest.raises(ValueError, match="method none has no work for triton"):
        InhibitionConfig(method="none", kernel="triton")
    with pytest.raises(ValueError, match="channels are last"):
        InhibitionConfig(weight=0.1, neurons="channel", channel_dim=1, kernel="triton")
    with pytest.raises(ValueError, match="kernel must be one of auto, torch, triton"):
        InhibitionConfig(weight=0.1, kernel="cuda")  # type: ignore[arg-type]


def test_the_method_works_where_triton_cannot_be_imported() -> None:
    program = """
import sys
sys.modules["triton"] = None
import torch, l2e
model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
inhibition = l2e.attach(model, blocks=["0"], weight=0.1, late_start=1, warmup=1)
for _ in range(3):
    (model(torch.randn(8, 4)).sum() + inhibition.penalty()).backward()
    inhibition.step()
print(inhibition.metrics()["0/selected"] >= 0)
"""
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "True", done.stderr

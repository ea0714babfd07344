"""The kernels' check for bare GPU machines, in Triton's interpreter; and that it would see a difference."""

import json

import pytest
import torch

from l2e.benchmarks import kernel_check
from l2e.benchmarks.kernel_check import Outputs
from l2e.inhibition.kernels import load_triton, missing

if (reason := missing()) is not None:
    pytest.skip(reason, allow_module_level=True)

SMALL = ["--shrink", "256", "--rounds", "1"]


@pytest.fixture(autouse=True)
def one_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_check, "SHAPES", {"small": (4, 2048, 1024)})


def test_all_is_compared_and_timed(capsys: pytest.CaptureFixture[str]) -> None:
    assert kernel_check.main(SMALL) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["versions"]["triton"]
    small = result["results"]["small"]
    assert small["shape"] == [4, 8, 4]
    assert set(small["differences"]) == {"torch.bfloat16", "torch.float16", "torch.float32"}
    assert result["results"]["passed"]
    # 128 outputs of 2 bytes; 32 neurons: mean and spread read, two sums read and written, 4 bytes each.
    assert small["bandwidth"]["forward"]["bytes"] == 128 * 2 + 32 * 24
    assert small["bandwidth"]["backward"]["bytes"] == 128 * 6 + 32 * 8
    assert small["bandwidth"]["copy"]["share_of_copy"] == 1
    forward = small["bandwidth"]["forward"]
    assert forward["gb_per_second"] == pytest.approx(forward["bytes"] / forward["ms"] / 1e6)


def test_two_percent_are_selected() -> None:
    outputs = Outputs((16, 64, 64), torch.float32, torch.device("cpu"))
    share = outputs.rule.select(outputs.values)[1].float().mean().item()
    assert share == pytest.approx(0.02, abs=0.002)


@pytest.mark.parametrize("spoiled", ["look", "join_gradients"])
def test_a_wrong_kernel_is_seen(
    spoiled: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A deviation from a mean that is off by a hundredth."""
    ops = load_triton()
    launch, join = ops._launch, ops.join_gradients
    if spoiled == "look":
        monkeypatch.setattr(
            ops, "_launch", lambda values, *rest: launch((values.float() + 0.01).to(values.dtype), *rest)
        )
    else:
        monkeypatch.setattr(ops, "join_gradients", lambda other, values, *rest: join(other, values * 1.01, *rest))
    assert kernel_check.main(SMALL) == 1
    assert not json.loads(capsys.readouterr().out.splitlines()[-1])["results"]["passed"]

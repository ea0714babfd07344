"""The benchmark of activations: its ways agree, its JSON line, its refusals. No timing is asserted."""

import json
import sys
from typing import Any

import numpy as np
import pytest
import torch

from l2e.analysis.activation_settings import ActivationSettings
from l2e.benchmarks.activations import Ways
from l2e.benchmarks.activations_config import ActivationsBenchmarkConfig
from l2e.cli.entry import main

SMALL: dict[str, Any] = {"model": "tiny", "sequences": 40, "window": 48, "shortest": 8, "rounds": 1, "device": "cpu"}


def test_the_script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = [f"benchmark.{key}={value}" for key, value in SMALL.items()]
    monkeypatch.setattr(sys, "argv", ["b", "benchmark=activations", *overrides, "benchmark.activations.memory_mib=8"])
    main("benchmark", "l2e.cli.benchmark:run")
    printed = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert printed["benchmark"] == "activations"
    assert printed["device"].startswith("cpu")
    results = printed["results"]
    assert results["vs_bare_forward"] > 0
    assert results["vs_naive"] > 0
    assert set(results["memory_mib"]) == set(results["tokens_per_second"]) == {"ours", "bare_forward", "naive"}
    assert results["memory_mib"]["ours"] <= results["memory_limit_mib"] == 8
    # Every position of every sequence, and once more where they are concatenated.
    assert results["memory_mib"]["naive"] > 4 * 40 * 48 * 4 * 512 / 2**20


@pytest.mark.parametrize("aggregation", ["mean", "max"])
@pytest.mark.parametrize("site", ["hidden_pre", "hidden_post", "block_output"])
def test_the_ways_see_the_same_sites(site: Any, aggregation: Any, tmp_path: Any) -> None:
    settings = ActivationSettings(site=site, aggregation=aggregation, memory_mib=8, layers=3)
    ways = Ways(ActivationsBenchmarkConfig(**SMALL, activations=settings), torch.device("cpu"), tmp_path)
    ways.check_same()
    seen: list[torch.Size] = []
    ways.model.gpt_neox.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].shape))
    ways.bare_forward()
    bare, seen[:] = seen[:], []
    ways.ours()
    assert bare == seen
    assert sum(rows for rows, _ in bare) == 40
    ways.features.tokens[3, :4] += 1
    expected = ways.naive()
    ways.features.tokens[3, :4] -= 1
    monkeyed, ways.naive = ways.naive, lambda: expected  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="the two ways differ by"):
        ways.check_same()
    assert np.isfinite(monkeyed().numpy()).all()


def test_impossible_settings() -> None:
    with pytest.raises(ValueError, match="shortest must lie in 2 to window, 48, not 49"):
        ActivationsBenchmarkConfig(**SMALL | {"shortest": 49})
    with pytest.raises(ValueError, match="rounds must be at least 1"):
        ActivationsBenchmarkConfig(**SMALL | {"rounds": 0})

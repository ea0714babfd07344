"""One pass gives what hooks, the whole model and NumPy give; its memory stays in its bounds."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plain_activations import plainly, random_features, small_model
from transformers import AutoTokenizer

from l2e.analysis.activation_settings import ActivationSettings
from l2e.analysis.aggregate import aggregate, make_spans
from l2e.analysis.collect import Room, collect, make_batches, plan_room
from l2e.analysis.feature_settings import FeatureSettings
from l2e.analysis.features import build_features
from l2e.benchmarks.memory import peak_bytes
from l2e.errors import UserError
from l2e.models import build_pythia

SITES = ("hidden_pre", "hidden_post", "block_output")


def gathered(model: Any, features: Any, rows: Any = None, **settings: Any) -> np.ndarray:
    config = ActivationSettings(**{"memory_mib": 8, **settings})
    rows = np.arange(len(features.tokens)) if rows is None else rows
    width = model.config.hidden_size * (1 if config.site == "block_output" else 4)
    found = np.full((config.layers or model.config.num_hidden_layers, len(features.tokens), width), np.nan)

    def write(written: np.ndarray, values: np.ndarray) -> None:
        assert np.isnan(found[:, written]).all(), "a row came twice"
        found[:, written] = values

    collect(model, features, config, rows, write)
    return found


@pytest.mark.parametrize("aggregation", ["mean", "max"])
@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("ragged", [True, False])
def test_it_is_what_hooking_and_concatenating_gives(site: str, aggregation: str, ragged: bool) -> None:
    model, features = small_model(), random_features(ragged=ragged)
    expected = plainly(model, features, site, aggregation)
    assert expected.std() > 0.1
    for batch_tokens in (24, 60, 100_000):
        found = gathered(model, features, site=site, aggregation=aggregation, batch_tokens=batch_tokens)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_only_the_first_blocks() -> None:
    model, features = small_model(), random_features()
    whole = gathered(model, features)
    ran: list[int] = []
    for number, block in enumerate(model.gpt_neox.layers):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    model.lm_head.register_forward_hook(lambda *_: ran.append(99))
    two = gathered(model, features, layers=2)
    assert two.shape[0] == 2
    np.testing.assert_allclose(two, whole[:2], atol=1e-6)
    assert set(ran) == {0}, "block 1 need not end, nor block 2 begin"
    with pytest.raises(UserError, match=r"activations.layers: the model has 3 blocks, not 4"):
        gathered(model, features, layers=4)


def test_the_model_is_left_as_it_was() -> None:
    model, features = small_model(), random_features()
    tokens = torch.from_numpy(features.tokens[:2].astype(np.int64))
    with torch.no_grad():
        before = model(tokens).logits
        gathered(model, features)
        assert torch.equal(model(tokens).logits, before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("aggregation", ["mean", "max"])
@pytest.mark.parametrize("site", SITES)
def test_half_precision_is_aggregated_in_single(site: str, aggregation: str) -> None:
    model, features = small_model().to(torch.bfloat16), random_features()
    found = gathered(model, features, site=site, aggregation=aggregation, precision="bf16", batch_tokens=24)
    expected = plainly(model, features, site, aggregation)
    # Another kernel rounds otherwise, and so do the values of single positions; what is exact follows below.
    difference = np.abs(found - expected)
    assert difference.mean() < 0.01
    assert difference.max() < 0.2
    exact = torch.randn(5, 301, 7).bfloat16()
    spans = make_spans(np.array([0, 3, 1, 2, 0]), np.array([301, 300, 290, 301, 299]), torch.device("cpu"))
    rows = [exact[row, a:b].double() for row, (a, b) in enumerate([(0, 301), (3, 300), (1, 290), (2, 301), (0, 299)])]
    wanted = torch.stack([row.mean(0) if aggregation == "mean" else row.max(0).values for row in rows])
    torch.testing.assert_close(aggregate(exact, spans, aggregation).double(), wanted, rtol=0, atol=1e-6)


def test_what_stands_outside_the_valid_positions_does_not_count() -> None:
    values = torch.full((3, 10, 2), torch.nan)
    values[0, 2:5], values[1, 8:10], values[2, 0:1] = -1.0, -2.0, -3.0  # no position is valid in all
    spans = make_spans(np.array([2, 8, 0]), np.array([5, 10, 1]), torch.device("cpu"))
    for how in ("mean", "max"):
        assert aggregate(values, spans, how)[:, 0].tolist() == [-1.0, -2.0, -3.0]


def test_batches_are_of_one_length_and_take_every_row_once() -> None:
    rng = np.random.default_rng(3)
    ends = rng.integers(5, 60, 400)
    rows = np.sort(rng.choice(400, 300, replace=False))
    batches = list(make_batches(ends, rows, Room(batch_tokens=300, slot_rows=20)))
    assert sorted(np.concatenate(batches).tolist()) == rows.tolist()
    assert all(len(batch) * ends[batch].max() <= 300 and len(batch) <= 20 for batch in batches)
    assert all(
        a.min() >= b.max() for a, b in zip((ends[x] for x in batches), (ends[x] for x in batches[1:]), strict=False)
    )
    padding = sum(len(batch) * ends[batch].max() - ends[batch].sum() for batch in batches)
    assert padding < 0.05 * ends[rows].sum()


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize(("precision", "memory_mib"), [("fp32", 2), ("fp32", 5), ("bf16", 3)])
def test_the_memory_is_bounded_and_used(site: str, precision: str, memory_mib: int) -> None:
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    model, features = small_model().to(dtype), random_features(160, 64, seed=5)
    settings = ActivationSettings(site=site, precision=precision, memory_mib=memory_mib)  # type: ignore[arg-type]
    kept = np.zeros((3, 160, 512 if site != "block_output" else 128), np.float32)

    def work(_: Any) -> None:
        def write(rows: np.ndarray, values: np.ndarray) -> None:
            kept[:, rows] = values

        collect(model, features, settings, np.arange(160), write)

    _, peak = peak_bytes(torch.device("cpu"), [], lambda: None, work)
    assert 0.4 * memory_mib * 2**20 < peak <= memory_mib * 2**20


def test_too_little_memory_is_told_with_what_is_enough() -> None:
    config = build_pythia("pythia-14m", vocab_size=64).config
    with pytest.raises(
        UserError, match=r"memory_mib: 1 are too few for one sequence of 512 .*; give (\d+) or more"
    ) as told:
        plan_room(config, ActivationSettings(memory_mib=1), 4, 512)
    enough = int(str(told.value).split("give ")[1].split()[0])
    room = plan_room(config, ActivationSettings(memory_mib=enough), 4, 512)
    assert room.batch_tokens >= 512
    with pytest.raises(UserError, match=r"activations.batch_tokens: 100 are less than a sequence of 512"):
        plan_room(config, ActivationSettings(batch_tokens=100), 4, 512)


def test_a_slow_writer_finds_its_values_unchanged() -> None:
    model, features = small_model(), random_features(160, 64, seed=5)
    settings = ActivationSettings(memory_mib=2, batch_tokens=256)
    found, filled, writes = np.zeros((3, 160, 512)), threading.Event(), []

    def write(rows: np.ndarray, values: np.ndarray) -> None:
        filled.clear()
        filled.wait(0.5)  # the next batch is through the model; after the last nobody says so
        writes.append(len(rows))
        found[:, rows] = values

    collect(model, features, settings, np.arange(160), write, lambda sequences, tokens: filled.set())
    assert len(writes) > 2
    np.testing.assert_allclose(found, plainly(model, features, "hidden_post", "mean"), atol=1e-5)


def test_a_writer_that_fails_ends_the_collection() -> None:
    def write(rows: np.ndarray, values: np.ndarray) -> None:
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        collect(small_model(), random_features(), ActivationSettings(), np.arange(37), write)


def test_real_texts_of_many_lengths(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "features" / "data_subset" / "pile_subsets_8.jsonl"
    settings = FeatureSettings(path=str(path), per_label=2, window=256, ignore_first_k=25)
    tokenizer = AutoTokenizer.from_pretrained(real_data / "tokenizer")
    features = build_features("data_subset", settings, tokenizer, tmp_path)
    assert len(set(features.ends.tolist())) > 1, "some are padded"
    model = build_pythia("tiny", vocab_size=50304).eval()
    found = gathered(model, features, batch_tokens=700, memory_mib=16)
    np.testing.assert_allclose(found, plainly(model, features, "hidden_post", "mean"), rtol=0, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_gives_the_same(precision: str) -> None:
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    model, features = small_model().to(dtype), random_features(300, 64)
    for site in SITES:
        for aggregation in ("mean", "max"):
            expected = plainly(model.cpu(), features, site, aggregation)
            found = gathered(model.cuda(), features, site=site, aggregation=aggregation, precision=precision)
            np.testing.assert_allclose(found, expected, atol=1e-4 if precision == "fp32" else 0.05, rtol=0.02)

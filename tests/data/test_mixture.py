"""Sources mixed by weight: exact proportions, and a pure function of the position."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_folders import letter_tokens, write_lines, write_text

from l2e.data import PackedRows, ShuffledRows, TextDataConfig, open_corpus
from l2e.data.mixture import BLOCK, MixedRows, counts_before, whole_weights
from l2e.settings import build_settings

SIZES = (10, 37, 5)


def sources(folder: Path, sizes: Sequence[int] = SIZES, seed: int = 7) -> list[ShuffledRows]:
    """Source k has `sizes[k]` rows of 2 targets; row i begins with the token 1000 k + 2 i."""
    rows = []
    for number, size in enumerate(sizes):
        path = folder / f"{number}.bin"
        (1000 * number + np.arange(2 * size + 1)).astype("<u2").tofile(path)
        rows.append(ShuffledRows(PackedRows(path, "uint16", 2), seed))
    return rows


def mixed(folder: Path, weights: Sequence[float] = (2, 1, 0.5), seed: int = 7) -> MixedRows:
    return MixedRows(sources(folder, seed=seed), weights, seed)


@pytest.mark.parametrize(
    ("weights", "whole"),
    [
        ([1], [1]),
        ([2.0, 4.0], [1, 2]),
        ([0.1, 0.2, 0.7], [1, 2, 7]),
        ([0.3, 0.1], [3, 1]),
        ([1e-3, 1], [1, 1000]),
        ([2.5, 1.25, 1e3], [2, 1, 800]),
    ],
)
def test_weights_are_the_decimals_that_were_written(weights: list[float], whole: list[int]) -> None:
    assert whole_weights(weights) == whole


WEIGHTS = st.lists(st.integers(1, 1000), min_size=1, max_size=12)


@settings(max_examples=300, deadline=None)
@given(weights=WEIGHTS, position=st.integers(0, 10**15))
def test_counts_are_close_to_their_shares_everywhere(weights: list[int], position: int) -> None:
    here, there = counts_before(position, weights), counts_before(position + 1, weights)
    assert sum(here) == position
    assert sorted(after - before for before, after in zip(here, there, strict=True)) == [0] * (len(weights) - 1) + [1]
    for count, weight in zip(here, weights, strict=True):
        off = count * sum(weights) - position * weight  # in whole numbers: no rounding in the test
        assert -sum(weights) < off < len(weights) * sum(weights)


@settings(max_examples=40, deadline=None)
@given(weights=WEIGHTS, block=st.integers(0, 10**9), seed=st.integers(0, 5))
def test_the_share_of_every_prefix(weights: list[int], block: int, seed: int) -> None:
    """The counts of the positions before `block`, and then one by one."""
    rows = MixedRows([_Endless()] * len(weights), weights, seed)  # type: ignore[list-item]
    counts = counts_before(block * BLOCK, weights)
    for position in range(block * BLOCK, (block + 3) * BLOCK):
        source, number = rows.place(position)
        assert number == counts[source]  # no row left out, none twice
        counts[source] += 1
        for count, weight in zip(counts, weights, strict=True):
            assert abs(count - (position + 1) * weight / sum(weights)) < BLOCK / 4 + len(weights)


class _Endless:
    """A source of which only the places are asked."""


def test_a_row_is_the_sources_own_next(tmp_path: Path) -> None:
    """An independent dealer: walk the positions and count."""
    rows, own = mixed(tmp_path), sources(tmp_path)
    seen = [0, 0, 0]
    for position, row in enumerate(rows.gather(range(500))):
        source = int(row[0]) // 1000
        assert row.tolist() == own[source].gather([seen[source]])[0].tolist()
        seen[source] += 1
        if (position + 1) % BLOCK == 0:
            np.testing.assert_allclose(seen, (position + 1) * np.array([4, 2, 1]) / 7, atol=3)


def test_each_source_goes_through_whole_epochs(tmp_path: Path) -> None:
    rows = mixed(tmp_path).gather(range(700))
    for number, size in enumerate(SIZES):
        own = [int(row[0]) for row in rows if row[0] // 1000 == number]
        for start in range(0, len(own) - size + 1, size):
            assert sorted(own[start : start + size]) == [1000 * number + 2 * i for i in range(size)]


@settings(max_examples=30, deadline=None)
@given(positions=st.lists(st.integers(0, 10**9), min_size=1, max_size=20), seed=st.integers(0, 3))
def test_a_position_says_it_all(tmp_path_factory: pytest.TempPathFactory, positions: list[int], seed: int) -> None:
    """In any order, alone or together, in an old object or a fresh one."""
    folder = tmp_path_factory.mktemp("rows")
    rows = mixed(folder, seed=seed)
    together = rows.gather(positions)
    assert together.dtype == np.int64
    assert together.shape == (len(positions), 3)
    backwards = rows.gather(positions[::-1])[::-1]
    alone = np.concatenate([mixed(folder, seed=seed).gather([position]) for position in positions])
    np.testing.assert_array_equal(together, backwards)
    np.testing.assert_array_equal(together, alone)


def test_a_far_position_costs_what_the_first_costs(tmp_path: Path) -> None:
    """Work is counted, not time: one block is made for each position asked, wherever it is."""
    for position in (0, 10**9, 10**15):
        rows = mixed(tmp_path)
        rows.gather([position])
        assert rows._block.cache_info().misses == 1


def test_the_order_is_shuffled_and_follows_the_seed(tmp_path: Path) -> None:
    def order(seed: int) -> list[int]:
        rows = mixed(tmp_path, seed=seed)
        return [rows.place(position)[0] for position in range(4 * BLOCK)]

    assert order(1) == order(1) != order(2)
    blocks = [order(1)[start : start + BLOCK] for start in range(0, 4 * BLOCK, BLOCK)]
    assert len({tuple(block) for block in blocks}) == 4
    # No beat with micro-batches: each quarter of the positions has its share of the heaviest source.
    heaviest = Counter(position % 4 for position, source in enumerate(order(1)) if source == 0)
    assert all(20 <= count <= 52 for count in heaviest.values())  # 36.6 of 64 each, were they exact


def test_the_fingerprint_covers_sources_weights_and_seed(tmp_path: Path) -> None:
    first = mixed(tmp_path).fingerprint()
    assert first == mixed(tmp_path).fingerprint() == mixed(tmp_path, weights=(4, 2, 1)).fingerprint()
    own = [source.fingerprint() for source in sources(tmp_path)]
    assert first["weights"] == [4, 2, 1]
    assert first["sha256_of_ends"] == [one["sha256_of_ends"] for one in own]
    others = [mixed(tmp_path, weights=(2, 1, 1)), mixed(tmp_path, seed=8), MixedRows(sources(tmp_path)[:2], (2, 1), 7)]
    for other in others:
        assert other.fingerprint() != first
    assert MixedRows(sources(tmp_path), (4, 2, 1), 8).fingerprint() != first  # the sources' own seeds are the same
    other_data = sources(tmp_path, sizes=(10, 37, 6))
    assert MixedRows(other_data, (2, 1, 0.5), 7).fingerprint() != first


def open_mixture(folder: Path, train: Any, cache: Path) -> Any:
    tree = {"kind": "text", "path": str(folder), "validation": None, "train": train, "seed": 3}
    config = build_settings(TextDataConfig, tree, "data")
    return open_corpus(config, seq_length=2, vocab_size=16, cache_dir=cache)


def test_a_mapping_among_the_entries_mixes_them(tmp_path: Path) -> None:
    folder = write_text(tmp_path / "text", ["a" * 40])
    write_lines(folder / "b.jsonl", ["bb", "b" * 9])
    corpus = open_mixture(folder, ["train.jsonl", {"source": "b.jsonl", "weight": 3}], tmp_path / "cache")
    assert corpus.rows is None  # endless
    first, second = corpus.train.sources
    assert first.rows.tokens.tolist() == letter_tokens(["a" * 40])
    assert second.rows.tokens.tolist() == letter_tokens(["bb", "b" * 9])
    rows = corpus.train.gather(range(4 * BLOCK))
    assert sum(1 in row for row in rows) == BLOCK  # no row of b.jsonl holds the letter a
    assert corpus.fingerprint()["weights"] == [1, 3]


def test_one_source_alone_is_in_its_usual_order(tmp_path: Path) -> None:
    folder = write_text(tmp_path / "text", ["abcdefgh" * 9])
    plain = open_mixture(folder, "train.jsonl", tmp_path / "cache")
    for train in ({"source": "train.jsonl"}, [{"source": "train.jsonl", "weight": 5}]):
        corpus = open_mixture(folder, train, tmp_path / "cache")
        np.testing.assert_array_equal(plain.train.gather(range(99)), corpus.train.gather(range(99)))
        assert corpus.fingerprint() == plain.fingerprint()

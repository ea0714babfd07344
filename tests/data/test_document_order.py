import json
import math
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2e.data import StepLoader, document_order
from l2e.data.document_order import (
    PYTHIA_SAMPLES,
    DocumentRows,
    build_order,
    build_sample_idx,
    count_epochs,
    samples_to_request,
)
from l2e.data.megatron_files import write_megatron
from l2e.errors import UserError

DOCUMENTS = [[10, 11, 12], [20, 21, 22, 23, 24], [30, 31]]
# What NumPy's frozen generator makes of seed 1234 for two epochs of them in rows of 3 + 1.
DOC_IDX = [2, 1, 2, 0, 1, 0]
SHUFFLE_IDX = [0, 4, 3, 2, 5, 1]
LONGER = [[100 * i + j for j in range(size)] for i, size in enumerate([3, 0, 17, 1, 6, 2, 0, 9, 1, 1, 30])]


def sizes_of(*sizes: int) -> npt.NDArray[np.int32]:
    return np.array(sizes, dtype=np.int32)


def reference_epochs(tokens_per_epoch: int, num_samples: int, seq_length: int) -> int:
    """The loop that v1.0 counts epochs with."""
    epochs = total = 0
    while True:
        epochs += 1
        total += tokens_per_epoch
        if (total - 1) // seq_length >= num_samples:
            return epochs


def reference_sample_idx(sizes: list[int], doc_idx: list[int], seq_length: int) -> list[list[int]]:
    """The walk over documents that v1.0 builds sample_idx with, step for step."""
    samples = (sum(sizes[document] for document in doc_idx) - 1) // seq_length
    place = offset = 0
    sample_idx = [[place, offset]]
    while len(sample_idx) <= samples:
        remaining = seq_length + 1
        while remaining != 0:
            length = sizes[doc_idx[place]] - offset
            remaining -= length
            if remaining <= 0:
                offset += remaining + length - 1
                remaining = 0
            else:
                place += 1
                offset = 0
        sample_idx.append([place, offset])
    return sample_idx


def rows_of(
    folder: Path, documents: list[list[int]], seq_length: int, num_samples: int, seed: int = 1234
) -> DocumentRows:
    file = write_megatron(folder / "x", documents, "uint16")
    return DocumentRows(file, seq_length, folder / "cache", num_samples, seed)


def test_samples_are_placed_as_worked_out_by_hand() -> None:
    """Documents of 3, 5 and 2 tokens in their own order: aaabbbbbcc, numbered 0123456789."""
    # Rows of 2 + 1: 012 234 456 678, and token 9 is left over. Tokens 0 2 4 6 8 are a0 a2 b1 b3 c0.
    assert build_sample_idx(sizes_of(3, 5, 2), sizes_of(0, 1, 2), 2).tolist() == [
        [0, 0],
        [0, 2],
        [1, 1],
        [1, 3],
        [2, 0],
    ]
    # Rows of 3 + 1: 0123 3456 6789. Tokens 0 3 6 9 are a0 b0 b3 c1.
    assert build_sample_idx(sizes_of(3, 5, 2), sizes_of(0, 1, 2), 3).tolist() == [[0, 0], [1, 0], [1, 3], [2, 1]]
    # In the order c a b, ccaaabbbbb, rows of 3 + 1: tokens 0 3 6 9 are c0 a1 b1 b4.
    assert build_sample_idx(sizes_of(3, 5, 2), sizes_of(2, 0, 1), 3).tolist() == [[0, 0], [1, 1], [2, 1], [2, 4]]
    # Without tokens first, between and last: the first start stays at (0, 0), all others pass over them.
    assert build_sample_idx(sizes_of(0, 2, 0, 3, 0), np.arange(5, dtype=np.int32), 2).tolist() == [
        [0, 0],
        [3, 0],
        [3, 2],
    ]


@settings(max_examples=300, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 9) | st.integers(0, 1) | st.just(40), min_size=1, max_size=20).filter(any),
    epochs=st.integers(1, 3),
    seq_length=st.integers(1, 8),
    at_once=st.integers(1, 5) | st.just(1 << 22),
    seed=st.integers(0, 99),
)
def test_samples_are_placed_as_by_the_walk(
    sizes: list[int], epochs: int, seq_length: int, at_once: int, seed: int
) -> None:
    doc_idx = np.random.RandomState(seed).permutation(np.tile(np.arange(len(sizes), dtype=np.int32), epochs))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(document_order, "_AT_ONCE", at_once)
        ours = build_sample_idx(sizes_of(*sizes), doc_idx, seq_length)
    assert ours.tolist() == reference_sample_idx(sizes, doc_idx.tolist(), seq_length)
    assert ours.dtype == np.int32


@given(tokens=st.integers(1, 50), samples=st.integers(0, 60), seq_length=st.integers(1, 9))
def test_epochs_are_counted_as_by_the_loop(tokens: int, samples: int, seq_length: int) -> None:
    assert count_epochs(tokens, samples, seq_length) == reference_epochs(tokens, samples, seq_length)


def test_epochs_at_the_border_and_of_pythia() -> None:
    # 10 tokens hold 3 rows of 3 + 1 exactly, and 9 tokens only 2.
    assert [count_epochs(10, n, 3) for n in (1, 3, 4, 6, 7)] == [1, 1, 2, 2, 3]
    assert [count_epochs(9, n, 3) for n in (2, 3)] == [1, 2]
    assert samples_to_request(143_000, 1024) == PYTHIA_SAMPLES == 147_164_160
    assert samples_to_request(10, 1024) == math.ceil(10_291.2)
    # pythia.md D.5: deduplicated Pile, 101.16M samples an epoch; the standard one 162.16M.
    assert count_epochs(207_170_414_058, PYTHIA_SAMPLES, 2048) == 2
    assert count_epochs(162_160_000 * 2048, PYTHIA_SAMPLES, 2048) == 1


def test_the_shuffles_are_two_of_one_generator() -> None:
    order = build_order(sizes_of(3, 5, 2), epochs=2, seq_length=3)
    random = np.random.RandomState(1234)
    documents = np.array([0, 1, 2, 0, 1, 2])  # both epochs, shuffled as one
    random.shuffle(documents)
    samples = np.arange(6)  # (2 x 10 - 1) div 3
    random.shuffle(samples)
    assert order.doc_idx.tolist() == documents.tolist()
    assert order.shuffle_idx.tolist() == samples.tolist()
    assert order.sample_idx.tolist() == reference_sample_idx([3, 5, 2], documents.tolist(), 3)
    assert (order.doc_idx.dtype, order.sample_idx.dtype, order.shuffle_idx.dtype) == (np.int32, np.int32, np.uint32)
    assert order.doc_idx.tolist() == DOC_IDX
    assert order.shuffle_idx.tolist() == SHUFFLE_IDX


def test_rows_of_the_small_case_by_hand(tmp_path: Path) -> None:
    """The figures of the test above, followed through to tokens on paper."""
    rows = rows_of(tmp_path, DOCUMENTS, 3, num_samples=4)
    # DOC_IDX makes the stream, and these are its starts:
    # 30 31 20 21 22 23 24 30 31 10 11 12 20 21 22 23 24 10 11 12
    # 0        1        2        3        4        5        (6)
    assert rows.gather(range(6)).tolist() == [
        [30, 31, 20, 21],  # 0
        [20, 21, 22, 23],  # 4
        [10, 11, 12, 20],  # 3
        [24, 30, 31, 10],  # 2
        [23, 24, 10, 11],  # 5
        [21, 22, 23, 24],  # 1
    ]
    assert len(rows) == 6


@pytest.mark.parametrize("seq_length", [1, 2, 3, 7, 16, 64])
@pytest.mark.parametrize("seed", [1234, 5])
def test_rows_are_slices_of_the_shuffled_stream(tmp_path: Path, seq_length: int, seed: int) -> None:
    """LONGER has empty documents, one-token ones and some longer than a row."""
    rows = rows_of(tmp_path, LONGER, seq_length, num_samples=40, seed=seed)
    epochs = reference_epochs(sum(map(len, LONGER)), 40, seq_length)
    random = np.random.RandomState(seed)
    documents = np.tile(np.arange(len(LONGER)), epochs)
    random.shuffle(documents)
    stream = [token for document in documents for token in LONGER[document]]
    samples = np.arange((len(stream) - 1) // seq_length)
    random.shuffle(samples)
    assert len(rows) == len(samples) >= 40
    expected = [stream[i * seq_length : (i + 1) * seq_length + 1] for i in samples]
    gathered = rows.gather(range(len(rows)))
    assert gathered.dtype == np.int64
    assert gathered.tolist() == expected
    assert rows.row(7).tolist() == expected[7]


def test_the_loader_takes_them(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, LONGER, 4, num_samples=24)
    for step in range(3):
        parts = [torch.tolist() for rank in (0, 1) for torch in StepLoader(rows, 8, 4, rank, 2).micro_batches(step)]
        assert [row for part in parts for row in part] == rows.gather(range(8 * step, 8 * step + 8)).tolist()


def test_a_row_beyond_the_order_is_refused(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, DOCUMENTS, 3, num_samples=4)
    for k in (-1, 6):
        with pytest.raises(UserError, match=rf"x: there is no row {k} in an order of 6 rows; train for fewer"):
            rows.row(k)


def test_impossible_requests_are_refused_and_nothing_cached(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="2 documents hold no tokens"):
        rows_of(tmp_path, [[], []], 3, num_samples=4)
    with pytest.raises(UserError, match="0 documents hold no tokens"):
        rows_of(tmp_path, [], 3, num_samples=4)
    with pytest.raises(UserError, match="both numbers must be positive"):
        rows_of(tmp_path, DOCUMENTS, 3, num_samples=0)
    with pytest.raises(UserError, match="both numbers must be positive"):
        rows_of(tmp_path, DOCUMENTS, 0, num_samples=4)
    assert not (tmp_path / "cache").exists()


def test_the_same_order_every_time_and_another_for_other_input(tmp_path: Path) -> None:
    def rows(name: str, documents: list[list[int]] = LONGER, samples: int = 15, seed: int = 1234) -> list[list[int]]:
        return rows_of(tmp_path / name, documents, 4, samples, seed).gather(range(10)).tolist()

    first = rows("a")
    assert rows("b") == first
    assert rows("c", samples=18) != first  # two epochs, mixed
    assert rows("d", samples=17) == first  # all that one epoch of 70 tokens holds
    assert rows("e", seed=1) != first
    assert rows("f", documents=LONGER[::-1]) != first


def test_the_fingerprint_tells_data_and_order_apart(tmp_path: Path) -> None:
    def fingerprint(name: str, **changes: object) -> str:
        settings = {"documents": LONGER, "seq_length": 4, "num_samples": 15, "seed": 1234, **changes}
        return json.dumps(rows_of(tmp_path / name, **settings).fingerprint())

    first = fingerprint("a")
    assert fingerprint("b") == first
    assert json.loads(first)["tokens"] == 70
    changed = [[*LONGER[0][:-1], 9], *LONGER[1:]]
    moved = [LONGER[0] + LONGER[2], [], *LONGER[3:]]  # the same tokens in all, other borders
    others = [
        fingerprint("c", documents=changed),
        fingerprint("d", documents=moved),
        fingerprint("e", seq_length=3),
        fingerprint("f", num_samples=40),
        fingerprint("g", seed=1),
    ]
    assert len({first, *others}) == 6


def only_order(folder: Path) -> Path:
    (order,) = (folder / "cache" / "orders").iterdir()
    return order


def test_the_cache_is_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = rows_of(tmp_path, LONGER, 4, num_samples=15)
    assert {path.name for path in only_order(tmp_path).iterdir()} == {
        "doc_idx.npy",
        "sample_idx.npy",
        "shuffle_idx.npy",
        "order.json",
    }
    monkeypatch.setattr(document_order, "build_order", None)  # whoever builds fails
    again = rows_of(tmp_path, LONGER, 4, num_samples=16)
    assert again.gather(range(15)).tolist() == first.gather(range(15)).tolist()
    with pytest.raises(TypeError):
        rows_of(tmp_path, LONGER, 4, num_samples=15, seed=1)


@pytest.mark.parametrize(
    "change",
    [{"documents": LONGER[::-1]}, {"seq_length": 3}, {"num_samples": 18}, {"seed": 1}, {"documents": LONGER[:9]}],
)
def test_a_cache_keeps_different_orders_apart(tmp_path: Path, change: dict[str, object]) -> None:
    request = {"documents": LONGER, "seq_length": 4, "num_samples": 15, "seed": 1234}
    first = rows_of(tmp_path, **request)  # type: ignore[arg-type]
    other = rows_of(tmp_path, **{**request, **change})  # type: ignore[arg-type]
    alone = rows_of(tmp_path / "alone", **{**request, **change})  # type: ignore[arg-type]
    assert len(list((tmp_path / "cache" / "orders").iterdir())) == 2
    assert other.gather(range(4)).tolist() == alone.gather(range(4)).tolist() != first.gather(range(4)).tolist()


@pytest.mark.parametrize("name", ["doc_idx.npy", "sample_idx.npy", "shuffle_idx.npy", "order.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "remove"])
def test_a_damaged_cache_is_built_anew(tmp_path: Path, name: str, damage: str) -> None:
    first = rows_of(tmp_path, LONGER, 4, num_samples=15).gather(range(15)).tolist()
    path = only_order(tmp_path) / name
    raw = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        flipped = bytes([raw[-3] ^ 1])
        path.write_bytes({"flip": raw[:-3] + flipped + raw[-2:], "truncate": raw[:-2], "empty": b""}[damage])
    assert rows_of(tmp_path, LONGER, 4, num_samples=15).gather(range(15)).tolist() == first
    assert path.read_bytes() == raw
    assert len(list(only_order(tmp_path).iterdir())) == 4


def test_a_cache_of_other_input_is_not_believed(tmp_path: Path) -> None:
    """Even under the right name: order.json says what it was built from."""
    first = rows_of(tmp_path, LONGER, 4, num_samples=15)
    path = only_order(tmp_path)
    rows_of(tmp_path / "other", LONGER, 4, num_samples=15, seed=1)
    shutil.rmtree(path)
    shutil.copytree(only_order(tmp_path / "other"), path)
    again = rows_of(tmp_path, LONGER, 4, num_samples=15)
    assert again.order.doc_idx.tolist() == build_order(first.file.sizes, 1, 4).doc_idx.tolist()


def test_a_build_stopped_at_any_rename_is_finished_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = rows_of(tmp_path / "whole", LONGER, 4, num_samples=15).gather(range(15)).tolist()
    rename = Path.replace
    for stop in range(4):
        done: list[Path] = []

        def stop_there(self: Path, target: Path, stop: int = stop, done: list[Path] = done) -> Path:
            if target.parent.parent.name == "orders":
                if len(done) == stop:
                    raise KeyboardInterrupt
                done.append(target)
            return rename(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", stop_there)
            with pytest.raises(KeyboardInterrupt):
                rows_of(tmp_path / str(stop), LONGER, 4, num_samples=15)
        assert sorted(path.name for path in only_order(tmp_path / str(stop)).iterdir()) == sorted(p.name for p in done)
        assert rows_of(tmp_path / str(stop), LONGER, 4, num_samples=15).gather(range(15)).tolist() == expected

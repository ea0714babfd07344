from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from l2e.data.shards import PileShards
from l2e.errors import UserError


def name(index: int, last: int) -> str:
    return f"document-{index:05d}-of-{last:05d}.bin"


def write_shards(folder: Path, rows: int = 500, row_length: int = 7, per_file: int = 1000) -> npt.NDArray[np.uint16]:
    """Files of `per_file` tokens, the last one shorter; the rows they hold, [rows, row_length]."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = np.random.default_rng(0).integers(0, 1 << 16, rows * row_length).astype("<u2")
    starts = range(0, len(tokens), per_file)
    for index, start in enumerate(starts):
        tokens[start : start + per_file].tofile(folder / name(index, len(starts) - 1))
    return tokens.reshape(rows, row_length)


def write_idx(path: Path, lengths: npt.ArrayLike, kind: int = 8) -> None:
    sizes = np.asarray(lengths, "<i4")
    header = b"MMIDIDX\x00\x00" + (1).to_bytes(8, "little") + bytes([kind])
    counts = len(sizes).to_bytes(8, "little") + (len(sizes) + 1).to_bytes(8, "little")
    path.write_bytes(header + counts + sizes.tobytes() + bytes(8 * (2 * len(sizes) + 1)))


def test_all_rows_equal_the_concatenation(tmp_path: Path) -> None:
    expected = write_shards(tmp_path)  # 3500 tokens in files of 1000: each border lies within a row
    shards = PileShards(tmp_path, row_length=7)
    assert len(shards) == 500
    assert shards[3].dtype == np.uint16
    assert [row.tolist() for row in shards] == expected.tolist()
    assert shards.gather(range(500)).tolist() == expected.tolist()


@pytest.mark.parametrize(
    "rows",
    [
        [],
        range(0),
        [499, 0, 1, 2, 142, 143, 142, 285, 286, 5],
        range(10, 400, 7),
        range(400, 10, -3),
        np.arange(99, 300),
    ],
)
def test_rows_come_in_the_order_asked_for(tmp_path: Path, rows: list[int]) -> None:
    expected = write_shards(tmp_path)
    gathered = PileShards(tmp_path, row_length=7).gather(rows)
    assert gathered.shape == (len(rows), 7)
    assert gathered.tolist() == expected[np.asarray(rows, int)].tolist()


@given(row_length=st.integers(1, 40), rows=st.integers(1, 60), per_file=st.integers(1, 300), data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_sizes_and_row(
    tmp_path_factory: pytest.TempPathFactory, row_length: int, rows: int, per_file: int, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    per_file = max(per_file, rows * row_length // 50)  # no more than some 50 files
    expected = write_shards(folder, rows, row_length, per_file)
    shards = PileShards(folder, row_length)
    row = data.draw(st.integers(0, rows - 1))
    stop = data.draw(st.integers(row, rows))
    assert len(shards) == rows
    assert shards[row].tolist() == expected[row].tolist()
    assert shards.gather(range(row, stop)).tolist() == expected[row:stop].tolist()


@pytest.mark.parametrize("row", [-1, 500])
def test_rows_that_are_not_there(tmp_path: Path, row: int) -> None:
    write_shards(tmp_path)
    shards = PileShards(tmp_path, row_length=7)
    with pytest.raises(IndexError, match=f"row {row} of 500"):
        shards[row]
    with pytest.raises(IndexError, match=f"row {row} of 500"):
        shards.gather([5, row, 6])


def test_a_row_is_the_callers_own(tmp_path: Path) -> None:
    expected = write_shards(tmp_path)
    shards = PileShards(tmp_path, row_length=7)
    shards[0][:] = 0
    assert shards[0].tolist() == expected[0].tolist()


def test_missing_bytes_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shards(tmp_path)
    shards = PileShards(tmp_path, row_length=7)
    whole = shards._files.part
    monkeypatch.setattr(shards._files, "part", lambda file, start, stop: whole(file, start, min(stop, 1500)))
    assert len(shards.gather(range(100))) == 100
    with pytest.raises(RuntimeError, match="no byte 1500 in file 0"):
        shards.gather(range(120))


def test_a_missing_file(tmp_path: Path) -> None:
    write_shards(tmp_path)
    (tmp_path / name(2, 3)).unlink()
    with pytest.raises(UserError, match=r"document-00002-of-00003\.bin: missing.*4 files are expected and 3 are here"):
        PileShards(tmp_path, row_length=7)


def test_the_number_after_of_is_the_last_index(tmp_path: Path) -> None:
    write_shards(tmp_path)
    for index in range(4):  # as if it were the count
        (tmp_path / name(index, 3)).rename(tmp_path / name(index, 4))
    with pytest.raises(UserError, match=r"document-00004-of-00004\.bin: missing; the number after 'of' is the last"):
        PileShards(tmp_path, row_length=7)


def test_a_file_too_many(tmp_path: Path) -> None:
    write_shards(tmp_path)
    (tmp_path / name(4, 3)).write_bytes(bytes(10))
    with pytest.raises(UserError, match=r"document-00004-of-00003\.bin: one file too many"):
        PileShards(tmp_path, row_length=7)


def test_files_of_two_sets(tmp_path: Path) -> None:
    write_shards(tmp_path)
    (tmp_path / name(0, 20)).write_bytes(bytes(10))
    with pytest.raises(UserError, match="files of several sets"):
        PileShards(tmp_path, row_length=7)


@pytest.mark.parametrize(
    ("index", "size", "message"),
    [
        (1, 1998, "document-00001-of-00003.bin: 1998 bytes, expected exactly the 2000 of document-00000"),
        (1, 2002, "document-00001-of-00003.bin: 2002 bytes, expected exactly the 2000"),
        (3, 2002, "document-00003-of-00003.bin: 2002 bytes, expected at most the 2000"),
        (2, 1999, "document-00002-of-00003.bin: 1999 bytes are not whole tokens"),
        (3, 999, "document-00003-of-00003.bin: 999 bytes are not whole tokens"),
        (0, 0, "document-00000-of-00003.bin: 0 bytes are not whole tokens"),
        (3, 998, "document-00003-of-00003.bin: the files together hold 499 rows of 14 bytes and 12 bytes more"),
    ],
)
def test_a_file_of_the_wrong_size(tmp_path: Path, index: int, size: int, message: str) -> None:
    write_shards(tmp_path)
    path = tmp_path / name(index, 3)
    path.write_bytes((path.read_bytes() + bytes(2000))[:size])
    with pytest.raises(UserError) as caught:
        PileShards(tmp_path, row_length=7)
    assert str(tmp_path) in str(caught.value)
    assert message in str(caught.value)


def test_no_folder_and_no_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a folder"):
        PileShards(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no files named like document-00000-of-00020\.bin"):
        PileShards(tmp_path)


def test_the_document_level_set_is_recognised_by_its_names(tmp_path: Path) -> None:
    (tmp_path / "pile_0.87_deduped_text_document-00000-of-00082.bin").write_bytes(bytes(28))
    with pytest.raises(UserError, match=r"document-00000-of-00082\.bin: this is a document-level set.*preshuffled"):
        PileShards(tmp_path, row_length=7)


def test_the_document_level_set_is_recognised_by_its_idx(tmp_path: Path) -> None:
    write_shards(tmp_path)
    write_idx(tmp_path / "document.idx", [7] * 499 + [3, 4])
    with pytest.raises(UserError, match=r"document\.idx: sequences that are not rows of 7.*document-level"):
        PileShards(tmp_path, row_length=7)


def test_an_idx_that_agrees_and_ones_that_do_not(tmp_path: Path) -> None:
    expected = write_shards(tmp_path)
    write_idx(tmp_path / "document.idx", [7] * 500)
    assert PileShards(tmp_path, row_length=7)[499].tolist() == expected[499].tolist()
    write_idx(tmp_path / "document.idx", [7] * 501)
    with pytest.raises(UserError, match=r"501 rows of 7 tokens, while the \.bin files hold 7000 bytes"):
        PileShards(tmp_path, row_length=7)
    write_idx(tmp_path / "document.idx", [14] * 250)
    with pytest.raises(UserError, match="rows of 14 tokens, expected 7; correct the row length"):
        PileShards(tmp_path, row_length=7)
    write_idx(tmp_path / "document.idx", [7] * 500, kind=4)
    with pytest.raises(UserError, match="tokens of type 4"):
        PileShards(tmp_path, row_length=7)


def test_the_fingerprint_tells_data_and_row_length_apart(tmp_path: Path) -> None:
    expected = write_shards(tmp_path / "a")
    write_shards(tmp_path / "b", per_file=900)  # the same rows, cut otherwise
    first = PileShards(tmp_path / "a", row_length=7).fingerprint()
    assert first == PileShards(tmp_path / "b", row_length=7).fingerprint()
    assert (first["kind"], first["bytes"], first["row_length"]) == ("pile_preshuffled", expected.nbytes, 7)
    assert first != PileShards(tmp_path / "a", row_length=14).fingerprint()
    path = tmp_path / "b" / name(3, 3)
    path.write_bytes(path.read_bytes()[:-2] + b"ab")
    assert first["sha256_of_ends"] != PileShards(tmp_path / "b", row_length=7).fingerprint()["sha256_of_ends"]


def test_prefetch_of_local_files_does_nothing(tmp_path: Path) -> None:
    write_shards(tmp_path)
    PileShards(tmp_path, row_length=7).prefetch(range(500))

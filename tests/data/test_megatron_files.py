import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2e.data import megatron_files
from l2e.data.megatron_files import MegatronFile, write_megatron
from l2e.errors import UserError

DOCUMENTS = [[5, 6, 7], [50_276, 0, 1, 65_535, 2], [], [8, 9]]


def write(folder: Path) -> Path:
    """PREFIX of the four documents above as uint16; its name has a dot, as Pile's own does."""
    prefix = folder / "pile_0.87_text"
    write_megatron(prefix, DOCUMENTS, "uint16")
    return prefix


def put(path: Path, offset: int, content: bytes) -> None:
    raw = bytearray(path.read_bytes())
    raw[offset : offset + len(content)] = content
    path.write_bytes(raw)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("ending", ["", ".idx", ".bin"])
def test_what_was_written_is_read(tmp_path: Path, ending: str) -> None:
    prefix = write(tmp_path)
    file = MegatronFile(f"{prefix}{ending}")
    assert [file[i].tolist() for i in range(len(file))] == DOCUMENTS
    assert file.sizes.tolist() == [3, 5, 0, 2]
    assert file.pointers.tolist() == [0, 6, 16, 16]
    assert file.doc_idx.tolist() == [0, 1, 2, 3, 4]
    assert file.dtype == np.uint16
    assert not file[1].flags.writeable
    assert np.shares_memory(file[1], file.tokens)
    for index in (-1, 4):
        with pytest.raises(IndexError):
            file[index]
    assert names(tmp_path) == {"pile_0.87_text.idx", "pile_0.87_text.bin"}


def test_the_bytes_are_those_of_the_table(tmp_path: Path) -> None:
    """Offsets and types of pythia.md D.5."""
    prefix = write(tmp_path)
    raw = Path(f"{prefix}.idx").read_bytes()
    assert raw[:9] == b"MMIDIDX\x00\x00"
    assert struct.unpack_from("<Q", raw, 9) == (1,)
    assert raw[17] == 8
    n, d = struct.unpack_from("<QQ", raw, 18)
    assert (n, d) == (4, 5)
    assert struct.unpack_from(f"<{n}i", raw, 34) == (3, 5, 0, 2)
    assert struct.unpack_from(f"<{n}q", raw, 34 + 4 * n) == (0, 6, 16, 16)
    assert struct.unpack_from(f"<{d}q", raw, 34 + 12 * n) == (0, 1, 2, 3, 4)
    assert len(raw) == 34 + 12 * n + 8 * d
    assert Path(f"{prefix}.bin").read_bytes() == struct.pack("<10H", *(t for doc in DOCUMENTS for t in doc))


def test_a_file_put_together_by_hand_is_read(tmp_path: Path) -> None:
    """Two sequences make one document, and the pointers go backwards: both are allowed by the format."""
    header = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 4, 2, 2)
    (tmp_path / "x.idx").write_bytes(header + struct.pack("<2i2q2q", 2, 1, 4, 0, 0, 2))
    (tmp_path / "x.bin").write_bytes(struct.pack("<3i", 70_000, 1, 2))
    file = MegatronFile(tmp_path / "x")
    assert [file[0].tolist(), file[1].tolist()] == [[1, 2], [70_000]]
    assert file.doc_idx.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("dtype", "code"), [("uint8", 1), ("int8", 2), ("int16", 3), ("int32", 4), ("int64", 5), ("uint16", 8)]
)
def test_each_type_has_its_code(tmp_path: Path, dtype: str, code: int) -> None:
    limits = np.iinfo(dtype)
    file = write_megatron(tmp_path / "x", [[limits.min, limits.max]], dtype)
    assert (tmp_path / "x.idx").read_bytes()[17] == code
    assert file[0].tolist() == [limits.min, limits.max]


@settings(max_examples=50, deadline=None)
@given(documents=st.lists(st.lists(st.integers(0, 65_535), max_size=5), max_size=12), at_once=st.integers(1, 5))
def test_any_documents_come_back(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]], at_once: int
) -> None:
    prefix = tmp_path_factory.mktemp("any") / "x"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(megatron_files, "_AT_ONCE", at_once)
        file = write_megatron(prefix, documents, "uint16")
    assert [file[i].tolist() for i in range(len(file))] == documents
    assert file.pointers.tolist() == [2 * sum(map(len, documents[:i])) for i in range(len(documents))]
    assert file.doc_idx.tolist() == list(range(len(documents) + 1))


def test_documents_are_taken_one_at_a_time(tmp_path: Path) -> None:
    def documents() -> Iterator[list[int]]:
        for i in range(3):
            assert not list(tmp_path.glob("x.*"))  # nothing under the final names while writing
            yield [i] * i

    assert write_megatron(tmp_path / "x", documents(), "uint16").sizes.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("documents", "dtype", "message"),
    [
        ([[1], [65_536]], "uint16", "document 1: tokens from 65536 to 65536 do not fit uint16; write int32"),
        ([[-1]], "uint16", "document 0: tokens from -1 to -1 do not fit"),
        ([[1], [0.5]], "uint16", "document 1: its tokens are float64, not integers"),
        ([[[1, 2]]], "uint16", r"document 0: its tokens have shape \(1, 2\)"),
        ([[1]], "uint32", "cannot hold tokens of type uint32; choose from"),
        ([[1]], "float32", "cannot hold tokens of type float32"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(
    tmp_path: Path, documents: list[list[int]], dtype: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        write_megatron(tmp_path / "x", documents, dtype)
    assert not names(tmp_path)


def test_a_failed_writer_keeps_the_older_files(tmp_path: Path) -> None:
    prefix = write(tmp_path)
    with pytest.raises(UserError):
        write_megatron(prefix, [[1], [70_000]], "uint16")
    assert [document.tolist() for document in MegatronFile(prefix)] == DOCUMENTS
    assert write_megatron(prefix, [[4]], "uint16")[0].tolist() == [4]
    assert names(tmp_path) == {"pile_0.87_text.idx", "pile_0.87_text.bin"}


def test_a_writer_stopped_between_its_renames_leaves_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old index beside new tokens would read as rubbish."""
    prefix = write(tmp_path)
    rename = Path.replace

    def stop_at_index(self: Path, target: Path) -> Path:
        if target.suffix == ".idx":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", stop_at_index)
    with pytest.raises(KeyboardInterrupt):
        write_megatron(prefix, [[1]], "uint16")
    assert names(tmp_path) == {"pile_0.87_text.bin"}
    with pytest.raises(UserError, match=r"has no pile_0\.87_text\.idx beside it"):
        MegatronFile(prefix)


def test_a_killed_writer_leaves_no_file_under_the_final_name(tmp_path: Path) -> None:
    script = """
import sys
from l2e.data.megatron_files import write_megatron
def documents():
    while True:
        yield range(60_000)
write_megatron(sys.argv[1], documents(), "uint16")
"""
    (tmp_path / "out").mkdir()
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "out" / "x")])
    try:
        while not any(file.stat().st_size for file in tmp_path.glob("out/.x-*/bin")):  # it is writing
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not list(tmp_path.glob("out/x*"))
    assert write_megatron(tmp_path / "out" / "x", [[1]], "uint16")[0].tolist() == [1]


@pytest.mark.parametrize(
    ("offset", "content", "message"),
    [
        (0, b"MMIDIDY", r"x\.idx: not a Megatron index, it begins with b'MMIDIDY"),
        (0, b"TNTIDX\x00\x00", r"x\.idx: Megatron's older format"),
        (9, struct.pack("<Q", 2), r"x\.idx: version 2 of the Megatron index; only version 1"),
        (17, b"\x09", r"x\.idx: its tokens have type code 9; token files have one of: 1 uint8,"),
        (17, b"\x06", r"x\.idx: its tokens have type code 6"),
        (17, b"\x00", r"x\.idx: its tokens have type code 0"),
        (18, struct.pack("<Q", 5), r"x\.idx: 122 bytes, but 5 sequences and 5 document borders take 134"),
        (18, struct.pack("<Q", 2**63), r"x\.idx: 122 bytes, but 9223372036854775808 sequences"),
        (26, struct.pack("<Q", 4), r"x\.idx: 122 bytes, but 4 sequences and 4 document borders take 114"),
        (34 + 4, struct.pack("<i", -1), r"x\.idx: sequence 1 \(-1 tokens from byte 6\) lies outside the 20 bytes of"),
        (34 + 12, struct.pack("<i", 3), r"x\.idx: sequence 3 \(3 tokens from byte 16\) lies outside .*x\.bin; "),
        (34 + 4, struct.pack("<i", 2**31 - 1), r"sequence 1 \(2147483647 tokens from byte 6\) lies outside"),
        (50 + 8, struct.pack("<q", 2**63 - 1), r"sequence 1 \(5 tokens from byte 9223372036854775807\) lies outside"),
        (50 + 8, struct.pack("<q", -2), r"sequence 1 \(5 tokens from byte -2\) lies outside"),
        (50 + 8, struct.pack("<q", 5), r"sequence 1 \(5 tokens from byte 5\) does not start at a whole token"),
        (82 + 8, struct.pack("<q", 3), r"x\.idx: its document borders do not rise from 0 to its 4 sequences"),
        (82 + 32, struct.pack("<q", 5), r"x\.idx: its document borders do not rise"),
        (82, struct.pack("<q", -1), r"x\.idx: its document borders do not rise"),
    ],
)
def test_a_damaged_index_is_named(tmp_path: Path, offset: int, content: bytes, message: str) -> None:
    write_megatron(tmp_path / "x", DOCUMENTS, "uint16")
    put(tmp_path / "x.idx", offset, content)
    with pytest.raises(UserError, match=message):
        MegatronFile(tmp_path / "x")


@pytest.mark.parametrize("length", range(122))
def test_every_truncated_index_is_refused(tmp_path: Path, length: int) -> None:
    write_megatron(tmp_path / "x", DOCUMENTS, "uint16")
    os.truncate(tmp_path / "x.idx", length)
    with pytest.raises(UserError, match=r"x\.idx: (truncated|\d+ bytes, but)"):
        MegatronFile(tmp_path / "x")


@pytest.mark.parametrize("length", range(20))
def test_every_truncated_token_file_is_refused(tmp_path: Path, length: int) -> None:
    write_megatron(tmp_path / "x", DOCUMENTS, "uint16")
    os.truncate(tmp_path / "x.bin", length)
    with pytest.raises(UserError, match=r"x\.bin"):
        MegatronFile(tmp_path / "x")


def test_a_missing_half_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is neither .*x\.idx nor .*x\.bin"):
        MegatronFile(tmp_path / "x")
    prefix = write(tmp_path)
    Path(f"{prefix}.bin").rename(tmp_path / "tokens")
    with pytest.raises(UserError, match=r"text\.idx has no pile_0\.87_text\.bin beside it; .*shards such as"):
        MegatronFile(prefix)
    (tmp_path / "tokens").rename(f"{prefix}.bin")
    Path(f"{prefix}.idx").unlink()
    with pytest.raises(UserError, match=r"text\.bin has no pile_0\.87_text\.idx beside it"):
        MegatronFile(f"{prefix}.bin")

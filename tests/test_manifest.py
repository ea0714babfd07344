"""Manifests: every changed byte is found, and named."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from l2e.manifest import MANIFEST, DamagedError, verify, write_manifest


def folder_of(path: Path) -> Path:
    (path / "inner").mkdir(parents=True, exist_ok=True)
    (path / "a.bin").write_bytes(bytes(range(256)))
    (path / "inner" / "b.bin").write_bytes(b"x" * 1000)
    write_manifest(path, {"kind": "test", "step": 7, "config": {"lr": 1e-3}})
    return path


def test_a_whole_folder_is_accepted(tmp_path: Path) -> None:
    manifest = verify(folder_of(tmp_path))
    assert set(manifest["files"]) == {"a.bin", "inner/b.bin"}
    assert manifest["files"]["inner/b.bin"]["bytes"] == 1000
    assert manifest["config"] == {"lr": 1e-3}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["a.bin", "inner/b.bin", MANIFEST]), place=st.floats(0, 1), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found_by_name(tmp_path: Path, name: str, place: float, bit: int) -> None:
    path = folder_of(tmp_path) / name
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=name):
        verify(tmp_path)


def test_missing_and_longer_files_are_named(tmp_path: Path) -> None:
    (folder_of(tmp_path) / "a.bin").unlink()
    with pytest.raises(DamagedError, match=r"a\.bin is missing"):
        verify(tmp_path)
    (folder_of(tmp_path) / "a.bin").write_bytes(b"y" * 257)
    with pytest.raises(DamagedError, match=r"a\.bin has 257 bytes, expected 256"):
        verify(tmp_path)
    (folder_of(tmp_path) / MANIFEST).write_text("[]")
    with pytest.raises(DamagedError, match=r"manifest\.json is no manifest"):
        verify(tmp_path)

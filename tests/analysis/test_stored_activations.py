"""Activations on disk: found again, resumed after a kill, shared by ranks, refused when they are damaged."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plain_activations import plainly, random_features, small_model

from l2e.analysis import activation_files, models
from l2e.analysis.activation_files import ActivationFiles
from l2e.analysis.activation_settings import ActivationSettings
from l2e.analysis.activations import features_hash, share_of
from l2e.analysis.models import ModelSubject
from l2e.errors import UserError

SCRIPT = Path(__file__).with_name("activation_process.py")
FEATURES = random_features(160, 64, seed=5)
SETTINGS = ActivationSettings(memory_mib=2, batch_tokens=256)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    small_model().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    return plainly(small_model(), FEATURES, "hidden_post", "mean")


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each sequence that goes through a model."""
    seen: list[int] = []
    usual = ModelSubject.load

    def load(self: ModelSubject) -> Any:
        model: Any = usual(self)
        model.gpt_neox.register_forward_pre_hook(lambda _module, inputs: seen.extend([1] * len(inputs[0])))
        return model

    monkeypatch.setattr(models.ModelSubject, "load", load)
    return seen


def subject(folder: Path, store: Path, features: Any = FEATURES, **settings: Any) -> ModelSubject:
    return ModelSubject("small", folder, features, replace(SETTINGS, **settings), store, torch.device("cpu"))


def all_values(found: Any) -> np.ndarray:
    return np.stack([found.values(layer) for layer in range(found.layers)])


def test_collected_once_then_read(folder: Path, tmp_path: Path, expected: np.ndarray, loads: list[int]) -> None:
    first = subject(folder, tmp_path)
    assert first.parameters == sum(parameter.numel() for parameter in small_model().parameters())
    found = first.activations()
    assert first.activations() is found
    assert (found.layers, found.width) == (3, 512)
    np.testing.assert_allclose(all_values(found), expected, atol=1e-5)
    assert isinstance(found.values(0), np.memmap)
    assert found.values(0).dtype == np.float32
    assert len(loads) == 160
    again = subject(folder, tmp_path).activations()
    assert len(loads) == 160
    np.testing.assert_array_equal(all_values(again), all_values(found))
    with pytest.raises(IndexError, match="layer 3: there are 0 to 2"):
        found.values(3)
    (stored,) = tmp_path.iterdir()
    assert np.load(stored / "layer-01.npy").shape == (160, 512), "anybody's NumPy reads it"


@pytest.mark.parametrize(
    "change",
    [{"site": "hidden_pre"}, {"aggregation": "max"}, {"layers": 2}, {"precision": "bf16"}],
    ids=lambda change: next(iter(change)),
)
def test_what_decides_the_values_is_part_of_the_name(
    folder: Path, tmp_path: Path, change: dict, loads: list[int]
) -> None:
    before = subject(folder, tmp_path).activations()
    other = subject(folder, tmp_path, **change).activations()
    assert len(loads) == 320
    assert other.layers == change.get("layers", 3)
    same = all_values(before)[: other.layers].shape == all_values(other).shape and np.allclose(
        all_values(before)[: other.layers], all_values(other), atol=1e-6
    )
    assert same == ("layers" in change)


def test_other_sequences_and_other_weights_are_collected_anew(folder: Path, tmp_path: Path, loads: list[int]) -> None:
    subject(folder, tmp_path).activations()
    later = replace(FEATURES, starts=np.minimum(FEATURES.starts + 1, FEATURES.ends - 1))
    relabelled = replace(FEATURES, labels=1 - FEATURES.labels)
    assert features_hash(later) != features_hash(FEATURES) == features_hash(relabelled)
    subject(folder, tmp_path, relabelled).activations()
    assert len(loads) == 160
    subject(folder, tmp_path, later).activations()
    assert len(loads) == 320
    small_model(seed=2).save_pretrained(tmp_path / "other")
    other = subject(tmp_path / "other", tmp_path / "store").activations()
    assert not np.allclose(all_values(other), all_values(subject(folder, tmp_path).activations()))


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\x7f\x7f")


@pytest.mark.parametrize(
    "damage",
    [
        lambda stored: overwrite(stored / "layer-01.npy"),
        lambda stored: os.truncate(stored / "layer-02.npy", 9000),
        lambda stored: (stored / "layer-00.npy").unlink(),
        lambda stored: (stored / "manifest.json").write_text("{}"),
    ],
    ids=["bytes", "size", "missing", "manifest"],
)
def test_damaged_files_are_collected_anew(
    folder: Path, tmp_path: Path, damage: Callable[[Path], Any], loads: list[int], expected: np.ndarray
) -> None:
    subject(folder, tmp_path).activations()
    damage(next(tmp_path.iterdir()))
    again = subject(folder, tmp_path).activations()
    assert len(loads) == 320
    np.testing.assert_allclose(all_values(again), expected, atol=1e-5)


def interrupted(folder: Path, store: Path, monkeypatch: pytest.MonkeyPatch, writes: int) -> Path:
    """A collection that fails after some writes; its unfinished folder."""
    usual = ActivationFiles.write

    def write(self: ActivationFiles, rows: np.ndarray, values: np.ndarray) -> None:
        if len(list(self._done.iterdir())) == writes:
            raise OSError("no space")
        usual(self, rows, values)

    with monkeypatch.context() as patch:
        patch.setattr(ActivationFiles, "write", write)
        with pytest.raises(OSError, match="no space"):
            subject(folder, store).activations()
    (unfinished,) = store.iterdir()
    assert unfinished.suffix == ".part"
    return unfinished


@pytest.mark.parametrize("broken", [False, True], ids=["whole", "one part broken"])
def test_an_interrupted_collection_goes_on(
    folder: Path,
    tmp_path: Path,
    broken: bool,
    loads: list[int],
    expected: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unfinished = interrupted(folder, tmp_path, monkeypatch, 2)
    files = ActivationFiles(
        tmp_path / unfinished.stem, activation_files.json.loads((unfinished / "facts.json").read_text())
    )
    left = files.rows_left()
    assert 0 < len(left) < 160
    if broken:
        written = np.setdiff1d(np.arange(160), left)
        with (unfinished / "layer-01.npy").open("r+b") as file:
            file.seek(4096 + int(written[0]) * 2048 + 5)
            file.write(b"\x01")
    loads.clear()
    found = subject(folder, tmp_path).activations()
    np.testing.assert_allclose(all_values(found), expected, atol=1e-5)
    assert (len(loads) > len(left)) == broken
    assert len(loads) < 160
    assert [path.suffix for path in tmp_path.iterdir()] == [""]


def test_files_of_another_size_are_begun_anew(
    folder: Path, tmp_path: Path, loads: list[int], expected: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished = interrupted(folder, tmp_path, monkeypatch, 2)
    os.truncate(unfinished / "layer-02.npy", 5000)
    loads.clear()
    np.testing.assert_allclose(all_values(subject(folder, tmp_path).activations()), expected, atol=1e-5)
    assert len(loads) == 160


def start(folder: Path, store: Path, killed: str, ranks: int = 1) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable]
    if ranks > 1:
        launcher += ["-m", "torch.distributed.run", f"--nproc-per-node={ranks}", "--standalone"]
    command = [*launcher, str(SCRIPT), str(folder), str(store), killed]
    return subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)


@pytest.mark.slow
def test_killed_alone_finished_by_two_ranks(
    folder: Path, tmp_path: Path, expected: np.ndarray, loads: list[int]
) -> None:
    killed = start(folder, tmp_path, "3")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (unfinished,) = tmp_path.iterdir()
    assert len(list((unfinished / "done").glob("*.json"))) == 2
    finished = start(folder, tmp_path, "-", ranks=2)
    assert finished.returncode == 0, finished.stderr[-3000:]
    there, total = re.search(r"small: (\d+) of (\d+) sequences are there already", finished.stderr).groups()  # type: ignore[union-attr]
    assert int(total) == 160
    shares = [int(share) for share in re.findall(r"small on random: (\d+) sequences, ", finished.stderr)]
    assert len(shares) == 2
    assert sum(shares) == 160 - int(there)
    assert sorted(re.findall(r"rank (\d) sees \(160, 512\)", finished.stdout)) == ["0", "1"]
    np.testing.assert_allclose(all_values(subject(folder, tmp_path).activations()), expected, atol=1e-5)
    assert not loads, "this process found it complete"


def test_ranks_share_tokens_and_no_page() -> None:
    rng = np.random.default_rng(0)
    ends = rng.integers(10, 512, 5000)
    rows = np.sort(rng.choice(5000, 3000, replace=False))
    for ranks in (1, 2, 3, 7):
        shares = [share_of(rows, ends, 8, rank, ranks) for rank in range(ranks)]
        np.testing.assert_array_equal(np.sort(np.concatenate(shares)), rows)
        groups = [set((share // 8).tolist()) for share in shares]
        assert sum(map(len, groups)) == len(set().union(*groups))
        tokens = [ends[share].sum() for share in shares]
        assert max(tokens) - min(tokens) <= 4 * 8 * 512
    few = [share_of(np.array([3]), ends, 1, rank, 4) for rank in range(4)]
    assert sorted(map(len, few)) == [0, 0, 0, 1]


def test_groups_of_rows_fill_pages(tmp_path: Path) -> None:
    for width, rows in ((512, 2), (1024, 1), (128, 8), (2048, 1), (384, 8), (768, 4)):
        files = ActivationFiles(tmp_path / "x", {"sequences": 10, "layers": 1, "width": width})
        assert files.page_rows == rows
        assert files.page_rows * width * 4 % 4096 == 0


def test_a_disk_without_room_is_told(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = type("usage", (), {"free": 1000})
    monkeypatch.setattr(activation_files.shutil, "disk_usage", lambda path: full)
    with pytest.raises(UserError, match=r"cache_dir: the activations take 0\.0 GiB"):
        subject(folder, tmp_path).activations()

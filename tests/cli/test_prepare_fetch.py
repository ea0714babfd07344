"""Fetching rows and whole files over plain HTTP, in this process: plan, room, resume, verification."""

import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hub_imitation import Hub, serving
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from prepared_hub import LAST, LENGTH, PER_FILE, PILE, ROOT, ROWS, rows

from l2e.cli import offline, prepare
from l2e.cli.preparation.manifest import FetchedRows, Manifest
from l2e.data import PileDataConfig, PileShards, shards, whole_files
from l2e.data import rows as rows_module
from l2e.data.remote_file import RangeReader
from l2e.errors import UserError


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    root = tmp_path_factory.mktemp("hub")
    folder = root / "datasets" / PILE
    folder.mkdir(parents=True)
    stream = rows().reshape(-1)
    for index in range(LAST + 1):
        stream[index * PER_FILE : (index + 1) * PER_FILE].tofile(folder / f"document-{index:05d}-of-{LAST:05d}.bin")
    with serving(root) as hub:
        yield hub


@pytest.fixture(autouse=True)
def short_ends(monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    """The fingerprint covers 20 bytes at each end, so that it does not need all of this small set."""
    monkeypatch.setattr(shards, "END_BYTES", 20)
    monkeypatch.setattr(rows_module, "END_BYTES", 20)
    hub.bodies.clear()
    hub.stop_after = None


def location(hub: Hub) -> str:
    return f"{hub.url}/datasets/{PILE}/resolve/main"


def run(hub: Hub, folder: Path, *overrides: str) -> None:
    given = {
        "folder": folder,
        "+data.last_index": LAST,
        "data.path": location(hub),
        "data.row_length": LENGTH,
        "data.tokenizer": hub.root,  # a folder: nothing to fetch
        "seq_length": LENGTH - 1,
        "batch_size": 4,
        "steps": 2,
    }
    words = [f"{key}={value}" for key, value in given.items()]
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        tree = OmegaConf.to_container(compose("prepare", [*words, *overrides]), resolve=True)
    prepare.run(tree, [])  # type: ignore[arg-type]


def data(hub: Hub) -> PileDataConfig:
    return PileDataConfig(kind="pile", path=location(hub), row_length=LENGTH, last_index=LAST)


def blocks_by_hand(first: int, stop: int) -> set[int]:
    """Files that hold rows [first, stop), and the two at the ends; each file is one block."""
    return {first * LENGTH // PER_FILE, 0, LAST} | {token // PER_FILE for token in range(first * LENGTH, stop * LENGTH)}


def fetched(hub: Hub) -> list[int]:
    return sorted(int(path.partition("document-")[2][:5]) for path, *_ in hub.parts())


def test_only_the_rows_of_the_updates_are_fetched(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(hub, tmp_path / "folder", "fetch=rows", "step=3", "+data.cache_gib=0.1", "plan=true")
    assert not hub.parts()
    wanted = blocks_by_hand(12, 20)
    size = 2 * (PER_FILE * (len(wanted) - 1) + ROWS * LENGTH - LAST * PER_FILE)
    assert re.search(rf"rows 12 to 20 +{size} B +{size} B +{location(hub)}", capsys.readouterr().out)
    run(hub, tmp_path / "folder", "fetch=rows", "step=3")
    assert fetched(hub) == sorted(wanted)
    assert 1 < len(wanted) < LAST
    read = PileShards(location(hub), LENGTH, cache_dir=tmp_path / "folder", last_index=LAST, offline=True)
    np.testing.assert_array_equal(read.gather(range(12, 20)), rows()[12:20])
    read.fingerprint()
    with pytest.raises(UserError, match="not in the cache"):
        read.gather(range(24, 25))
    hub.bodies.clear()
    run(hub, tmp_path / "folder", "fetch=rows", "step=2")  # rows 8 to 16: the second half is here
    assert fetched(hub) == sorted(blocks_by_hand(8, 16) - wanted)
    (entry,) = Manifest(tmp_path / "folder").rows
    assert entry.rows == range(8, 20)


def test_the_rows_of_a_whole_run_are_looked_for_before_it_starts(hub: Hub, tmp_path: Path) -> None:
    run(hub, tmp_path, "fetch=rows", "step=3")
    assert offline.missing_rows(data(hub), range(12, 20), tmp_path) == []
    assert offline.missing_rows(data(hub), range(0, 0), tmp_path) == []
    lacking = len(blocks_by_hand(12, 28) - blocks_by_hand(12, 20))
    (said,) = offline.missing_rows(data(hub), range(12, 28), tmp_path)
    assert said == (
        f"the rows: of the {len(blocks_by_hand(12, 28))} blocks that hold rows 12 to 28, {tmp_path} lacks {lacking}"
    )
    hub.bodies.clear()
    (said,) = offline.missing_rows(data(hub), range(12, 28), tmp_path / "other")
    assert "nothing of it in" in said
    assert not hub.bodies


def test_too_little_room_is_refused_before_anything_is_fetched(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=10**6, used=10**6 - 700, free=700))
    with pytest.raises(UserError, match=r"folder: 2\.64 kB are to be fetched, the disk of .* has 700 B free"):
        run(hub, tmp_path / "folder", "fetch=rows", "steps=10")
    assert not hub.parts()
    run(hub, tmp_path / "folder", "fetch=rows", "steps=1")  # 3 files and the last: 480 bytes at most
    with pytest.raises(UserError, match=r"folder: 2\.\d+ kB are to be fetched"):  # what is here is not counted
        run(hub, tmp_path / "folder", "fetch=rows", "steps=10")


def test_a_cache_that_would_evict_what_was_fetched_is_refused(hub: Hub, tmp_path: Path) -> None:
    run(hub, tmp_path, "fetch=rows", "steps=5")
    before = len(hub.parts())
    with pytest.raises(UserError, match=r"data\.cache_gib: 1 updates take .* GiB with what .* holds"):
        run(hub, tmp_path, "fetch=rows", "step=9", "steps=1", f"+data.cache_gib={1200 / 2**30}")
    assert len(hub.parts()) == before


def test_a_full_disk_in_the_middle_is_an_error(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from l2e.data.block_cache import BlockCache

    def full(self: BlockCache, path: Path, stored: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(BlockCache, "_write", full)
    with pytest.raises(UserError, match="could not be kept there; is the disk full"):
        run(hub, tmp_path, "fetch=rows")
    assert not Manifest(tmp_path).rows


def test_whole_files_are_checked_and_found_by_a_run(hub: Hub, tmp_path: Path) -> None:
    run(hub, tmp_path, "fetch=shards")
    local = PileShards(tmp_path / "shards", LENGTH)
    np.testing.assert_array_equal(local.gather(range(ROWS)), rows())
    assert f"data.path={tmp_path}/shards" in (tmp_path / "overrides.txt").read_text().splitlines()
    hub.bodies.clear()
    damaged = tmp_path / "shards" / f"document-00004-of-{LAST:05d}.bin"
    damaged.write_bytes(bytes(len(damaged.read_bytes())))
    with pytest.raises(UserError, match=r"document-00004-of-00021\.bin: damaged"):
        run(hub, tmp_path, "verify=true")
    assert not hub.bodies
    run(hub, tmp_path, "fetch=shards", "verify=true")
    assert fetched(hub) == [4]
    np.testing.assert_array_equal(PileShards(tmp_path / "shards", LENGTH).gather(range(ROWS)), rows())


def test_a_whole_file_goes_on_where_it_broke_off(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_files, "_PIECE", 16)
    reader = RangeReader(retries=0)
    file = reader.describe(f"{location(hub)}/document-00002-of-{LAST:05d}.bin")
    assert file is not None
    content = (hub.root / "datasets" / PILE / f"document-00002-of-{LAST:05d}.bin").read_bytes()
    target, told = tmp_path / "file.bin", []
    target.write_bytes(b"what was here before")

    def stop(size: int) -> None:
        told.append(size)
        if len(told) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        whole_files.fetch_whole(reader, file, target, None, stop)
    assert target.read_bytes() == b"what was here before"
    assert whole_files.bytes_here(target, file) == 48
    hub.bodies.clear()
    told.clear()
    right = hashlib.sha256(content).hexdigest()
    assert whole_files.fetch_whole(reader, file, target, right, told.append) == right
    assert target.read_bytes() == content
    assert min(start for _, start, _ in hub.parts()) == 48
    assert sum(told) == len(content) - 48
    with pytest.raises(UserError, match=f"its sha256 is {right}, the server states {'0' * 64}"):
        whole_files.fetch_whole(reader, file, target, "0" * 64, told.append)
    assert target.read_bytes() == content
    assert not list(tmp_path.glob(".*.part"))


def test_the_hubs_tag_of_a_large_file_is_its_sha256(hub: Hub) -> None:
    file = RangeReader(retries=0).describe(f"{location(hub)}/document-00002-of-{LAST:05d}.bin")
    assert file is not None
    content = (hub.root / "datasets" / PILE / f"document-00002-of-{LAST:05d}.bin").read_bytes()
    assert whole_files.published_sha256(f"hf://datasets/{PILE}", file) == hashlib.sha256(content).hexdigest()
    assert whole_files.published_sha256(location(hub), file) is None  # elsewhere a tag may be anything


def test_ranges_of_rows_that_touch_become_one(tmp_path: Path) -> None:
    def part(start: int, stop: int, place: str = "hf://datasets/a/b") -> FetchedRows:
        return FetchedRows(location=place, row_length=9, last_index=3, start=start, stop=stop)

    manifest = Manifest(tmp_path)
    for new in (part(0, 4), part(8, 12), part(0, 4, "elsewhere"), part(20, 24)):
        manifest.add_rows(new)
    assert manifest.has_rows(part(9, 12))
    assert not manifest.has_rows(part(3, 9))
    manifest.add_rows(part(4, 8))
    found = sorted((entry.location, entry.start, entry.stop) for entry in Manifest(tmp_path).rows)
    assert found == [("elsewhere", 0, 4), ("hf://datasets/a/b", 0, 12), ("hf://datasets/a/b", 20, 24)]
    assert manifest.has_rows(part(3, 9))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "give one of show=rows, fetch=all"),
        (["show=rows", "fetch=all"], "give one of show=rows, fetch=all"),
        (["plan=true", "verify=true"], "plan=true needs fetch="),
        (["fetch=all", "offline=true"], "fetch needs the network that offline=true forbids"),
        (["fetch=[rows,shards]"], "rows or shards"),
        (["fetch=[rows,rows]"], "each part once"),
        (["fetch=everything"], "fetch"),
        (["fetch=rows", "step=10"], "rows up to 48 were asked for, there are 40"),
        (["verify=true"], "nothing was fetched into"),
    ],
)
def test_what_cannot_be_is_refused(hub: Hub, tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(hub, tmp_path / "folder", *overrides)
    assert not hub.parts()


def test_a_manifest_that_cannot_be_read_is_named(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"files": [')
    with pytest.raises(UserError, match=r"manifest\.json: cannot be read"):
        run(hub, tmp_path, "fetch=rows")

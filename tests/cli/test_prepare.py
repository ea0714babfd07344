"""scripts/prepare.py: the rows of an update, and what a run needs before it goes where there is no network."""

import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from l2e.data import PileDataConfig, PileShards, TextDataConfig, open_corpus
from l2e.data.builtin import WorldSettings, write_world
from l2e.data.megatron_files import write_megatron

ROOT = Path(__file__).parents[2]
ROWS, LENGTH = 40, 33


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepare")
    write_world(folder / "world", WorldSettings(documents=300, items=16, known_items=16))
    (folder / "shards").mkdir()
    stream = tokens()
    for index, start in enumerate(range(0, len(stream), 700)):
        name = f"document-{index:05d}-of-{(len(stream) - 1) // 700:05d}.bin"
        stream[start : start + 700].tofile(folder / "shards" / name)
    return folder


def tokens() -> np.ndarray:
    return (np.random.default_rng(0).integers(3, 700, ROWS * LENGTH)).astype("<u2")


def prepare(folder: Path, *overrides: str, expect: int = 0) -> str:
    settings = {
        "batch_size": 4,
        "seq_length": LENGTH - 1,
        "vocab_size": 768,
        "cache_dir": folder / "cache",
        "data.path": folder / "shards",
        "data.tokenizer": folder / "world" / "tokenizer",
        "data.row_length": LENGTH,
    }
    settings |= dict(override.split("=", 1) for override in overrides)
    if settings.get("data", "pile_deduped") != "pile_deduped":
        del settings["data.row_length"]
    if settings.get("data") == "builtin":
        del settings["data.path"], settings["data.tokenizer"]
    command = [sys.executable, ROOT / "scripts" / "prepare.py", *(f"{key}={value}" for key, value in settings.items())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_rows_of_an_update_are_shown(folder: Path) -> None:
    printed = prepare(folder, "show=rows", "step=7", "count=2")
    tokenizer = AutoTokenizer.from_pretrained(folder / "world" / "tokenizer")
    rows = tokens().reshape(ROWS, LENGTH)
    for row in (28, 29):
        assert f"--- update 7, row {row}, 33 tokens ---\n{tokenizer.decode(rows[row].tolist())}\n" in printed
    assert "row 30" not in printed


def test_what_is_not_there_is_refused(folder: Path) -> None:
    assert "rows up to 44 were asked for, there are 40" in prepare(folder, "show=rows", "step=10", expect=2)
    assert "give one of show=rows, fetch=all" in prepare(folder, expect=2)


class Counted(SimpleHTTPRequestHandler):
    """Files with range requests, as the hub serves them."""

    served = 0

    def do_GET(self) -> None:
        content = Path(self.translate_path(self.path)).read_bytes()
        first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
        part = content[int(first) : int(last) + 1]
        Counted.served += len(part)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.send_header("ETag", '"one"')
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *_: object) -> None:
        pass


def test_fetched_rows_are_there_without_the_server(folder: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Counted, directory=str(folder / "shards")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    location = f"http://127.0.0.1:{server.server_address[1]}"
    # The published set has 21 files; the default asks for as many.
    settings = PileDataConfig(
        kind="pile",
        path=location,
        row_length=LENGTH,
        tokenizer=str(folder / "world" / "tokenizer"),
        last_index=(ROWS * LENGTH - 1) // 700,
    )
    printed = prepare(
        folder, "fetch=rows", "steps=10", f"data.path={location}", f"data.last_index={settings.last_index}"
    )
    assert "rows 0 to 40" in printed
    assert Counted.served >= 2 * ROWS * LENGTH
    server.shutdown()
    server.server_close()
    corpus = open_corpus(settings, seq_length=LENGTH - 1, vocab_size=768, cache_dir=folder / "cache", offline=True)
    np.testing.assert_array_equal(corpus.train.gather(range(ROWS)), tokens().reshape(ROWS, LENGTH))
    assert corpus.fingerprint() == PileShards(folder / "shards", LENGTH).fingerprint()


def test_documents_in_megatrons_files_are_trained_in_gpt_neox_order(folder: Path) -> None:
    documents = [np.arange(start, start + 5, dtype=np.uint16) for start in range(0, 50, 5)]
    write_megatron(folder / "corpus", documents, "uint16")
    printed = prepare(
        folder,
        "data=documents",
        "show=rows",
        "seq_length=8",
        "count=4",
        f"data.path={folder / 'corpus'}",
        "data.samples=4",
    )
    # By hand: one epoch of 50 tokens holds 6 samples; the documents, then the samples, are shuffled.
    random = np.random.RandomState(1234)
    order = np.arange(10, dtype=np.int32)
    random.shuffle(order)
    stream = np.concatenate([documents[index] for index in order])
    samples = np.arange(6, dtype=np.uint32)
    random.shuffle(samples)
    tokenizer = AutoTokenizer.from_pretrained(folder / "world" / "tokenizer")
    for place, sample in enumerate(samples[:4]):
        text = tokenizer.decode(stream[8 * sample : 8 * sample + 9].tolist())
        assert f"--- update 0, row {place}, 9 tokens ---\n{text}\n" in printed


def test_rows_of_text_are_those_that_training_takes(folder: Path) -> None:
    world = [f"data.path={folder / 'world'}", "data.tokenizer=tokenizer", "data.validation=null"]
    printed = prepare(folder, "data=text", "show=rows", "step=3", "count=2", "seed=7", *world)
    data = TextDataConfig(kind="text", path=str(folder / "world"), validation=None, seed=7)
    corpus = open_corpus(data, seq_length=LENGTH - 1, vocab_size=768, cache_dir=folder / "other")
    for position, row in zip((12, 13), corpus.train.gather([12, 13]), strict=True):
        text = corpus.tokenizer.decode(row.tolist())
        assert f"--- update 3, row {position}, 33 tokens ---\n{text}\n" in printed


def test_rows_of_the_built_in_world_are_shown(folder: Path) -> None:
    small = ["data.world.documents=300", "data.world.items=16", "data.world.known_items=16"]
    printed = prepare(folder, "data=builtin", "show=rows", "step=1", "count=2", "offline=true", *small)
    assert printed.count(", 33 tokens ---") == 2
    assert "--- update 1, row 5, 33 tokens ---" in printed


def test_a_tokenizer_that_is_not_there_is_one_line(folder: Path) -> None:
    said = prepare(folder, "show=rows", "offline=true", "data.tokenizer=org/none", expect=2)
    assert said == (
        "error: data.tokenizer: org/none is no folder, and without network (offline=true) it must lie in the "
        "Hugging Face cache; give a folder, or fetch it: scripts/prepare.py fetch=tokenizer\n"
    )
    said = prepare(folder, "show=rows", f"data.tokenizer={folder / 'nowhere'}", expect=2)
    assert f"{folder / 'nowhere'} is no folder" in said
    assert said.count("\n") == 1

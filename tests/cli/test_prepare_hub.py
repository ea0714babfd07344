"""scripts/prepare.py fetches all from a hub, through the real libraries; the run then needs no network."""

import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hub_imitation import COMMIT, Hub, serving
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from prepared_hub import (
    LAST,
    LENGTH,
    PILE,
    ROOT,
    ROWS,
    SETTINGS,
    TOKENIZER,
    command,
    environment,
    fill,
    items,
    put_dataset,
    read_jsonl,
    rows,
    run,
    without_network,
)
from transformers import AutoTokenizer

from l2e.cli import pretrain
from l2e.cli.preparation.manifest import Manifest
from l2e.errors import UserError

STOPPED_AFTER = 9  # of 22 blocks


@dataclass(frozen=True)
class Prepared:
    """A folder that was fetched in two goes, and what the hub saw of both."""

    folder: Path
    first: list[tuple[str, int, int]]
    bodies: list[tuple[str, int, int]]
    plan: str
    printed: str

    @property
    def overrides(self) -> list[str]:
        return (self.folder / "overrides.txt").read_text().splitlines()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    root = tmp_path_factory.mktemp("hub")
    fill(root)
    with serving(root) as hub:
        yield hub


@pytest.fixture(scope="module")
def prepared(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Fetched, killed in the middle of the rows, and fetched again."""
    place = tmp_path_factory.mktemp("prepared")
    folder, env = place / "folder", environment(place / "home", hub.url)
    words = command("prepare", "fetch=all", f"folder={folder}", *SETTINGS)
    hub.stop_after = STOPPED_AFTER
    with (place / "printed").open("w") as out:
        killed = subprocess.Popen(words, env=env, stdout=out, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 300
    while len(list((folder / "blocks").glob("*.block"))) < STOPPED_AFTER and time.monotonic() < deadline:
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    first, hub.stop_after = list(hub.bodies), None
    printed = run(words, env)
    return Prepared(folder, first, list(hub.bodies), (place / "printed").read_text(), printed)


def test_the_plan_tells_the_bytes_and_where_they_come_from(hub: Hub, prepared: Prepared) -> None:
    """Also of a fetch that is killed: it is printed before anything is fetched."""
    lines = [line.split() for line in prepared.plan.splitlines()]
    sizes = {path.name: path.stat().st_size for path in (hub.root / "models" / TOKENIZER).glob("*.json")}
    assert sum(sizes.values()) > 1000
    size = f"{sum(sizes.values()) / 1000:.3g}"
    assert ["tokenizer", size, "kB", size, "kB", f"{TOKENIZER}@{COMMIT}"] in lines
    assert ["rows", "0", "to", "24", "2.64", "kB", "2.64", "kB", f"hf://datasets/{PILE}"] in lines
    parquet = sum(path.stat().st_size for path in (hub.root / "datasets/baber/piqa").rglob("*.parquet")) / 1000
    assert ["eval/piqa", f"{parquet:.3g}", "kB", f"{parquet:.3g}", "kB", f"baber/piqa@{COMMIT}"] in lines
    assert any(line[:1] == ["together"] for line in lines)


@pytest.mark.slow
def test_a_plan_alone_fetches_nothing(hub: Hub, tmp_path: Path) -> None:
    seen, folder = len(hub.bodies), tmp_path / "folder"
    words = command("prepare", "fetch=all", "plan=true", f"folder={folder}", *SETTINGS)
    assert "together" in run(words, environment(tmp_path / "home", hub.url))
    sent = [body for body in hub.bodies[seen:] if body[2] - body[1] > 1]
    assert {path.rpartition("/")[2] for path, *_ in sent} == {"README.md"}  # how a dataset lists its files
    assert not (folder / "manifest.json").exists()


def test_a_killed_fetch_goes_on_where_it_was(prepared: Prepared) -> None:
    def parts(bodies: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
        return [body for body in bodies if body[0].endswith(".bin") and body[2] - body[1] > 1]

    assert len(parts(prepared.first)) == STOPPED_AFTER
    assert len(parts(prepared.bodies)) == LAST + 1
    assert len(set(parts(prepared.bodies))) == LAST + 1  # none was asked for twice
    assert sum(stop - start for _, start, stop in parts(prepared.bodies)) == 2 * ROWS * LENGTH
    for name in ("tokenizer.json", "tokenizer_config.json", "ARC-Easy/test-00000-of-00001.parquet"):
        assert sum(path.endswith(name) for path, *_ in prepared.bodies) == 1
    assert not any("safetensors" in path for path, *_ in prepared.bodies)
    left = sum(stop - start for _, start, stop in parts(prepared.bodies[len(prepared.first) :]))
    assert re.search(rf"rows 0 to 24 +2\.64 kB +{left / 1000:.3g} kB ", prepared.printed)


def test_the_tokenizer_is_the_hubs(hub: Hub, prepared: Prepared) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        source = hub.root / "models" / TOKENIZER / name
        assert (prepared.folder / "tokenizer" / name).read_bytes() == source.read_bytes()


def test_the_items_are_the_hubs(prepared: Prepared) -> None:
    evaluation = prepared.folder / "eval"
    for task, subset in (("arc_easy", "ARC-Easy"), ("arc_challenge", "ARC-Challenge")):
        for split in ("train", "validation", "test"):
            assert read_jsonl(evaluation / task / f"{split}.jsonl") == items(subset, split)
    assert read_jsonl(evaluation / "sciq" / "test.jsonl") == items("sciq", "test")
    assert read_jsonl(evaluation / "piqa" / "validation.jsonl") == items("piqa", "validation")
    assert sorted(path.name for path in (evaluation / "piqa").iterdir()) == ["train.jsonl", "validation.jsonl"]


def pretrain_tree(overrides: list[str]) -> dict:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        given = [f"++{word}" if "." in word.partition("=")[0] else word for word in overrides]
        return OmegaConf.to_container(compose("pretrain", given), resolve=True)  # type: ignore[return-value]


def check(prepared: Prepared, tmp_path: Path, *changes: str) -> None:
    """What scripts/pretrain.py checks before it loads anything, with the overrides that were printed."""
    config = pretrain.build_settings(
        pretrain.PretrainConfig,
        pretrain_tree([*prepared.overrides, f"runs_dir={tmp_path / 'runs'}", "inhibition=none", *changes]),
    )
    pretrain.check(config, pretrain.RunFolder(config.runs_dir, config.name), {})


def test_a_run_with_the_printed_overrides_finds_all(prepared: Prepared, tmp_path: Path) -> None:
    assert " ".join(prepared.overrides) in prepared.printed
    assert "a run needs" not in prepared.printed
    check(prepared, tmp_path)


def test_all_that_is_missing_is_told_at_once(prepared: Prepared, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(prepared.folder, folder)
    sorted((folder / "blocks").glob("*.block"))[0].unlink()
    (folder / "eval" / "sciq" / "test.jsonl").unlink()
    moved = [f"cache_dir={folder}", "data.tokenizer=org/none", f"evaluation.data_dir={folder / 'eval'}"]
    with pytest.raises(UserError) as error:
        check(prepared, tmp_path, *moved)
    said = str(error.value)
    assert "the tokenizer: org/none is no folder, and not in" in said
    assert f"of the 22 blocks that hold rows 0 to 24, {folder} lacks 1\n" in said
    assert f"{folder}/eval/sciq/test.jsonl: no such file" in said
    assert f"fetch=[tokenizer,rows,evaluation] folder={folder}" in said
    check(prepared, tmp_path, *moved, "offline=false", "evaluation.enabled=false")  # with a network it may start
    with pytest.raises(UserError, match=r"the rows: .*nothing of it in") as error:
        check(prepared, tmp_path, f"cache_dir={tmp_path / 'elsewhere'}")
    assert "tokenizer" not in str(error.value).partition("fetch it where")[0]


def test_a_run_that_goes_on_needs_the_rows_that_come(prepared: Prepared, tmp_path: Path) -> None:
    name = "tiny-pile_deduped-none-seed1"
    changes = ["training.steps=8", "checkpoint.every=2"]
    check(prepared, tmp_path, *changes)  # all blocks are here, whatever update needs them
    folder = tmp_path / "folder"
    shutil.copytree(prepared.folder, folder)
    shutil.rmtree(folder / "blocks")
    (tmp_path / "runs" / name / "checkpoints" / "step6").mkdir(parents=True)
    (tmp_path / "runs" / name / "config.yaml").write_text("{}")
    config = pretrain.build_settings(
        pretrain.PretrainConfig, pretrain_tree([*prepared.overrides, f"cache_dir={folder}", *changes])
    )
    run_folder = pretrain.RunFolder(str(tmp_path / "runs"), name)
    with pytest.raises(UserError, match="blocks that hold rows 24 to 32,") as error:
        pretrain.require_all_here(config, pretrain._done(config, run_folder))
    assert " fetch=[rows] " in str(error.value)
    assert str(error.value).endswith(" step=6 steps=2 batch_size=4")
    (run_folder.exports / "step8").mkdir(parents=True)
    pretrain.require_all_here(config, pretrain._done(config, run_folder))  # trained: only to be evaluated


def test_verify_names_what_is_damaged_and_a_fetch_mends_it(hub: Hub, prepared: Prepared, tmp_path: Path) -> None:
    folder, env = tmp_path / "folder", environment(tmp_path / "home", hub.url)
    shutil.copytree(prepared.folder, folder)
    block = sorted((folder / "blocks").glob("*.block"))[3]
    block.write_bytes(block.read_bytes()[:-1] + b"!")
    test = folder / "eval" / "arc_easy" / "test.jsonl"
    test.write_bytes(test.read_bytes().replace(b"?", b"!", 1).replace(b"kesh", b"kosh", 1))
    (folder / "tokenizer" / "tokenizer_config.json").unlink()
    with pytest.raises(UserError) as error:
        verify_here(folder)
    said = str(error.value)
    assert "eval/arc_easy/test.jsonl: damaged" in said
    assert "tokenizer/tokenizer_config.json: missing" in said
    assert f"rows 0 to 24 of hf://datasets/{PILE}: 1 blocks missing or damaged" in said
    assert said.count("\n  - ") == 3
    seen = len(hub.bodies)
    run(command("prepare", "fetch=all", "verify=true", f"folder={folder}", *SETTINGS), env)
    sent = [body for body in hub.bodies[seen:] if body[2] - body[1] > 1 and not body[0].endswith(".md")]
    kinds = sorted({path.rpartition(".")[2] for path, *_ in sent})
    assert kinds == ["bin", "json", "parquet"]
    assert {path for path, *_ in sent if path.endswith(".json")} == {f"models/{TOKENIZER}/tokenizer_config.json"}
    assert all("ARC-Easy" in path for path, *_ in sent if path.endswith(".parquet"))
    assert sum(path.endswith(".bin") for path, *_ in sent) == 1
    assert test.read_bytes() == (prepared.folder / "eval" / "arc_easy" / "test.jsonl").read_bytes()


def verify_here(folder: Path) -> None:
    """`verify=true` in this process: it asks no server."""
    from l2e.cli import prepare

    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        tree = OmegaConf.to_container(compose("prepare", ["verify=true", f"folder={folder}"]), resolve=True)
    prepare.run(tree, [])  # type: ignore[arg-type]


def test_rows_are_shown_from_the_folder_without_network(prepared: Prepared, tmp_path: Path) -> None:
    env = without_network(environment(tmp_path / "home", None), tmp_path / "guard")
    given = [word for word in prepared.overrides if word.startswith(("data", "offline"))]
    shown = [f"folder={prepared.folder}", "show=rows", "step=5", "batch_size=4", f"seq_length={LENGTH - 1}", "count=1"]
    printed = run(command("prepare", *given, *shown), env)
    tokenizer = AutoTokenizer.from_pretrained(prepared.folder / "tokenizer")
    text = tokenizer.decode(rows()[20].tolist())
    assert f"--- update 5, row 20, 33 tokens ---\n{text}\n".replace("\r", "\n") in printed  # as pipes are read
    unknown = [*given, *shown, "data.tokenizer=org/none"]
    said = run(command("prepare", *unknown), env, expect=2)
    assert said.startswith("error: data.tokenizer: org/none is no folder")
    assert said.count("\n") == 1


def test_the_guard_refuses_a_connection(prepared: Prepared, hub: Hub, tmp_path: Path) -> None:
    """Otherwise the tests that pass under it would say nothing."""
    env = without_network(environment(tmp_path / "home", hub.url), tmp_path / "guard")
    words = command("prepare", "fetch=tokenizer", f"folder={tmp_path / 'folder'}", *SETTINGS)
    said = run(words, env, expect=2)
    assert "NETWORK TOUCHED" in said
    assert "check the name, the network" in said


@pytest.mark.slow
def test_a_whole_run_touches_no_network(prepared: Prepared, tmp_path: Path) -> None:
    env = without_network(environment(tmp_path / "home", None), tmp_path / "guard")
    given = [*prepared.overrides, "inhibition=none", "evaluation.limit=2", f"runs_dir={tmp_path / 'runs'}"]
    run(command("pretrain", *given), env)
    folder = tmp_path / "runs" / "tiny-pile_deduped-none-seed1"
    assert (folder / "eval" / "step6" / "summary.json").exists()
    found = [line for line in (folder / "metrics.jsonl").read_text().splitlines() if '"loss"' in line]
    assert len(found) == 6
    assert not (tmp_path / "home").exists()  # nor did it look for anything in a cache
    words = ["path=" + str(folder / "hf" / "step6"), f"output={tmp_path / 'again'}", "offline=true"]
    data = next(word for word in prepared.overrides if word.startswith("evaluation.data_dir="))
    run(command("evaluate", *words, data, "evaluation.limit=2"), env)
    said = run(command("evaluate", *words), env, expect=2)
    assert "evaluation" in said
    assert "sciq: allenai/sciq is not in" in said
    assert "fetch=[evaluation]" in said


@pytest.mark.slow
def test_the_command_in_the_message_fetches_what_is_missing(hub: Hub, tmp_path: Path) -> None:
    folder, env = tmp_path / "my folder", environment(tmp_path / "home", hub.url)
    given = ["data=pile_deduped", *SETTINGS[:4], f"training.seq_length={LENGTH - 1}", "training.steps=6"]
    given += ["training.batch_size=4", "inhibition=none", "evaluation=papers", "evaluation.num_fewshot=0"]
    given += ["evaluation.limit=2", "offline=true", f"runs_dir={tmp_path / 'runs'}", f"cache_dir='{folder}'"]
    said = run(command("pretrain", *given), env, expect=2)
    words = shlex.split(said.splitlines()[-1])
    assert words[:2] == ["python", "scripts/prepare.py"]
    # The shell takes the quotes that Hydra needs round a name with a space.
    words = [f"folder='{folder}'" if word.startswith("folder=") else word for word in words[2:]]
    run(command("prepare", *words), env)
    found = (folder / "overrides.txt").read_text().splitlines()
    quiet = without_network(environment(tmp_path / "home", None), tmp_path / "guard")
    run(command("pretrain", *given, *found), quiet)


@pytest.mark.slow
def test_any_task_of_lm_eval_goes_into_the_cache_in_the_folder(hub: Hub, tmp_path: Path) -> None:
    table = [
        {"ind": i, "activity_label": "a", "ctx_a": "He is.", "ctx_b": "he", "ctx": "He is. he", "label": str(i % 4)}
        | {"endings": ["runs.", "sits.", "eats.", "is."], "source_id": "s", "split": "s", "split_type": "s"}
        for i in range(8)
    ]
    put_dataset(hub.root, "Rowan/hellaswag", None, dict.fromkeys(("train", "validation", "test"), table))
    folder, env = tmp_path / "folder", environment(tmp_path / "home", hub.url)
    local = f"data.tokenizer={hub.root / 'models' / TOKENIZER}"
    tasks = ["evaluation.tasks=[hellaswag,piqa]", "evaluation.num_fewshot=0"]
    words = command("prepare", "fetch=all", f"folder={folder}", *SETTINGS, local, *tasks)
    printed = run(words, env)
    assert re.search(r"hf: hellaswag, piqa +unknown +unknown", printed)
    assert f"HF_HOME={folder}/hf python scripts/pretrain.py" in printed
    seen = len(hub.bodies)
    again = run([*words, "verify=true"], env)
    assert re.search(r"hf: hellaswag, piqa +\S+ kB +0 B ", again)
    assert not any(body[0].endswith(".parquet") for body in hub.bodies[seen:])
    quiet = without_network(environment(folder / "hf", None), tmp_path / "guard")
    given = (folder / "overrides.txt").read_text().splitlines()
    settings = [*given, "inhibition=none", "evaluation.limit=2", f"runs_dir={tmp_path / 'runs'}"]
    run(command("pretrain", *settings), quiet)
    assert '"hellaswag"' in next((tmp_path / "runs").glob("*/eval/step6/summary.json")).read_text()
    nowhere = without_network(environment(tmp_path / "elsewhere", None), tmp_path / "guard")
    said = run(command("pretrain", *settings, "name=other"), nowhere, expect=2)
    assert "hellaswag: its dataset is not in" in said
    assert "piqa: baber/piqa is not in" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["data.tokenizer=/no/where"], "data.tokenizer: /no/where is no folder that exists, and no name on the hub"),
        (["data.path=hf://datasets/org/none", "fetch=rows"], "document-00000-of-00021.bin"),
        (["evaluation.tasks=[sciq]", "fetch=evaluation"], "the hub did not give allenai/sciq, which sciq needs"),
    ],
)
def test_what_the_hub_does_not_have_is_named(hub: Hub, tmp_path: Path, changes: list[str], message: str) -> None:
    hidden = hub.root / "datasets" / "allenai" / "sciq"
    hidden.rename(hidden.with_name("hidden"))
    try:
        words = command("prepare", "fetch=tokenizer", f"folder={tmp_path / 'folder'}", *SETTINGS, *changes)
        said = run(words, environment(tmp_path / "home", hub.url), expect=2)
    finally:
        hidden.with_name("hidden").rename(hidden)
    assert message in said
    assert said.count("error: ") == 1


def test_rows_in_the_folder_are_the_hubs(prepared: Prepared) -> None:
    (entry,) = Manifest(prepared.folder).rows
    shards = entry.open(prepared.folder)
    np.testing.assert_array_equal(shards.gather(range(ROWS)), rows())

"""scripts/analyze.py: models and texts by name, kinds from the table, files and the page that collects them."""

import csv
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from l2e.analysis import activations
from l2e.cli.analysis_kinds import KINDS, Kind
from l2e.cli.analysis_models import fetch, find_models
from l2e.cli.entry import main
from l2e.data.builtin import WorldSettings
from l2e.data.corpus import world_folder
from l2e.errors import UserError
from l2e.models import build_pythia, export
from l2e.reporting.cells import Table
from l2e.reporting.drawing import new_figure, style
from l2e.reporting.pictures import finish

WORLD = {"documents": 200, "items": 20, "known_items": 16, "passages_per_label": 7}
WORLD_OVERRIDES = [f"features.builtin.world.{key}={value}" for key, value in WORLD.items()]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def run_folder(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two exports."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    tokenizer = AutoTokenizer.from_pretrained(world_folder(WorldSettings(**WORLD), cache) / "tokenizer")
    for step in (3, 20):
        model = build_pythia("tiny", seed=step)
        (folder / "hf").mkdir(parents=True, exist_ok=True)
        export(model, tokenizer, folder / "hf" / f"step{step}", {"step": step})
    (folder / "config.yaml").write_text("name: mine\n")
    return folder


@pytest.fixture
def analyse(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def call(*overrides: str, kind: str = "statistics") -> Path:
        places = [f"output={tmp_path / 'out'}", f"cache_dir={cache}"]
        monkeypatch.setattr(sys, "argv", ["analyze.py", f"analysis={kind}", *places, *overrides])
        main("analyze", "l2e.cli.analyze:run")
        return tmp_path / "out"

    return call


def refusal(analyse: Any, capsys: pytest.CaptureFixture[str], *overrides: str, kind: str = "statistics") -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        analyse(*overrides, kind=kind)
    printed = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2
    assert len(printed) == 1
    return printed[0]


@dataclass(kw_only=True)
class MineSettings:
    factor: float = 1.0


def register(monkeypatch: pytest.MonkeyPatch, draw: Any, **more: Any) -> None:
    monkeypatch.setitem(KINDS, "mine", Kind(MineSettings, draw, **more))


def picture(name: str, number: float) -> Any:
    with style():
        figure = new_figure(1.0)
        figure.add_subplot().plot([0, number])
        return finish(figure, name, f"Title of {name}", "A caption.", ["number"], [[number]])


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_statistics_of_two_sets(analyse: Any, tmp_path: Path, cache: Path) -> None:
    texts = [("one two", "a"), ("three", "b"), ("x" * 2000, "a"), ("", "b")]
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in texts))
    tokenizer_folder = world_folder(WorldSettings(**WORLD), cache) / "tokenizer"
    own = [f"features.own.{key}" for key in (f"path={path}", f"tokenizer={tokenizer_folder}", "window=32")]
    output = analyse(*WORLD_OVERRIDES, *own, "analysis.bins=4")
    world, mine = rows_of(output / "tables" / "statistics-feature-datasets.csv")
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    lengths = [min(len(tokenizer(text).input_ids), 31) for text, _ in texts]
    assert lengths[2] == 31
    assert mine == {
        "set": "own",
        "size": "3",
        "length": "32",
        "|L|": "2",
        "non-padding": str(sum(lengths)),
        "valid": str(sum(lengths)),
        "dropped": "1",
        "left out": "0",
    }
    assert (world["set"], world["size"], world["|L|"]) == ("builtin", "35", "5")
    labels = rows_of(output / "tables" / "statistics-labels-of-own.csv")
    assert [(row["label"], row["size"], row["dropped"]) for row in labels] == [("a", "2", "0"), ("b", "1", "1")]
    bars = [row for row in rows_of(output / "figures" / "statistics-valid-lengths.csv") if row["set"] == "own"]
    # Four bins of 128 positions, because the longest window is the other set's 512.
    counts = [(row["label"], float(row["to"]), int(row["sequences"])) for row in bars]
    assert [counts[0], counts[1], counts[4]] == [("a", 128.0, 2), ("a", 256.0, 0), ("b", 128.0, 1)]
    assert sum(count for _, _, count in counts) == 3
    page = (output / "index.html").read_text()
    assert "Valid positions" in page
    assert "Labels of own" in page
    assert "<svg" in page
    assert {path.suffix for path in (output / "figures").iterdir()} == {".png", ".svg", ".csv"}


def test_a_kind_is_given_models_texts_and_settings(
    analyse: Any, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def draw(request: Any) -> list[Any]:
        asked.append(request)
        return [picture("figure", request.settings.factor), Table("A table", "", ["model"], [["x"]]), "So it is."]

    register(monkeypatch, draw)
    models = f"models=[{run_folder},{run_folder}@3]"
    output = analyse(
        models, *WORLD_OVERRIDES, "analysis.kind=mine", "analysis.factor=2.5", "activations.site=hidden_pre"
    )
    (request,) = asked
    assert request.settings == MineSettings(factor=2.5)
    assert request.features.name == "builtin"
    assert request.runs == [run_folder, run_folder]
    last, third = request.subjects
    assert (last.name, third.name) == ("mine", "mine@3")
    tokens = torch.from_numpy(request.features.tokens.astype(np.int64))
    for subject, step in ((last, 20), (third, 3)):
        model = subject.load()
        assert not model.training
        exported = AutoModelForCausalLM.from_pretrained(run_folder / "hf" / f"step{step}")
        assert torch.equal(model.gpt_neox.embed_in.weight, exported.gpt_neox.embed_in.weight)
        assert subject.parameters == sum(parameter.numel() for parameter in exported.parameters())
        kept: list[torch.Tensor] = []
        model.gpt_neox.layers[1].mlp.dense_h_to_4h.register_forward_hook(lambda *seen, kept=kept: kept.append(seen[2]))
        with torch.no_grad():
            model(tokens)
        expected = [
            row[start:end].mean(0).numpy()
            for row, start, end in zip(kept[0], request.features.starts, request.features.ends, strict=True)
        ]
        np.testing.assert_allclose(subject.activations().values(1), expected, atol=1e-5)
    assert rows_of(output / "figures" / "mine-figure-builtin.csv") == [{"number": "2.5"}]
    assert (output / "tables" / "mine-a-table-builtin.csv").exists()
    page = (output / "index.html").read_text()
    for said in ("Title of figure", "Models: mine, mine@3. Texts: builtin.", "So it is.", "A table"):
        assert said in page


def test_activations_are_there_before_it_draws_and_kept(
    analyse: Any, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    usual = activations.collect
    monkeypatch.setattr(activations, "collect", lambda *given: (calls.append("collect"), usual(*given)))
    register(monkeypatch, lambda request: calls.append("draw") or [])
    for _ in range(2):
        analyse(f"models={run_folder}", *WORLD_OVERRIDES, "analysis.kind=mine", "activations.aggregation=max")
    assert calls == ["collect", "draw", "draw"]

    def all_together(request: Any) -> list[Any]:
        calls.append("all")
        sets = request.feature_sets
        assert request.subjects_on(sets[0])[0] is request.subjects_on(sets[0])[0]
        for features in sets:
            assert request.subjects_on(features)[0].activations().values(0).shape == (len(features.tokens), 512)
        return []

    register(monkeypatch, all_together, each=False)
    second = ["+features.second={kind: builtin, per_label: 3}"]
    second += [given.replace("builtin.world", "second.world") for given in WORLD_OVERRIDES]
    calls.clear()
    analyse(f"models={run_folder}", *WORLD_OVERRIDES, *second, "analysis.kind=mine", "activations.aggregation=max")
    assert calls == ["collect", "all"]


@pytest.mark.slow
def test_two_ranks_collect_and_one_draws(run_folder: Path, cache: Path, tmp_path: Path) -> None:
    common = ["analysis=statistics", "analysis.kind=mine", f"models={run_folder}", *WORLD_OVERRIDES]
    means = []
    for name, launcher in (("one", []), ("two", ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"])):
        places = [f"output={tmp_path / name}", f"cache_dir={tmp_path / name / 'cache'}"]
        (tmp_path / name / "cache").mkdir(parents=True)
        shutil.copytree(cache / "worlds", tmp_path / name / "cache" / "worlds")
        script = str(Path(__file__).with_name("analyze_process.py"))
        command = [sys.executable, *launcher, script, *common, *places]
        done = subprocess.run(command, capture_output=True, text=True, timeout=550, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        assert re.findall(r"drawn by rank \d: .*", done.stdout) == ["drawn by rank 0: 35 sequences"]
        means.append([float(row["mean"]) for row in rows_of(tmp_path / name / "tables" / "mine-means-builtin.csv")])
    np.testing.assert_allclose(means[0], means[1], atol=2e-6)


def test_once_for_each_set_or_once_for_all(analyse: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    second = ["+features.second={kind: builtin, per_label: 3}", *WORLD_OVERRIDES]
    second += [given.replace("builtin.world", "second.world") for given in WORLD_OVERRIDES]
    register(monkeypatch, lambda request: [picture("a", len(request.features.tokens))], needs="texts")
    output = analyse(*second, "analysis.kind=mine")
    assert rows_of(output / "figures" / "mine-a-builtin.csv") == [{"number": "35"}]
    assert rows_of(output / "figures" / "mine-a-second.csv") == [{"number": "15"}]
    page = (output / "index.html").read_text()
    assert len(re.findall("<figure>", page)) == 2
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    register(monkeypatch, lambda request: [picture("all", len(request.feature_sets))], needs="texts", each=False)
    analyse(*second, "analysis.kind=mine")
    assert rows_of(output / "figures" / "mine-all.csv") == [{"number": "2"}]
    assert len(re.findall("<figure>", (output / "index.html").read_text())) == 3
    register(monkeypatch, lambda request: [picture("b", 1)], needs="texts")
    analyse(*second, "analysis.kind=mine")
    page = (output / "index.html").read_text()
    assert "Title of b" in page
    assert "Title of a." not in page, "a repeated analysis replaces what it gave before"


def test_kinds_that_need_no_models_or_only_runs(
    analyse: Any, run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    register(monkeypatch, lambda request: [picture("toy", 1)], needs="nothing")
    assert (analyse("analysis.kind=mine") / "figures" / "mine-toy.csv").exists()
    seen: list[Path] = []
    register(monkeypatch, lambda request: seen.extend(request.runs) or [], needs="runs")
    analyse(f"models={run_folder}", "analysis.kind=mine")
    assert seen == [run_folder]
    told = refusal(analyse, capsys, f"models={run_folder / 'hf' / 'step3'}", "analysis.kind=mine")
    assert "models: analysis=mine reads run directories, and" in told


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["analysis.binz=3"], "analysis.binz: unknown setting (did you mean bins?)"),
        (["analysis.bins=0"], "analysis: bins must be at least 1, not 0"),
        (["analysis.kind=nothing"], "analysis: 'nothing' is no kind of analysis; there are deactivate, distributions,"),
        (["features.builtin.windows=3"], "features.builtin.windows: unknown setting (did you mean window?)"),
        (["activations.site=mlp"], "activations.site: input should be 'hidden_pre', 'hidden_post' or 'block_output'"),
        (["activations.memory_mib=0"], "activations: memory_mib must be at least 1, not 0"),
        (["features=natural_language"], "features.natural_language.path: a value is required"),
        (["models=[/nowhere]"], "models: there is no folder /nowhere"),
        (["models=[a,a]"], "models: a is named twice"),
        (["modelz=[a]"], "modelz: unknown setting (did you mean models?)"),
        (["features=own"], "Could not find 'features/own' Available options in 'features': builtin code_language"),
    ],
)
def test_bad_settings(
    analyse: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path, overrides: list[str], message: str
) -> None:
    assert message in refusal(analyse, capsys, *overrides)
    assert not (tmp_path / "out").exists()


def test_models_are_required_and_must_have_the_tokenizer_of_the_texts(
    analyse: Any, run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    register(monkeypatch, lambda request: [])
    assert "models: analysis=mine needs one at least" in refusal(analyse, capsys, "analysis.kind=mine")
    other = ["features.builtin.world.seed=5", *WORLD_OVERRIDES]
    told = refusal(analyse, capsys, f"models={run_folder}", *other, "analysis.kind=mine")
    assert f"models: {run_folder} has another tokenizer than features.builtin" in told
    assert "features.builtin.world" in told


def test_what_a_name_stands_for(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = str(run_folder)
    step3 = run_folder / "hf" / "step3"
    found = find_models([run, f"{run}@3", str(step3), "EleutherAI/pythia-70m@step13000", "pythia"])
    assert [model.name for model in found] == ["mine", "mine@3", "step3", "pythia-70m@step13000", "pythia"]
    assert [model.folder for model in found] == [run_folder / "hf" / "step20", step3, step3, None, None]
    assert [model.revision for model in found] == [None, None, None, "step13000", None]
    assert [model.run for model in found] == [run_folder, run_folder, None, None, None]
    twin = tmp_path / "step3"
    twin.mkdir()
    (twin / "config.json").write_text("{}")
    assert [model.name for model in find_models([str(step3), str(twin)])] == [str(step3), str(twin)]
    for given, message in [
        (f"{run}@4", "has no export @4; there are 3, 20"),
        (f"{step3}@1", "is a model's folder; only runs and models of the hub have several"),
        (str(tmp_path), "holds no model .no config.json. and is no run directory"),
        ("./nowhere", "there is no folder ./nowhere"),
        ("a/b/c", "there is no folder a/b/c"),
    ]:
        with pytest.raises(UserError, match=message):
            find_models([given])
    (tmp_path / "config.yaml").write_text("name: new\n")
    with pytest.raises(UserError, match="has no export yet"):
        find_models([str(tmp_path)])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="models: EleutherAI/no-such@x is no folder, and the hub did not give it"):
        fetch(find_models(["EleutherAI/no-such@x"])[0])


def test_a_model_of_another_kind_is_refused(
    analyse: Any, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "llama"
    folder.mkdir()
    for path in (run_folder / "hf" / "step3").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "llama"}))
    register(monkeypatch, lambda request: [])
    told = refusal(analyse, capsys, f"models={folder}", *WORLD_OVERRIDES, "analysis.kind=mine")
    assert "holds a llama; analyses read GPT-NeoX models (Pythia)" in told
    assert replace(find_models([str(folder)])[0], name="x").name == "x"

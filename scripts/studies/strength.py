"""What strength does: two figures and their numbers, from the runs of `make strength`.

python scripts/studies/strength.py --runs runs/strength --output docs/figures --page docs/results/strength.md

precision: a trained tiny model, one backward pass for each weight in fp32, bf16 and fp16: how strong the
penalty is, and how much of it the precision absorbs. strength: threshold and validation loss at the end of
runs that held a strength, over their seeds.
"""

import argparse
import shlex
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from transformers import AutoModelForCausalLM

import l2e
from l2e.data import Corpus, StepLoader, open_corpus
from l2e.data.config import BuiltinDataConfig
from l2e.files import write_atomically
from l2e.models import DTYPES
from l2e.reporting.curves import last
from l2e.reporting.drawing import COLOURS, LINES, MARKERS, new_figure, style
from l2e.reporting.pictures import Picture, finish, save
from l2e.reporting.runs import RunRecord, load_run
from l2e.training.loss import next_token_loss

BATCH, LENGTH = 8, 128
LOSS_SCALE = 2.0**12  # Pythia's first (D.4); fp16 gradients underflow without one
PAPER = {"70M": (1e-11, 32), "410M": (1e-10, 32), "2.8B": (1e-9, 16)}  # weight, sequences in a micro-batch
PAPER_LENGTH = 2048

Ends = dict[float, dict[int, tuple[float, float]]]
"""By strength and seed: validation loss and threshold at the end."""


@dataclass(frozen=True)
class Point:
    """Both taps' mean after one backward pass."""

    precision: str
    weight: float
    strength: float
    absorbed: float


def main() -> None:
    """Measure, read the runs, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs strength<S>-seed<N>")
    parser.add_argument("--cache", type=Path, default=Path("cache"), help="cache_dir of the runs")
    parser.add_argument("--output", type=Path, required=True, help="folder for the figures and their CSV")
    parser.add_argument("--page", type=Path, required=True, help="Markdown file for the tables")
    arguments = parser.parse_args()
    runs = [load_run(folder) for folder in sorted(arguments.runs.glob("strength*-seed*"))]
    if not runs:
        parser.error(f"no runs strength<S>-seed<N> in {arguments.runs}")
    baseline = next((run for run in runs if run.is_baseline), None)
    if baseline is None:
        parser.error("none of the runs has a strength of 0")
    arguments.output.mkdir(parents=True, exist_ok=True)
    ends, points = final_values(runs), measure_precisions(baseline, arguments.cache)
    with style():
        save(draw_strength(ends), arguments.output)
        save(draw_precision(points), arguments.output)
    write_atomically(arguments.page, page(ends, points, shlex.join(sys.argv)))


def measure_precisions(run: RunRecord, cache: Path) -> list[Point]:
    """Strength and absorbed share for a range of weights, each in one backward pass from the same state."""
    data = BuiltinDataConfig(kind="builtin", seed=run.setting("data.seed", 1))
    corpus = open_corpus(data, seq_length=LENGTH, vocab_size=768, cache_dir=cache)
    export = run.path / "hf" / f"step{run.setting('training.steps')}"
    weights = sorted([*np.logspace(-13, -2, 34).tolist(), *published().values()])
    return [point for name in DTYPES for point in _measure(name, export, corpus, weights)]


def _measure(precision: str, export: Path, corpus: Corpus, weights: Sequence[float]) -> list[Point]:
    model = AutoModelForCausalLM.from_pretrained(export, dtype=DTYPES[precision]).train()
    loader = StepLoader(corpus.train, BATCH, BATCH, 0, 1)
    settings: dict[str, Any] = {"late_start": 20, "warmup": 20, "reduction": "sum"}
    inhibition = l2e.attach(model, weight=0.0, **settings)
    for step in range(60):  # statistics and threshold of the trained model; nothing is learned
        (tokens,) = loader.micro_batches(step)
        model(tokens[:, :-1])
        inhibition.step()
    inhibition.remove()
    (tokens,) = loader.micro_batches(60)
    points = []
    for weight in weights:
        tried = l2e.attach(model, weight=weight, **settings)
        tried.load_state_dict(inhibition.state_dict())
        model.zero_grad()
        loss = next_token_loss(model(tokens[:, :-1]).logits, tokens[:, 1:]) + tried.penalty()
        (loss * LOSS_SCALE if precision == "fp16" else loss).backward()
        tried.step()
        tried.remove()
        found = tried.metrics()
        mean = [float(np.mean([found[f"block{b}/{name}"] for b in (1, 2)])) for name in ("strength", "absorbed")]
        points.append(Point(precision, weight, *mean))
    return points


def draw_precision(points: Sequence[Point]) -> Picture:
    """Strength and absorbed share against the weight."""
    figure = new_figure(5.4)
    upper, lower = figure.subplots(2, 1, sharex=True)
    for name, colour, line in zip(DTYPES, COLOURS, LINES, strict=False):
        mine = [point for point in points if point.precision == name]
        look = {"color": colour, "linestyle": line, "label": name}
        upper.loglog([p.weight for p in mine], [p.strength for p in mine], **look)
        lower.semilogx([p.weight for p in mine], [100 * p.absorbed for p in mine], **look)
    for size, equal in published().items():
        upper.text(equal * 1.15, 3e-10, size, fontsize=8, color="#444444", rotation=90)
        for axes in (upper, lower):
            axes.axvline(equal, color="#888888", linewidth=0.8, linestyle=":")
    upper.set_ylabel("strength")
    lower.set_ylabel("absorbed, %")
    lower.set_xlabel(f"weight (sum over {BATCH} x {LENGTH} tokens)")
    lower.legend()
    caption = (
        "Strength of the penalty at the taps of a trained tiny model, and the share of selected outputs whose gradient "
        "the working precision leaves unchanged. Dotted: the papers' weights, moved to where the penalty is as large "
        "against the loss as with the papers' micro-batch."
    )
    header = ["precision", "weight", "strength", "absorbed"]
    rows = [(p.precision, f"{p.weight:.4g}", f"{p.strength:.4g}", f"{p.absorbed:.4g}") for p in points]
    return finish(figure, "precision", "What precision leaves of the penalty", caption, header, rows)


def published() -> dict[str, float]:
    """The weight here that is as strong as a published one: a sum grows with the tokens, the loss is their mean."""
    return {size: weight * sequences * PAPER_LENGTH / (BATCH * LENGTH) for size, (weight, sequences) in PAPER.items()}


def final_values(runs: Sequence[RunRecord]) -> Ends:
    """Validation loss and both taps' mean threshold of each run's last update."""
    ends: Ends = defaultdict(dict)
    for run in runs:
        found = [run.series(name) for name in ("validation_loss", *(f"inhibition/block{b}/threshold" for b in (1, 2)))]
        loss, *taus = [value[1] for series in found if (value := last(series)) is not None]
        if len(taus) != 2:
            raise ValueError(f"{run.path}: no validation loss or threshold; is the run finished?")
        ends[float(run.setting("inhibition.strength"))][run.setting("seed")] = (loss, float(np.mean(taus)))
    return ends


def draw_strength(ends: Ends) -> Picture:
    """Threshold and validation loss at the end of training against strength, mean and seeds."""
    figure = new_figure(5.4)
    upper, lower = figure.subplots(2, 1, sharex=True)
    for axes, index, label in ((upper, 0, "validation loss"), (lower, 1, "threshold (top 2%)")):
        values = {strength: [pair[index] for pair in found.values()] for strength, found in ends.items()}
        _over_strength(axes, values, label, COLOURS[index])
    lower.set_xlabel("strength held, |penalty gradient| / |loss gradient|")
    header = ["strength", "seed", "validation_loss", "threshold"]
    rows = [
        (strength, seed, f"{loss:.5f}", f"{tau:.4f}")
        for strength, found in sorted(ends.items())
        for seed, (loss, tau) in sorted(found.items())
    ]
    caption = (
        "The demo's tiny model at the end of training, with the strength held by adapting the weight. Line: mean over "
        "seeds; marks: each seed; dashed: strength 0."
    )
    return finish(figure, "strength", "Loss and monosemanticity against strength", caption, header, rows)


def _over_strength(axes: Axes, found: dict[float, list[float]], label: str, colour: str) -> None:
    without = found[0.0]
    strengths = sorted(strength for strength in found if strength > 0)
    axes.axhline(float(np.mean(without)), color="#4D4D4D", linestyle="--", linewidth=1, label="strength 0")
    axes.plot(strengths, [np.mean(found[strength]) for strength in strengths], color=colour)
    for strength in strengths:
        axes.plot(
            [strength] * len(found[strength]), found[strength], MARKERS[0], color=colour, markersize=3.5, alpha=0.6
        )
    axes.set_xscale("log")
    axes.legend()
    axes.set_ylabel(label)


def page(ends: Ends, points: Sequence[Point], command: str) -> str:
    """The tables behind the figures."""
    seeds = sorted(ends[0.0])
    lines = [
        "# Strength: the numbers",
        "",
        f"`make strength`, the last step by `python {command}`. torch {torch.__version__}, CPU, fp32 training; seeds "
        f"{', '.join(map(str, seeds))} (initial weights and order of rows). "
        "What they mean: [strength.md](../strength.md).",
        "",
        "| strength held | validation loss | minus strength 0, paired by seed | threshold (mean of both taps) |",
        "| ---: | ---: | ---: | ---: |",
    ]
    for strength, found in sorted(ends.items()):
        loss, tau = ([pair[index] for pair in found.values()] for index in (0, 1))
        paired = [found[seed][0] - ends[0.0][seed][0] for seed in found]
        difference = f"{_mean_sd(paired, '+.4f')}" if strength else ""
        lines.append(f"| {strength:g} | {_mean_sd(loss, '.4f')} | {difference} | {_mean_sd(tau, '.2f')} |")
    lines += ["", "Mean ± standard deviation over the seeds.", ""]
    lines += ["| published weight | precision | strength | absorbed |", "| --- | --- | ---: | ---: |"]
    for size, equal in published().items():
        for point in points:
            if point.weight == equal:
                weight, sequences = PAPER[size]
                row = f"{size}: {weight:g}, micro-batch {sequences} x {PAPER_LENGTH} | {point.precision}"
                lines.append(f"| {row} | {point.strength:.2g} | {100 * point.absorbed:.1f}% |")
    lines += ["", f"On the trained tiny model, one batch of {BATCH} x {LENGTH} tokens, mean of both taps."]
    return "\n".join(lines) + "\n"


def _mean_sd(values: Sequence[float], form: str) -> str:
    return f"{np.mean(values):{form}} ± {np.std(values, ddof=1):{form.lstrip('+')}}"


if __name__ == "__main__":
    main()

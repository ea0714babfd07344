"""Measure MEmeL's Table 4 (Decrease Ratio, Total Update Ratio) on a small network and write a page about it.

python scripts/studies/decrease_ratio.py --seeds 10 --output docs/results/decrease-ratio.md
"""

import argparse
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from l2e.analysis.decrease_ratio import BASES, DELTAS, Estimate, StudyConfig, StudyRow, aggregate, run_seed
from l2e.files import write_atomically

SINGLE_BATCHES = 1000
LABELS = {"original": "Original", "naive_a": "naive (a)", "naive_b": "naive (b)", "rd": "RD"}
# MEmeL's Table 4: Swin-B, 10k samples.
PAPER_DECREASE = {"original": 0.003, "naive_a": -0.017, "naive_b": -0.044, "rd": 0.013}
PAPER_UPDATE = {"original": 0.052, "naive_a": 0.118, "naive_b": 0.161, "rd": 0.189}

Rows = Mapping[int, StudyRow]


def main() -> None:
    """Run the study and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="networks, at least 2 (seeds 0, 1, ...)")
    parser.add_argument("--output", type=Path, required=True, help="Markdown file to write")
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error("--seeds must be at least 2: standard errors are over seeds")
    torch.set_num_threads(1)
    batched = StudyConfig()
    single = replace(batched, batch_size=1, batches=SINGLE_BATCHES)
    pages = [run_study(config, arguments.seeds) for config in (batched, single)]
    write_atomically(arguments.output, page(batched, pages[0], single, pages[1], shlex.join(sys.argv)))


def run_study(config: StudyConfig, seeds: int) -> Rows:
    """All seeds, with a line on stderr for each."""
    runs = []
    for seed in range(seeds):
        start = time.perf_counter()
        runs.append(run_seed(seed, config))
        print(f"batch {config.batch_size}, seed {seed}: {time.perf_counter() - start:.1f} s", file=sys.stderr)
    return aggregate(runs)


def page(config: StudyConfig, rows: Rows, single: StudyConfig, single_rows: Rows, command: str) -> str:
    """The Markdown page. Its conclusions are computed from the rows."""
    seeds = len(rows[config.adam_steps[0]].accuracy.values)
    blocks = [
        "# Does Reverse Deactivation lower monosemanticity?",
        f"`python {command}`: {seeds} seeds, torch {torch.__version__}, device CPU, one thread, fp32.",
        "MEmeL (arXiv 2312.11560, 4.3, Table 4) measures on Swin-B how far one update with Reverse Deactivation (RD) "
        "lowers the Monosemanticity Score of the neurons it inhibits. This page repeats that on a small network.",
        _protocol(config, seeds),
        "## Decrease Ratio (M19), %",
        "`(1 - phi(z') / phi(z)) x 100%`: above 0, the update lowered the score. Mean ± standard error over seeds.",
        _methods_table(rows, "decrease", PAPER_DECREASE),
        "## RD against no change and against naive (b)",
        "Difference of the Decrease Ratios, in points of percent, paired by seed (same weights, same batches). "
        '"Higher" and "lower" mean beyond two standard errors.',
        _lead_table(rows),
        "## Total Update Ratio (M20), %",
        "`|z' / z - 1| x 100%`. Outputs near 0 give the mean a heavy tail; the median in brackets has none.",
        _methods_table(rows, "update", PAPER_UPDATE),
        "## The other reading: every sample its own update",
        f"The same with batches of one sample ({single.batches} for each method): no other sample's gradient moves the "
        "output. The changes are larger, because the loss is not averaged over a batch.",
        _methods_table(single_rows, "decrease", PAPER_DECREASE),
        _lead_table(single_rows),
        "## What holds",
        _bullets([*_order(rows, "One update per batch"), *_order(single_rows, "One update per sample")]),
        "## What does not hold, or is not shown",
        _bullets([*_untrained(rows, single_rows), *_raised(rows), _signs(rows), _total_update(rows), *LIMITS]),
    ]
    return "\n\n".join(blocks) + "\n"


LIMITS = (
    "One small network, one kind of data, one noise level. The noise (1.6) was chosen before this study so that the "
    "loss does not saturate; where it does, all four methods differ little.",
    "A single SGD step from weights that were trained *without* inhibition. Nothing here says what RD does over a "
    "whole training, to a language model, or to accuracy.",
)


def _protocol(config: StudyConfig, seeds: int) -> str:
    width = config.width
    return (
        f"{config.classes} Gaussian classes in R^{config.inputs} (centres of standard deviation 1, noise "
        f"{config.noise}), an MLP {config.inputs}-{width}-{width}-{width}-{config.classes} with GELU, trained by Adam "
        f"(rate {config.adam_lr:g}, batches of {config.adam_batch} fresh samples). Hooked: the outputs of hidden "
        f"layer 2, after its GELU. Mean and variance from {config.statistics_samples:,} fresh samples at that point of "
        f"the training, then fixed. Measured: {config.batches} batches of {config.batch_size}, the same for each "
        "method; of each sample the neuron with the highest score is inhibited (Original: none, naive (a): delta 0, "
        f"naive (b): delta -1, RD: delta 1), one SGD step (rate {config.sgd_lr:g}) on the mean loss of the batch, the "
        "same neurons on the same input again; the next batch starts from the unchanged weights. "
        f"{seeds} seeds: classes, weights and samples. Code: `l2e/analysis/decrease_ratio.py`."
    )


def _methods_table(rows: Rows, quantity: str, paper: Mapping[str, float]) -> str:
    lines = [["Adam steps", "accuracy", *LABELS.values()]]
    for steps, row in rows.items():
        cells = [_cell(row, quantity, name) for name in DELTAS]
        lines.append([str(steps), f"{row.accuracy.mean:.3f}", *cells])
    sign = "+" if quantity == "decrease" else ""
    lines.append(["*MEmeL, Swin-B*", "", *(f"{paper[name]:{sign}.3f}" for name in DELTAS)])
    return _table(lines)


def _cell(row: StudyRow, quantity: str, name: str) -> str:
    if quantity == "decrease":
        return _signed(row.decrease[name])
    mean = row.update[name]
    return f"{mean.mean:.4f} ± {mean.error:.4f} ({row.median_update[name].mean:.4f})"


def _lead_table(rows: Rows) -> str:
    head = [cell for base in BASES for cell in (f"RD - {LABELS[base]}", "s.e. from 0", "seeds above 0", "RD is")]
    lines = [["Adam steps", *head]]
    for steps, row in rows.items():
        cells = [cell for base in BASES for cell in _lead_cells(row.lead[base])]
        lines.append([str(steps), *cells])
    return _table(lines)


def _lead_cells(lead: Estimate) -> list[str]:
    return [_signed(lead), f"{lead.errors_away:+.1f}", f"{lead.positive}/{len(lead.values)}", _verdict(lead)]


def _verdict(lead: Estimate) -> str:
    if abs(lead.errors_away) > 2:
        return "higher" if lead.mean > 0 else "**lower**"
    return "**not resolved**"


def _order(rows: Rows, reading: str) -> list[str]:
    """Where RD exceeds each base beyond two standard errors, and where it does not."""
    found = []
    for base in BASES:
        leads = {steps: row.lead[base] for steps, row in rows.items()}
        holds = [steps for steps, lead in leads.items() if _verdict(lead) == "higher"]
        fails = [f"{steps} ({_verdict(lead).strip('*')})" for steps, lead in leads.items() if steps not in holds]
        least = min((leads[steps].errors_away for steps in holds), default=0.0)
        held = f"holds after {_listed(holds)} Adam steps (at least {least:.1f} s.e.)" if holds else "holds nowhere"
        failed = f"; it does not after {_listed(fails)}" if fails else ""
        found.append(f"{reading}: RD > {LABELS[base]} {held}{failed}.")
    return found


def _untrained(rows: Rows, single_rows: Rows) -> list[str]:
    if 0 not in rows:
        return []
    found = []
    for reading, row in (("per batch", rows[0]), ("per sample", single_rows[0])):
        order = sorted(DELTAS, key=lambda name: row.decrease[name].mean, reverse=True)
        place = order.index("rd") + 1
        verdicts = [f"{_verdict(row.lead[base]).strip('*')} against {LABELS[base]}" for base in BASES]
        found.append(f"{reading} RD's mean has place {place} of {len(order)} ({', '.join(verdicts)})")
    return [
        f"Untrained, {'; '.join(found)}. MEmeL's Lemma 3.3 (M10), by which RD lowers the score, needs "
        "a trained network."
    ]


def _raised(rows: Rows) -> list[str]:
    """Where RD itself does not lower the score, whatever its lead."""
    raised = [steps for steps, row in rows.items() if row.decrease["rd"].errors_away < -2]
    if not raised:
        return []
    return [
        f"One update per batch, after {_listed(raised)} Adam steps the score *rises* under RD, too: "
        "a lead is not yet a decrease."
    ]


def _signs(rows: Rows) -> str:
    """How many points of the training have the paper's signs beyond two standard errors."""
    trained = {steps: row for steps, row in rows.items() if steps > 0}
    clear = [
        steps
        for steps, row in trained.items()
        if all(row.decrease[name].errors_away * PAPER_DECREASE[name] > 2 * abs(PAPER_DECREASE[name]) for name in DELTAS)
    ]
    original = "; ".join(f"{_signed(row.decrease['original'])} after {steps}" for steps, row in trained.items())
    where = f"after {_listed(clear)} Adam steps only" if clear else "nowhere beyond two standard errors"
    return f"The paper's signs (Original +, naive -, RD +) appear {where}: Original is {original}."


def _total_update(rows: Rows) -> str:
    paper = PAPER_UPDATE["rd"] / PAPER_UPDATE["original"]
    ratios = [
        f"{_ratio(row.update):.2f} (medians: {_ratio(row.median_update):.2f}) after {steps}"
        for steps, row in rows.items()
    ]
    largest = [steps for steps, row in rows.items() if max(DELTAS, key=lambda n: row.update[n].mean) == "rd"]
    where = f"after {_listed(largest)} Adam steps" if largest else "nowhere"
    return (
        f"The Total Update Ratio does not reproduce: RD's is {paper:.1f} times Original's in the paper, here "
        f"{', '.join(ratios)}. RD's is the largest of the four {where}."
    )


def _ratio(estimates: Mapping[str, Estimate]) -> float:
    return estimates["rd"].mean / estimates["original"].mean


def _signed(estimate: Estimate) -> str:
    return f"{estimate.mean:+.5f} ± {estimate.error:.5f}"


def _listed(items: Sequence[object]) -> str:
    words = [str(item) for item in items]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(lines: Sequence[Sequence[str]]) -> str:
    rule = ["---:"] * len(lines[0])
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))


if __name__ == "__main__":
    main()

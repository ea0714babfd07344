"""The key facts of each run: what was trained, on what, how, and what came out."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from l2e.inhibition.methods import METHODS
from l2e.reporting.cells import MISSING, loss_number
from l2e.reporting.curves import final_loss, last
from l2e.reporting.runs import RunRecord

TIMES = "\N{MULTIPLICATION SIGN}"
METHOD_SETTINGS = {
    "penalty": ("strength", "weight", "rate", "top_k", "blocks", "reduction", "scope"),
    "deactivate": ("rate", "top_k", "delta", "blocks", "scope"),
    "dropout": ("dropout", "dropout_at", "blocks"),
}


def key_facts(run: RunRecord) -> dict[str, str]:
    """Name of each fact to its text, in reading order."""
    return {
        "model": _text(run.setting("model.name")),
        "data": _text(run.setting("data.name")),
        "method": method(run),
        "steps": _steps(run),
        "tokens": _tokens(run),
        "batch": _batch(run),
        "peak lr": _text(run.setting("training.lr")),
        "precision": _text(run.setting("training.precision")),
        "seed": _text(run.setting("seed")),
        "training loss": loss_number(final_loss(run)[0]) if len(run.series("loss").steps) else MISSING,
        "validation loss": _validation(run),
        "device": _device(run),
        "speed": _speed(run),
        "code": _code(run),
        "data fingerprint": _text(_found(run, "fingerprint", "sha256_of_ends", "sha256"))[:12],
    }


def split_facts(runs: Sequence[RunRecord]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Facts that all runs share, and those that differ, one text for each run."""
    facts = [key_facts(run) for run in runs]
    texts = {name: [fact[name] for fact in facts] for name in facts[0]}
    shared = {name: found[0] for name, found in texts.items() if len(set(found)) == 1 and found[0] != MISSING}
    return shared, {name: found for name, found in texts.items() if len(set(found)) > 1}


def method(run: RunRecord) -> str:
    """The method and the settings that decide what it does."""
    name = _text(run.setting("inhibition.method"))
    if run.is_baseline:
        return "none (baseline)" if name == "none" else "none (baseline, observed: weight 0)"
    action = METHODS[name].action if name in METHODS else "penalty"
    given = {key: run.setting(f"inhibition.{key}") for key in METHOD_SETTINGS[str(action)]}
    unused = "weight" if given.get("strength") is not None else "rate" if given.get("top_k") is not None else None
    settings = ", ".join(f"{k} {_text(value)}" for k, value in given.items() if value is not None and k != unused)
    return f"{name} ({settings})" if settings else name


def _text(value: Any) -> str:
    if value is None:
        return MISSING
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return "[" + ", ".join(_text(item) for item in value) + "]"
    return str(value)


def _steps(run: RunRecord) -> str:
    done, planned = last(run.series("loss")), run.setting("training.steps")
    if done is None or done[0] == planned:
        return f"{planned:,}" if isinstance(planned, int) else MISSING
    return f"{done[0]:,} of {planned:,}" if isinstance(planned, int) else f"{done[0]:,}"


def _tokens(run: RunRecord) -> str:
    """As logged, else computed."""
    logged = last(run.series("tokens"))
    if logged and math.isfinite(logged[1]):
        return f"{logged[1]:,.0f}"
    factors = [run.setting(f"training.{key}") for key in ("batch_size", "seq_length")]
    done = last(run.series("loss"))
    return f"{done[0] * math.prod(factors):,}" if done and all(isinstance(f, int) for f in factors) else MISSING


def _batch(run: RunRecord) -> str:
    return f"{_text(run.setting('training.batch_size'))} {TIMES} {_text(run.setting('training.seq_length'))} tokens"


def _validation(run: RunRecord) -> str:
    found = last(run.series("validation_loss"))
    return f"{loss_number(found[1])} at step {found[0]:,}" if found else MISSING


def _speed(run: RunRecord) -> str:
    logged = run.series("tokens_per_second").values
    values = sorted(float(value) for value in logged if math.isfinite(value))
    return f"{values[len(values) // 2]:,.0f} tokens/s (median)" if values else MISSING


def _device(run: RunRecord) -> str:
    device, ranks = _found(run, "device", "gpu"), _found(run, "ranks", "world_size")
    text = _text(device)
    return f"{ranks} {TIMES} {text}" if isinstance(ranks, int) and ranks > 1 else text


def _code(run: RunRecord) -> str:
    commit, torch = _found(run, "commit", "git_commit"), _found(run, "torch")
    parts = [f"commit {str(commit)[:10]}"] if commit else []
    parts += ["with changes" if _found(run, "modified", "dirty") else ""] if commit else []
    parts += [f"torch {torch}"] if torch else []
    return ", ".join(part for part in parts if part) or MISSING


def _found(run: RunRecord, *names: str) -> Any:
    """The first value with one of these names, anywhere in environment.json."""
    return next((value for key, value in _leaves(run.environment) if key in names), None)


def _leaves(tree: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value)
        else:
            yield key, value

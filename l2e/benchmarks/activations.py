"""What the collection of activations costs: against the bare forward, and against hooking and concatenating.

    python scripts/benchmark.py benchmark=activations

All ways see the same random sequences. `bare_forward` runs the whole model without its head over the batches that the
collection makes, and keeps nothing: what the same forward costs anyway. `naive` is what anybody would write: hooks that
keep every batch's values, the model as it is called (with its head and a mask) on batches of 32 in the order of the
file, padded to the window; then one concatenation and a masked mean. In each round every other way stands between two
of ours (`l2e.benchmarks.turns`); a ratio is our speed over theirs. That ours and the naive way give the same numbers is
checked before any is timed.

results:
    vs_bare_forward: our tokens per second over the bare forward's; the goal is 0.9.
    vs_naive: the same over the naive way's; null without `naive`.
    memory_mib: peak of tensors alive beside the weights, of each way (`memory_method` says how it is counted). Ours
        does not grow with the number of sequences; `memory_limit_mib` is what the settings allow.
"""

import logging
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from l2e.analysis.activation_files import ActivationFiles
from l2e.analysis.aggregate import to_device
from l2e.analysis.collect import collect, layers_of, make_batches, plan_room
from l2e.analysis.hooks import width_of
from l2e.analysis.subjects import FeatureSet
from l2e.benchmarks.activations_config import ActivationsBenchmarkConfig
from l2e.benchmarks.memory import MEMORY_METHODS, peak_bytes
from l2e.benchmarks.report import device_name, versions
from l2e.benchmarks.turns import compare, timed
from l2e.models import DTYPES, build_pythia

logger = logging.getLogger("l2e.benchmarks.activations")

NAIVE_BATCH = 32
CLOSE = {"fp32": 1e-4, "bf16": 0.1, "fp16": 0.02}
"""How far the two ways' numbers may differ: kernels round otherwise in other shapes."""


def run(config: ActivationsBenchmarkConfig) -> dict[str, Any]:
    """Measure; returns the result to be printed."""
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
    device = torch.device(kind)
    torch.set_num_threads(config.threads)
    with tempfile.TemporaryDirectory(prefix="l2e-activations-", dir=config.folder) as folder:
        results = Ways(config, device, Path(folder)).measure()
    return {
        "benchmark": config.kind,
        "device": device_name(device),
        "versions": versions(),
        "results": results,
        "settings": asdict(config),
        "memory_method": MEMORY_METHODS[kind],
    }


class Ways:
    """One model, its sequences, and the ways to get from one to the other's activations."""

    def __init__(self, config: ActivationsBenchmarkConfig, device: torch.device, folder: Path) -> None:
        self.config = config
        self.settings = config.activations
        self.device = device
        self.folder = folder
        self.model: Any = build_pythia(config.model, max_length=max(2048, config.window))
        self.model = self.model.to(device, DTYPES[self.settings.precision]).eval()
        self.features = made_up_sequences(config, self.model.config.vocab_size)
        self.rows = np.arange(config.sequences)
        self.made = 0

    def measure(self) -> dict[str, Any]:
        """Speeds, ratios and peaks."""
        ways: dict[str, Callable[[], object]] = {"bare_forward": self.bare_forward}
        if self.config.naive:
            ways["naive"] = self.naive
            self.check_same()
        peaks = {name: self.peak(way) for name, way in {"ours": self.ours, **ways}.items()}
        found = compare(
            timed(self.ours),
            {name: timed(way) for name, way in ways.items()},
            self.config.rounds,
            float(self.features.ends.sum()),
        )
        for name, speed in found.items():
            logger.info("%s: %.0f tokens/s, %.1f MiB", name, speed["per_second"], peaks[name])
        return {
            "vs_bare_forward": found["bare_forward"]["ratio"],
            "vs_naive": found["naive"]["ratio"] if self.config.naive else None,
            "tokens_per_second": found,
            "memory_mib": peaks,
            "memory_limit_mib": self.settings.memory_mib,
        }

    def ours(self) -> ActivationFiles:
        """Collect all activations into files, hashed and on the disk."""
        facts = {
            "sequences": len(self.rows),
            "layers": layers_of(self.model.config, self.settings),
            "width": width_of(self.model.config, self.settings.site),
        }
        self.made += 1
        files = ActivationFiles(self.folder / str(self.made), facts)
        files.prepare()
        collect(self.model, self.features, self.settings, self.rows, files.write)
        files.complete()
        return files

    @torch.inference_mode()
    def bare_forward(self) -> None:
        """The model without its head, over the same batches, each cut to its longest sequence."""
        element = next(self.model.parameters()).element_size()
        room = plan_room(self.model.config, self.settings, element, int(self.features.ends.max()))
        for batch in make_batches(self.features.ends, self.rows, room):
            tokens = self.features.tokens[batch, : int(self.features.ends[batch].max())]
            self.model.gpt_neox(to_device(tokens.astype(np.int64), self.device), use_cache=False)
        self.settle()

    @torch.no_grad()
    def naive(self) -> Tensor:
        """Hook, keep, concatenate, average: [layers, sequences, width] on the host."""
        kept: dict[int, list[Tensor]] = {}
        handles = [
            module.register_forward_hook(
                lambda _module, _inputs, output, layer=layer: kept.setdefault(layer, []).append(output.cpu())
            )
            for layer, module in enumerate(self.hooked())
        ]
        tokens = torch.from_numpy(self.features.tokens.astype(np.int64)).to(self.device)
        ends = torch.from_numpy(self.features.ends).to(self.device)
        seen = torch.arange(tokens.shape[1], device=self.device) < ends[:, None]
        for first in range(0, len(tokens), NAIVE_BATCH):
            batch = slice(first, first + NAIVE_BATCH)
            self.model(tokens[batch], attention_mask=seen[batch].long())
        for handle in handles:
            handle.remove()
        return torch.stack([self.averaged(torch.cat(kept.pop(layer))) for layer in range(len(handles))])

    def averaged(self, values: Tensor) -> Tensor:
        """[sequences, positions, width] to [sequences, width] by a mask."""
        positions = torch.arange(values.shape[1])
        starts, ends = torch.from_numpy(self.features.starts), torch.from_numpy(self.features.ends)
        valid = ((positions >= starts[:, None]) & (positions < ends[:, None]))[..., None]
        if self.settings.aggregation == "max":
            return values.float().masked_fill(~valid, -torch.inf).amax(1)
        return (values.float() * valid).sum(1) / valid.sum(1)

    def hooked(self) -> list[torch.nn.Module]:
        """The modules whose outputs are collected."""
        modules = {
            "hidden_pre": lambda block: block.mlp.dense_h_to_4h,
            "hidden_post": lambda block: block.mlp.act,
            "block_output": lambda block: block,
        }
        blocks = self.model.gpt_neox.layers[: layers_of(self.model.config, self.settings)]
        return [modules[self.settings.site](block) for block in blocks]

    def check_same(self) -> None:
        """Two ways that give other numbers are not worth comparing."""
        files, expected = self.ours(), self.naive()
        found = torch.stack([torch.from_numpy(np.array(files.open(layer))) for layer in range(files.layers)])
        difference = (found - expected).abs().max().item()
        if difference > CLOSE[self.settings.precision]:
            raise RuntimeError(f"the two ways differ by {difference}")

    def peak(self, way: Callable[[], object]) -> float:
        """MiB beside the weights."""
        weights = sum(p.numel() * p.element_size() for p in self.model.parameters())
        _, peak = peak_bytes(self.device, [], lambda: None, lambda _: way())
        return (peak - (weights if self.device.type == "cuda" else 0)) / 2**20

    def settle(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def made_up_sequences(config: ActivationsBenchmarkConfig, vocab_size: int) -> FeatureSet:
    """Random tokens of random lengths."""
    rng = np.random.default_rng(1)
    shape = (config.sequences, config.window)
    ends = rng.integers(config.shortest, config.window + 1, config.sequences)
    tokens = rng.integers(1, vocab_size, shape).astype(np.int32)
    tokens[np.arange(config.window) >= ends[:, None]] = 0
    labels = np.arange(config.sequences) % 2
    return FeatureSet("made up", tokens, np.ones(len(ends), np.int64), ends.astype(np.int64), labels, ("a", "b"))

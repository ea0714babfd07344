"""Does a device train as the CPU does? Every method on both, from the same weights and tokens.

    python -m l2e.benchmarks.device_check              # the GPU if there is one; needs torch and transformers alone

Ends with one line of JSON and, where a difference is larger than rounding explains, with exit code 1.
"""

import argparse
import sys
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import l2e
from l2e.benchmarks.report import device_name, print_result, versions
from l2e.models import build_pythia

SETTINGS: dict[str, Any] = {"late_start": 2, "warmup": 2, "rate": 0.05, "reduction": "sequence"}
UPDATES = 8


@dataclass(frozen=True)
class Case:
    """One training, and how far the device may be from the CPU, relative to the size of the numbers."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    reentrant: bool | None = None
    dtype: torch.dtype = torch.float32
    allowed: float = 2e-3


CASES = [
    *(Case(method, {"method": method, "weight": 0.01}) for method in ("none", "l2e", "l2e_no_threshold", "memel")),
    *(Case(method, {"method": method}) for method in ("reverse_deactivation", "naive_a", "naive_b")),
    Case("micro_batch", {"weight": 0.01, "scope": "micro_batch"}),
    Case("channel", {"weight": 0.01, "neurons": "channel"}),
    Case("strength", {"strength": 0.1}),
    Case("recomputed", {"weight": 0.01}, reentrant=False),
    Case("recomputed, reentrant", {"weight": 0.01}, reentrant=True),
    Case("bf16", {"strength": 0.1}, dtype=torch.bfloat16, allowed=0.1),
    Case("bf16, random rounding", {"strength": 0.1, "stochastic_rounding": True}, dtype=torch.bfloat16, allowed=0.1),
]


def train(case: Case, device: torch.device) -> tuple[list[float], dict[str, float]]:
    """Losses and metrics of a few updates, two micro-batches each; taps on a module within the checkpoints too."""
    model = build_pythia("tiny", vocab_size=128, max_length=64, seed=1).to(device, case.dtype).train()
    if case.reentrant is not None:
        model.gradient_checkpointing_enable({"use_reentrant": case.reentrant})
    blocks: Any = ["gpt_neox.layers.1.mlp", "gpt_neox.layers.2"]
    inhibition = l2e.attach(model, blocks=blocks, **SETTINGS, **case.settings)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for tokens in _tokens().to(device):
        total = 0.0
        for part in tokens.chunk(2):
            logits = model(part[:, :-1], use_cache=False).logits.float()
            loss = F.cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten())
            ((loss + inhibition.penalty()) / 2).backward()
            total += loss.item() / 2
        optimizer.step()
        optimizer.zero_grad()
        inhibition.step()
        losses.append(total)
    return losses, inhibition.metrics()


def _tokens() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    steps = torch.randint(0, 4, (UPDATES, 16, 33), generator=generator)
    return steps.cumsum(-1) % 128


def difference(case: Case, device: torch.device) -> float:
    """The largest relative difference of a loss, or of a threshold, share or strength at the end."""
    (losses, metrics), (others, expected) = train(case, device), train(case, torch.device("cpu"))
    pairs = [*zip(losses, others, strict=True), *((metrics[k], value) for k, value in expected.items())]
    return max(abs(a - b) / max(abs(b), 1e-6) for a, b in pairs if b == b)


def main(arguments: list[str]) -> int:
    """Run all cases; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(parser.parse_args(arguments).device)
    results = {}
    for case in CASES:
        found = difference(case, device)
        results[case.name] = {"difference": found, "allowed": case.allowed, "passed": found <= case.allowed}
        print(f"{case.name:24} {found:.1e} of {case.allowed:.1e}", file=sys.stderr)
    print_result(
        {"benchmark": "device_check", "device": device_name(device), "versions": versions(), "results": results}
    )
    return 0 if all(result["passed"] for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

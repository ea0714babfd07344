"""One process of the runs in test_inhibition_under_deepspeed.py: many small trainings, one after another.

Started by torch.distributed.run with a JSON file of cases and a folder for what this rank saw.
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

import l2e
from l2e.inhibition import Inhibition
from l2e.models import build_pythia
from l2e.training.config import DeepSpeedConfig, TrainingConfig
from l2e.training.loss import next_token_loss

ACCUMULATION = 2
UPDATES, BATCH, LENGTH, VOCABULARY = 6, 8, 16, 96

# Update 1 gathers, update 2 starts the threshold (or, by exact selection, already acts), the others inhibit.
INHIBITION: dict[str, Any] = {"late_start": 1, "warmup": 1, "rate": 0.1, "reduction": "sequence", "forget_after": 3}


@dataclass(kw_only=True)
class Case:
    """One training."""

    method: Literal["none", "l2e", "memel"]
    settings: dict[str, Any] = field(default_factory=dict)
    """Of the inhibition, besides `INHIBITION`."""

    stage: Literal[0, 1, 2, 3] = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    checkpointing: Literal["none", "saved", "reentrant"] = "none"
    """Of the blocks; `saved` is use_reentrant=False."""

    attach_first: bool = False
    """Attach to the model before DeepSpeed sees it."""

    def training(self) -> TrainingConfig:
        return TrainingConfig(
            steps=UPDATES, batch_size=BATCH, seq_length=LENGTH, lr=2e-3, clip=1.0, precision=self.precision, eps=1e-5
        )

    def model(self) -> nn.Module:
        model = build_pythia("tiny", vocab_size=VOCABULARY, max_length=LENGTH, seed=3)
        if self.checkpointing != "none":
            model.gradient_checkpointing_enable({"use_reentrant": self.checkpointing == "reentrant"})
        return model.train()

    def attach(self, model: nn.Module) -> Inhibition:
        return l2e.attach(model, self.method, **INHIBITION, **self.settings)


def rows() -> Tensor:
    """Tokens [UPDATES, BATCH, LENGTH + 1]: walks in small steps, so that there is something to learn."""
    generator = torch.Generator().manual_seed(5)
    steps = torch.randint(0, 4, (UPDATES, BATCH, LENGTH + 1), generator=generator)
    starts = torch.randint(0, VOCABULARY, (UPDATES, BATCH, 1), generator=generator)
    return (starts + steps.cumsum(-1)) % VOCABULARY


def run(case: Case, device: torch.device, rank: int, ranks: int) -> dict[str, Any]:
    """Train under DeepSpeed on this rank's share of the rows; what the updates measured, and the last weights."""
    from l2e.training.engine import Engine

    torch.manual_seed(rank)
    model = case.model()
    early = case.attach(model) if case.attach_first else None
    micro = BATCH // (ranks * ACCUMULATION)
    engine = Engine(
        model,
        case.training(),
        DeepSpeedConfig(stage=case.stage),
        micro_batch_size=micro,
        accumulation=ACCUMULATION,
        device=device,
    )
    inhibition = early or case.attach(model)
    losses, norms, metrics = [], [], []
    engine.train()
    for batch in rows().to(device):
        parts = batch.view(ACCUMULATION, ranks, micro, -1)[:, rank]
        total = 0.0
        for tokens in parts:
            loss = next_token_loss(engine.forward(tokens[:, :-1]), tokens[:, 1:])
            engine.backward(loss + inhibition.penalty())
            total += loss.item() / ACCUMULATION
        norms.append(engine.update(case.training().lr).item())
        inhibition.step()
        losses.append(total)
        metrics.append(inhibition.metrics())
    with engine.whole_weights():
        weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    engine.close()
    state = inhibition.state_dict()
    return {"losses": losses, "norms": norms, "metrics": metrics, "weights": weights, "state": state}


def main(cases: Path, folder: Path) -> None:
    """Run all cases and save what this rank saw."""
    import torch.distributed as dist

    from l2e.training.engine import process_group

    with process_group() as device:
        rank, ranks = dist.get_rank(), dist.get_world_size()
        found = {
            name: run(Case(**fields), device, rank, ranks) for name, fields in json.loads(cases.read_text()).items()
        }
        torch.save(found, folder / f"rank{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

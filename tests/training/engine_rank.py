"""One process of the runs in test_engine_against_plain_pytorch.py: many small trainings, one after another.

Started with a JSON file of cases and a folder for what this rank saw; several of it by torch.distributed.run.
"""

import gc
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from deepspeed_rank import ACCUMULATION, BATCH, LENGTH, UPDATES, VOCABULARY, rows
from torch import Tensor, nn

from l2e.models import build_pythia
from l2e.training.config import DeepSpeedConfig, TrainingConfig
from l2e.training.loss import next_token_loss
from l2e.training.schedule import cosine

PEAK, DECAY, EPS = 4e-3, 0.3, 1e-3
"""With this eps an update depends on the gradient's scale, which Adam with a small one divides out again."""


@dataclass(kw_only=True)
class Case:
    """One training."""

    zero: dict[str, Any] = field(default_factory=dict)
    """Of `DeepSpeedConfig`."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    clip: float = 1.0
    overflow_at: list[int] = field(default_factory=list)
    """Updates whose loss is multiplied until its gradient is infinite in fp16."""

    def training(self) -> TrainingConfig:
        return TrainingConfig(
            steps=UPDATES,
            batch_size=BATCH,
            seq_length=LENGTH,
            lr=PEAK,
            eps=EPS,
            clip=self.clip,
            weight_decay=DECAY,
            precision=self.precision,
        )


def initial_model() -> nn.Module:
    """Biases and LayerNorms start away from 0 and 1, so that a decay of them shows."""
    model = build_pythia("tiny", vocab_size=VOCABULARY, max_length=LENGTH, seed=3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += torch.randn(parameter.shape, generator=generator) / 2
    return model.train()


def run(case: Case, device: torch.device, rank: int, ranks: int) -> dict[str, Any]:
    """Train through `Engine` on this rank's share of the rows."""
    from l2e.training.engine import Engine

    model, training = initial_model(), case.training()
    micro = BATCH // (ranks * ACCUMULATION)
    engine = Engine(
        model,
        training,
        DeepSpeedConfig(**case.zero),
        micro_batch_size=micro,
        accumulation=ACCUMULATION,
        device=device,
    )
    losses, norms, scales, masters = [], [], [], []
    engine.train()
    for step, batch in enumerate(rows().to(device)):
        total = 0.0
        for tokens in batch.view(ACCUMULATION, ranks, micro, -1)[:, rank]:
            loss = next_token_loss(engine.forward(tokens[:, :-1]), tokens[:, 1:])
            engine.backward(loss * (1e6 if step in case.overflow_at else 1))
            total += loss.item() / ACCUMULATION
        norms.append(engine.update(cosine(step, PEAK, UPDATES, warmup=0.5)).item())
        scales.append(getattr(getattr(engine.optimizer, "loss_scaler", None), "loss_scale", 1.0))
        losses.append(total)
        if step in (0, UPDATES - 1):
            masters.append({name: master(parameter) for name, parameter in model.named_parameters()})
    with engine.whole_weights():
        weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    engine.close()
    return {"losses": losses, "norms": norms, "scales": scales, "masters": masters, "weights": weights}


def master(parameter: nn.Parameter) -> Tensor:
    """The optimizer's fp32 copy, put together from all ranks; without ZeRO the weight itself."""
    from deepspeed.utils import safe_get_full_fp32_param

    copy = safe_get_full_fp32_param(parameter)
    return (parameter if copy is None else copy).detach().clone()


def allow_fp16_on_a_cpu() -> None:
    """PyTorch computes fp16 on any CPU, slowly; DeepSpeed and the engine refuse it."""
    from deepspeed.accelerator import get_accelerator

    from l2e.training import engine

    type(get_accelerator()).is_fp16_supported = lambda self: True
    engine.refuse_fp16_on_cpu = lambda *_: None


def main(cases: Path, folder: Path) -> None:
    """Run all cases and save what this rank saw."""
    import torch.distributed as dist

    from l2e.training.engine import process_group

    gc.freeze()  # DeepSpeed collects garbage at every start; not among all that was imported
    named = {name: Case(**fields) for name, fields in json.loads(cases.read_text()).items()}
    if not torch.cuda.is_available() and any(case.precision == "fp16" for case in named.values()):
        allow_fp16_on_a_cpu()
    with process_group() as device:
        rank, ranks = dist.get_rank(), dist.get_world_size()
        found = {name: run(case, device, rank, ranks) for name, case in named.items()}
        torch.save(found, folder / f"rank{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

"""Which settings of a run differ from the published ones."""

from dataclasses import asdict, dataclass
from typing import Any

from l2e.cluster.published_pythia import L2E_CHANGES, Fact, l2e_published, published
from l2e.cluster.workload import Workload
from l2e.inhibition import select_blocks
from l2e.models import PYTHIA

NOT_AUDITED = {
    "model.name": "the audit is for this size",
    "model.max_length": "the rotary embedding has no table to outgrow",
    "model.attention": "the same attention, other kernels",
    "training.compile": "rounding alone",
    "training.loss_chunk": "rounding alone",
    "training.validation_every": "measures, changes nothing",
    "training.validation_sequences": "measures, changes nothing",
    "training.threads": "speed alone",
    "training.non_finite": "what happens where Pythia's run would have skipped",
    "training.max_skips": "when to give up",
    "training.timeout_minutes": "when a lost rank is noticed",
    "training.dry_run": "measures, trains nothing",
    "deepspeed.offload_optimizer": "where the optimizer's state lies",
    "deepspeed.offload_param": "where the weights lie",
    "deepspeed.communication_dtype": "null is Pythia's: fp16 gradients travel in fp16, others in fp32",
    "deepspeed.overlap_comm": "speed alone",
    "deepspeed.reduce_bucket_size": "rounding alone",
    "deepspeed.allgather_bucket_size": "speed alone",
    "deepspeed.extra": "whatever it holds is the user's",
}
"""Settings that no published run has, or that change no result; every other one of model and training is audited."""


@dataclass(frozen=True)
class Difference:
    """One setting that differs.

    Attributes:
        field: our key.
        published: its value in the published run.
        yours: its value here.
        why: what depends on it.
        source: where the published value is from.
        by: whose value is `published`, Pythia's or L2E's.
        in_l2e: whether L2E's paper made the same change to Pythia.
    """

    field: str
    published: Any
    yours: Any
    why: str
    source: str
    by: str = "Pythia"
    in_l2e: bool = False


def audit(work: Workload) -> list[Difference] | None:
    """The differences, Pythia's settings first, then L2E's own; None for a model that was never published."""
    if work.model.name not in PYTHIA:
        return None
    yours = _resolved(work)
    found = []
    for key, fact in published(work.model.name).items():
        if yours.get(key) != fact.value:
            found.append(_difference(key, fact, yours.get(key), "Pythia", _is_l2e(key, yours.get(key))))
    for key, fact in l2e_published(work.model.name, work.inhibition.method).items():
        if yours.get(key) != fact.value:
            found.append(_difference(key, fact, yours.get(key), "L2E", False))
    return found


def _difference(key: str, fact: Fact, yours: Any, by: str, in_l2e: bool) -> Difference:
    return Difference(key, fact.value, yours, fact.why, fact.source, by, in_l2e)


def _is_l2e(key: str, value: Any) -> bool:
    """Whether the paper says this value; its methods beside the baseline are the change it is about."""
    return L2E_CHANGES.get(key) == value or (key == "inhibition.method" and value != "none")


def _resolved(work: Workload) -> dict[str, Any]:
    """Our settings by key, with what follows where a setting leaves it open."""
    groups = ("model", "data", "training", "deepspeed", "inhibition")
    values = {f"{group}.{key}": value for group in groups for key, value in asdict(getattr(work, group)).items()}
    middle = select_blocks(work.size.layers, "middle-2")
    blocks = work.inhibition.blocks
    return values | {
        "inhibition.blocks": "middle-2" if blocks == middle else blocks,
        "model.vocab_size": work.size.vocab_size,
        "training.schedule_steps": work.training.schedule_steps or work.training.steps,
        "training.micro_batch_size": work.micro_batch,
    }

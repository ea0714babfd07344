"""How the published Pythia suite was trained, and what L2E's paper changed.

Read from EleutherAI/pythia `models/<size>/*.yml` and GPT-NeoX at tag v1.0, which the suite names as its code; each
fact's `source` says where. L2E: section 5.1, tables 1 to 8.
"""

from dataclasses import dataclass
from typing import Any

from l2e.models import PYTHIA, PythiaSize


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One setting of the published runs.

    Attributes:
        value: as our setting of this key says it.
        why: what depends on it, in a few words.
        source: where it is published.
    """

    value: Any
    why: str
    source: str


_YAML = "models/<size>/*.yml"

_COMMON = {
    "training.steps": Fact(value=143_000, why="tokens seen: 299.9 billion", source=f"{_YAML} train-iters"),
    "training.batch_size": Fact(value=1024, why="tokens of an update, noise of the gradient", source=f"{_YAML} batch"),
    "training.seq_length": Fact(value=2048, why="context and tokens of an update", source=f"{_YAML} seq-length"),
    "training.schedule": Fact(
        value="pythia_v1", why="v1.0's cosine is cut off at the floor", source="GPT-NeoX v1.0 learning_rates.py"
    ),
    "training.schedule_steps": Fact(
        value=143_000, why="learning rate at each update", source=f"{_YAML} lr-decay-iters"
    ),
    "training.warmup": Fact(value=0.01, why="learning rate of the first 1430 updates", source=f"{_YAML} warmup"),
    "training.lr_floor": Fact(value=0.1, why="learning rate of the last fifth", source=f"{_YAML} min_lr"),
    "training.weight_decay": Fact(value=0.1, why="regularisation", source=f"{_YAML} weight-decay"),
    "training.betas": Fact(value=[0.9, 0.95], why="Adam's memory", source=f"{_YAML} optimizer.params.betas"),
    "training.eps": Fact(value=1e-8, why="Adam's smallest denominator", source=f"{_YAML} optimizer.params.eps"),
    "training.clip": Fact(value=1.0, why="size of large updates", source=f"{_YAML} gradient_clipping"),
    "model.activation": Fact(
        value="tanh",
        why="training used the tanh GELU, the exported configs say erf",
        source=f"{_YAML} bias-gelu-fusion",
    ),
    "inhibition.method": Fact(
        value="none", why="dropout 0, nothing added to the loss", source=f"{_YAML} hidden-dropout, attention-dropout"
    ),
    "data.kind": Fact(value="pile", why="the rows that were trained on", source="pile-deduped-pythia-preshuffled"),
    "data.name": Fact(
        value="pile_deduped",
        why="rows of the -deduped models; the others saw the whole Pile",
        source="pile-deduped-pythia-preshuffled",
    ),
    "data.row_length": Fact(value=2049, why="2048 targets of a row", source="batch_viewer.py, mmap_dataset.py"),
}

_KEPT_ACTIVATIONS = ("pythia-14m", "pythia-31m")
_LATER = "trained later than the others, with a code and data version that is not certain"
_MODEL_PARALLEL = "ran on {} GPUs for each copy of the model; here each GPU computes with a whole one"

_NOT_REACHABLE = (
    "the initial weights were drawn in fp16 from another random stream (seed 1234): no seed of ours gives the same",
    "rotary angles were computed in fp16; transformers computes them in fp32",
)
_NOT_REACHABLE_OF = {
    "pythia-14m": _LATER,
    "pythia-31m": _LATER,
    "pythia-1b": "the YAML says fp16 and a rate of 2.5e-4, the paper's README bf16 and 3.0e-4; audited as bf16, 2.5e-4",
    "pythia-6.9b": _MODEL_PARALLEL.format(2),
    "pythia-12b": _MODEL_PARALLEL.format(4),
}


def not_reachable(name: str) -> list[str]:
    """What no setting of ours can make as it was; told with every audit."""
    return [*_NOT_REACHABLE, *([_NOT_REACHABLE_OF[name]] if name in _NOT_REACHABLE_OF else [])]


def published(name: str) -> dict[str, Fact]:
    """Facts of one size by our key; KeyError for a model that is not of the suite."""
    size: PythiaSize = PYTHIA[name]
    zero = 0 if name in _KEPT_ACTIVATIONS or name == "pythia-1b" else 1
    precision = "bf16" if name == "pythia-1b" else "fp16"
    return _COMMON | {
        "training.lr": Fact(value=size.lr, why="size of every update", source=f"{_YAML} optimizer.params.lr"),
        "training.micro_batch_size": Fact(
            value=size.micro_batch_size,
            why="what an inhibition's sum and fp16's averaging run over",
            source=f"{_YAML} train_micro_batch_size_per_gpu",
        ),
        "training.precision": Fact(
            value=precision, why="rounding, overflows, loss scaling", source=f"{_YAML} fp16; 1B: pythia#171"
        ),
        "training.activation_checkpointing": Fact(
            value=name not in _KEPT_ACTIVATIONS, why="speed and memory alone", source=f"{_YAML} checkpoint-activations"
        ),
        "deepspeed.stage": Fact(value=zero, why="memory; order of sums", source=f"{_YAML} zero_optimization.stage"),
        "model.vocab_size": Fact(
            value=size.vocab_size, why="rows of both embeddings", source=f"{_YAML} make_vocab_size_divisible_by"
        ),
    }


L2E_CHANGES: dict[str, Any] = {"training.steps": 14_300}
"""What L2E's paper changed about Pythia for all its runs, baselines included (5.1: 14.3k of 143k steps)."""

_L2E_WEIGHTS = {"pythia-70m": 1e-11, "pythia-410m": 1e-10, "pythia-2.8b": 1e-9}
_SELECTING = {
    "inhibition.blocks": Fact(value="middle-2", why="which blocks are inhibited", source="L2E 5.1, Table 5"),
    "inhibition.rate": Fact(value=0.02, why="share of neurons inhibited", source="L2E 5.1, Table 4"),
    "inhibition.neurons": Fact(value="position", why="what a neuron is", source="L2E Table 2, # Param"),
    "inhibition.forget_after": Fact(value=10, why="memory of the statistics", source="MEmeL's code, M03"),
    "inhibition.compensation": Fact(value=0.01, why="which neurons score high", source="MEmeL's code, M04"),
    "inhibition.late_start": Fact(value=10, why="first updates without inhibition", source="MEmeL's code, M04"),
}


def l2e_published(name: str, method: str) -> dict[str, Fact]:
    """What L2E's paper says of a method's settings, by our key; empty for `none`."""
    if method == "none":
        return {}
    if method == "dropout":
        return {
            "inhibition.blocks": _SELECTING["inhibition.blocks"],
            "inhibition.dropout": Fact(value=0.2, why="share of outputs dropped", source="L2E Table 1"),
        }
    facts = dict(_SELECTING)
    if method.startswith("l2e"):
        facts["inhibition.reduction"] = Fact(value="sum", why="what the weight is a factor of", source="L2E Eq. 5")
        if name in _L2E_WEIGHTS:
            facts["inhibition.weight"] = Fact(value=_L2E_WEIGHTS[name], why="size of the penalty", source="L2E 5.1")
    return facts

"""Settings of the Table 2 benchmark."""

from dataclasses import dataclass, field
from typing import Literal

import torch

from l2e.benchmarks.arguments import require_precision, require_whole
from l2e.inhibition import select_blocks
from l2e.models import pythia_size

OURS = ("none", "l2e", "memel")
"""Methods of `l2e.attach`."""

PUBLISHED = ("published_memel",)
"""Methods from their description alone."""


@dataclass(kw_only=True)
class Table2Config:
    """What is trained, with which methods, for how long."""

    kind: Literal["table2"] = "table2"

    models: list[str] = field(default_factory=lambda: ["pythia-70m", "pythia-410m", "pythia-2.8b"])
    """Pythia sizes, or `tiny`."""

    methods: list[str] = field(default_factory=lambda: ["l2e", "memel", "published_memel"])
    """What is held against `none`; `published_memel` is `l2e.benchmarks.published_memel`."""

    micro_batch_size: int | None = None
    """Sequences of a forward pass; null: the published run's (32, 32, 16)."""

    micro_batches: int = 1
    """Forward passes of an update. The paper's 1024 sequences are 1.3 (2.8B: 2.7) of them on each of 24 GPUs, 4 (8) on
    each of 8; what a method costs once per update weighs most with 1."""

    seq_length: int = 2048
    """Tokens of a sequence."""

    rounds: int = 10
    """Timings of each method."""

    seconds: float = 1.0
    """A timing takes as many steps as fill this, at least one."""

    minutes: float | None = None
    """Shared by the sizes; after its part a size begins no further round, after all no size is begun, and what was not
    measured is named. null: no limit."""

    precision: Literal["fp32", "bf16"] = "bf16"
    """Of weights and activations; the optimizer's copy is fp32."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes the GPU if there is one."""

    compile: bool | None = None
    """As `training.compile`; null: on a GPU."""

    activation_checkpointing: bool | None = None
    """As `training.activation_checkpointing`; null: where the memory does not do without."""

    blocks: str | list[int] = "middle-2"
    """Tapped blocks."""

    rate: float = 0.02
    """Share of the outputs that is inhibited."""

    output: str | None = None
    """Folder for `table2-<device>.json`, written anew after every size."""

    def __post_init__(self) -> None:
        require_whole(self, ("micro_batch_size", "micro_batches", "seq_length", "rounds"))
        if not self.seconds >= 0:
            raise ValueError(f"seconds must be at least 0, not {self.seconds}")
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f"minutes must be above 0 or null, not {self.minutes}")
        if not 0 < self.rate < 1:
            raise ValueError(f"rate must lie in (0, 1), not {self.rate}")
        require_precision(self.precision)
        if self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"device must be one of auto, cpu, cuda, not {self.device!r}")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device: torch sees no GPU here; take cpu")
        for key, known in (("models", None), ("methods", (*OURS, *PUBLISHED))):
            given = getattr(self, key)
            if not isinstance(given, list) or not given or len(set(given)) != len(given):
                raise ValueError(f"{key} must be a list, each once, not {given!r}")
            if known and (wrong := [name for name in given if name not in known]):
                raise ValueError(f"{key}: each must be one of {', '.join(known)}, not {wrong[0]!r}")
        for model in self.models:
            select_blocks(pythia_size(model).layers, self.blocks)

    def torch_device(self) -> torch.device:
        """The device that `device` stands for."""
        return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if self.device == "auto" else self.device)

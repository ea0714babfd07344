"""DeepSpeed's settings from ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from l2e.training.config import DeepSpeedConfig, TrainingConfig

DECIDED_ELSEWHERE = {
    "train_batch_size": "training.batch_size",
    "train_micro_batch_size_per_gpu": "training.micro_batch_size",
    "gradient_accumulation_steps": "training.micro_batch_size",
    "managed_gradient_accumulation": "training.micro_batch_size",
    "gradient_clipping": "training.clip",
    "optimizer": "training.lr, betas, eps and weight_decay",
    "scheduler": "training.schedule",
    "fp16.enabled": "training.precision",
    "bf16.enabled": "training.precision",
    "bfloat16": "training.precision",
    "amp": "training.precision",
    "torch_autocast": "training.precision",
    "data_types": "training.precision",
    "activation_checkpointing": "training.activation_checkpointing",
    "compile": "training.compile",
    "communication_data_type": "deepspeed.communication_dtype",
    "zero_optimization.stage": "deepspeed=zero0 to zero3",
    "zero_optimization.offload_optimizer.device": "deepspeed.offload_optimizer",
    "zero_optimization.offload_param.device": "deepspeed.offload_param",
    "zero_optimization.overlap_comm": "deepspeed.overlap_comm",
    "zero_optimization.reduce_bucket_size": "deepspeed.reduce_bucket_size",
    "zero_optimization.allgather_bucket_size": "deepspeed.allgather_bucket_size",
}
"""Keys that `deepspeed.extra` must leave alone, and what sets them."""


PYTHIA_LOSS_SCALE = {"initial_scale_power": 12, "loss_scale_window": 1000, "hysteresis": 2, "min_loss_scale": 1}
"""Of fp16 (pythia.md D.4): starts at 4096, doubles after 1000 updates, halves at the second overflow."""


def deepspeed_settings(
    training: TrainingConfig, zero: DeepSpeedConfig, *, micro_batch_size: int, accumulation: int, parameters: int
) -> dict[str, Any]:
    """What `deepspeed.initialize` takes as its config.

    Args:
        training: precision and clipping.
        zero: stage, offload, communication.
        micro_batch_size: sequences of one forward pass on one rank.
        accumulation: forward passes per update.
        parameters: how many the model has; buckets are no larger, since DeepSpeed allocates them whole.
    """
    # DeepSpeed asks for even buckets.
    bucket = {"reduce_bucket_size": zero.reduce_bucket_size, "allgather_bucket_size": zero.allgather_bucket_size}
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": training.clip,
        "steps_per_print": 1 << 62,
        "zero_optimization": {
            "stage": zero.stage,
            "overlap_comm": zero.overlap_comm,
            "offload_optimizer": {"device": zero.offload_optimizer},
            "offload_param": {"device": zero.offload_param},
            **{key: min(size, parameters + 1) // 2 * 2 or size for key, size in bucket.items()},
        },
        "zero_allow_untested_optimizer": True,
        # The optimizer is PyTorch's wherever it runs: DeepSpeed's own for the CPU would be compiled at the start.
        "zero_force_ds_cpu_optimizer": False,
        # Gradients of many ranks would lose their small parts in bf16. Pythia averaged fp16 in fp16, bf16 in fp32.
        "communication_data_type": zero.communication_dtype or ("fp16" if training.precision == "fp16" else "fp32"),
        # DeepSpeed's own stopwatch waits for the device in every forward pass and every update.
        "timers": {"throughput": {"enabled": False}},
    }
    if training.precision == "bf16":
        # Gradients of a long accumulation would lose their small parts in bf16.
        settings |= {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}}
    if training.precision == "fp16":
        settings["fp16"] = {"enabled": True, **PYTHIA_LOSS_SCALE}
    return _merged(settings, zero.extra)


def decided_elsewhere(extra: dict[str, Any]) -> tuple[str, str] | None:
    """The first key of `extra` that another setting decides, with that setting's name; None if there is none."""
    for path in _paths(extra):
        for key, ours in DECIDED_ELSEWHERE.items():
            if f"{path}.".startswith(f"{key}.") or f"{key}.".startswith(f"{path}."):
                return path, ours
    return None


def _paths(tree: dict[str, Any], where: str = "") -> Iterator[str]:
    """The keys of all values that are no dict, parts joined by dots."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _paths(value, f"{where}{key}.")
        else:
            yield f"{where}{key}"


def _merged(settings: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    merged = dict(settings)
    for key, value in extra.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged

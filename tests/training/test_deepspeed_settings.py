"""What DeepSpeed is told, and what a user may not tell it."""

from typing import Any

import pytest
import torch

from l2e.errors import UserError
from l2e.settings import build_settings
from l2e.training.config import DeepSpeedConfig, TrainingConfig
from l2e.training.deepspeed_settings import DECIDED_ELSEWHERE, deepspeed_settings

PYTHIA_FP16 = {
    "enabled": True,
    "loss_scale_window": 1000,
    "initial_scale_power": 12,
    "hysteresis": 2,
    "min_loss_scale": 1,
}
"""As published in EleutherAI/pythia models/70M/pythia-70m.yml; its "loss_scale": 0 (dynamic) is DeepSpeed's default."""


def settings(precision: Any = "fp32", parameters: int = 10**12, **zero: Any) -> dict[str, Any]:
    training = TrainingConfig(steps=1, batch_size=8, seq_length=2, lr=1e-3, clip=0.5, precision=precision)
    return deepspeed_settings(
        training, DeepSpeedConfig(**zero), micro_batch_size=2, accumulation=4, parameters=parameters
    )


def test_fp16_scales_the_loss_as_pythia_did() -> None:
    assert settings("fp16")["fp16"] == PYTHIA_FP16
    assert "bf16" not in settings("fp16")


def test_the_loss_scale_doubles_after_its_window() -> None:
    """The part of it that six updates do not show (test_engine_against_plain_pytorch.py shows the rest)."""
    from deepspeed.runtime.fp16.loss_scaler import CreateLossScaler
    from deepspeed.runtime.precision_config import get_float16_config

    given = get_float16_config(settings("fp16")).dynamic_loss_scale_args()
    scaler = CreateLossScaler(torch.half, 0, True, given)
    scales = []
    for _ in range(1001):
        scaler.update_scale(overflow=False)
        scales.append(scaler.loss_scale)
    assert scales[:1000] == [4096] * 1000
    assert scales[1000] == 8192


def test_bf16_is_added_up_and_averaged_in_fp32() -> None:
    given = settings("bf16")
    assert given["bf16"] == {"enabled": True}
    assert given["data_types"] == {"grad_accum_dtype": "fp32"}
    assert given["communication_data_type"] == "fp32"


def test_gradients_are_averaged_in_what_is_asked_for() -> None:
    found = [settings(precision)["communication_data_type"] for precision in ("fp32", "bf16", "fp16")]
    assert found == ["fp32", "fp32", "fp16"]
    assert settings("fp16", communication_dtype="fp32")["communication_data_type"] == "fp32"


@pytest.mark.parametrize(
    ("parameters", "asked", "bucket"),
    [(10**12, 500_000_000, 500_000_000), (70_426_624, 500_000_000, 70_426_624), (7, 500_000_000, 8), (7, 4, 4)],
)
def test_buckets_are_no_larger_than_the_model_and_even(parameters: int, asked: int, bucket: int) -> None:
    zero = settings(parameters=parameters, reduce_bucket_size=asked, allgather_bucket_size=asked)["zero_optimization"]
    assert zero["reduce_bucket_size"] == zero["allgather_bucket_size"] == bucket


def test_nothing_is_compiled_or_waited_for() -> None:
    given = settings(offload_optimizer="cpu")
    assert given["zero_force_ds_cpu_optimizer"] is False
    assert "optimizer" not in given
    assert given["timers"]["throughput"]["enabled"] is False


def test_extra_is_merged_last_and_deep() -> None:
    extra = {"zero_optimization": {"round_robin_gradients": True}, "fp16": {"hysteresis": 4}, "steps_per_print": 5}
    given = settings("fp16", stage=2, extra=extra)
    assert given["zero_optimization"]["round_robin_gradients"] is True
    assert given["zero_optimization"]["stage"] == 2
    assert given["fp16"] == {**PYTHIA_FP16, "hysteresis": 4}
    assert given["steps_per_print"] == 5
    assert given["gradient_clipping"] == 0.5


def nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


@pytest.mark.parametrize("key", DECIDED_ELSEWHERE)
def test_extra_may_not_decide_what_other_settings_do(key: str) -> None:
    for given in (nested(key, 1), nested(key, {"enabled": True}), nested(key.split(".")[0], None)):
        with pytest.raises(UserError, match=r"deepspeed: extra\.[\w.]+: this is decided by (training|deepspeed)[.=]"):
            build_settings(DeepSpeedConfig, {"extra": given}, "deepspeed")


def test_all_that_is_set_here_is_named_there_or_free_to_change() -> None:
    """A setting of ours that `extra` could overrule unseen."""
    free = {"steps_per_print", "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer", "timers"}
    set_here = {key for precision in ("fp32", "bf16", "fp16") for key in settings(precision)}
    assert set_here - free <= {key.split(".")[0] for key in DECIDED_ELSEWHERE}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"offload_optimizer": "nvme"}, "deepspeed.offload_optimizer: input should be 'none' or 'cpu', not \"nvme\""),
        ({"stage": 0, "offload_optimizer": "cpu"}, "offload_optimizer: cpu needs deepspeed=zero1 or higher, not zero0"),
        ({"stage": 2, "offload_param": "cpu"}, "offload_param: cpu needs deepspeed=zero3, not zero2"),
        ({"stage": 4}, "deepspeed.stage: input should be 0, 1, 2 or 3, not 4"),
        ({"reduce_bucket_size": 0}, "reduce_bucket_size must be at least 1, not 0"),
        ({"allgather_bucket_size": 1}, "allgather_bucket_size must be at least 2, not 1"),
        ({"communication_dtype": "fp8"}, "deepspeed.communication_dtype: input should be 'fp32', 'bf16' or 'fp16'"),
        ({"bucket": 3}, "deepspeed.bucket: unknown setting"),
    ],
)
def test_impossible_settings(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        build_settings(DeepSpeedConfig, given, "deepspeed")
    assert message in str(error.value)

"""What DeepSpeed's engine is made of: taken out without touching a disk, and put back."""

import io
from pathlib import Path
from typing import Any

import torch
from torch import nn

from l2e.errors import UserError
from l2e.training.deepspeed_import import TorchCheckpointEngine, deepspeed

TAG = "engine"
"""Folder of DeepSpeed's files within a restart point."""


class _Collector(TorchCheckpointEngine):
    """Keeps what DeepSpeed would write."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, memoryview] = {}

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Touch no disk."""

    def save(self, state_dict: Any, path: str) -> None:
        """Keep the file's bytes."""
        self.files[f"{TAG}/{Path(path).name}"] = to_bytes(state_dict)


def to_bytes(state: Any) -> memoryview:
    """The bytes of the file that torch.save would write; later changes to `state` do not reach them."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getbuffer()


def snapshot(engine: deepspeed.DeepSpeedEngine) -> dict[str, memoryview]:
    """This rank's files of a checkpoint, by their path in the restart point; every rank must call it.

    DeepSpeed writes within a collective call: a full disk on one rank would leave the others waiting in it.
    """
    collector, usual = _Collector(), engine.checkpoint_engine
    engine.checkpoint_engine = collector
    engine._copy_recovery_script = lambda folder: None  # it would copy two scripts
    try:
        state = {"parameter_names": _parameter_names(engine)}
        engine.save_checkpoint(".", tag=TAG, client_state=state, save_latest=False)
    finally:
        engine.checkpoint_engine = usual
        del engine._copy_recovery_script
    return collector.files


def restore(engine: deepspeed.DeepSpeedEngine, folder: Path) -> None:
    """Read a checkpoint of the same number of ranks and the same ZeRO stage."""
    path, _ = engine.load_checkpoint(str(folder), tag=TAG)
    if path is None:
        raise UserError(f"{folder}: DeepSpeed could not load this restart point")


def restore_universal(engine: deepspeed.DeepSpeedEngine, folder: Path) -> None:
    """Read a checkpoint that `convert` made, for any number of ranks and any stage."""
    if engine.zero_optimization_stage() == 0:
        _restore_plain(engine, folder / TAG)
        return
    # DeepSpeed's stage 3 gives all groups the first one's settings, its weight decay too, and one tensor as
    # their number of updates, which each group would then count on.
    settings = [{k: v for k, v in group.items() if k != "params"} for group in engine.optimizer.param_groups]
    engine._config.load_universal_checkpoint = True
    try:
        restore(engine, folder)
    finally:
        engine._config.load_universal_checkpoint = False
    for group, kept in zip(engine.optimizer.param_groups, settings, strict=True):
        group.update(kept)
    for parameter, state in engine.optimizer.optimizer.state.items():
        state["step"] = state["step"].to(parameter.device, copy=True)


def _restore_plain(engine: deepspeed.DeepSpeedEngine, folder: Path) -> None:
    """Without ZeRO, the optimizer is PyTorch's own."""
    if not isinstance(engine.optimizer, torch.optim.Optimizer):
        raise UserError("deepspeed.stage: a converted restart point is read by stage 0 in fp32 alone; take stage 1")
    names = {id(parameter): name for name, parameter in engine.module.named_parameters()}

    def read(parameter: nn.Parameter, key: str) -> Any:
        found = torch.load(folder / "zero" / names[id(parameter)] / f"{key}.pt", map_location="cpu", weights_only=False)
        return found["param"].view(parameter.shape).to(parameter.device) if isinstance(found, dict) else found

    for group in engine.optimizer.param_groups:
        for parameter in group["params"]:
            parameter.data.copy_(read(parameter, "fp32"))
            state = {key: read(parameter, key) for key in ("exp_avg", "exp_avg_sq")}
            step = torch.as_tensor(read(parameter, "step"), dtype=torch.float32, device=parameter.device)
            engine.optimizer.state[parameter] = {"step": step.clone(), **state}


def _parameter_names(engine: deepspeed.DeepSpeedEngine) -> list[str]:
    """In the order in which PyTorch's optimizer numbers the parameters; empty under ZeRO, which keeps names."""
    if engine.zero_optimization_stage() > 0:
        return []
    names = {id(parameter): name for name, parameter in engine.module.named_parameters()}
    return [names.get(id(p), "") for group in engine.optimizer.param_groups for p in group["params"]]

"""From a restart point of one layout to one that every number of ranks and every ZeRO stage can read.

The files are DeepSpeed's universal checkpoint: weights and both moments of each parameter, whole and in fp32.
DeepSpeed's converter writes one form for stages 1 and 2 and another for stage 3; here all get the same.
"""

import contextlib
import io
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch

from l2e.errors import UserError
from l2e.files import flush_to_disk
from l2e.manifest import DamagedError, verify, write_manifest
from l2e.training.deepspeed_import import ds_to_universal
from l2e.training.engine_state import TAG
from l2e.training.restart_points import TRAINER_FILE, UNIVERSAL, RestartPoint, verified

MODEL_FILES = ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_model_states.pt")
"""Where stages 0 to 2 and stage 3 look for what all ranks share."""

_SHARED = ("loss_scaler", "dynamic_loss_scale", "overflow", "clip_grad", "ds_version")
_TENSORS = ("fp32", "exp_avg", "exp_avg_sq")


def convert_restart_point(point: RestartPoint) -> Path:
    """Write `step<N>-universal` beside `step<N>`; it appears when it is complete.

    Returns:
        The new folder, or the one that is there, if it is whole.

    Raises:
        UserError: the restart point is damaged, or cannot be converted.
    """
    final = point.folder.with_name(f"{point.folder.name}-{UNIVERSAL}")
    manifest = verified(point)
    if final.exists():
        with contextlib.suppress(DamagedError):
            verify(final)
            return final
    temporary = final.with_name(f".{final.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        convert(point.folder / TAG, temporary / TAG, manifest["stage"])
        shutil.copy(point.folder / TRAINER_FILE, temporary)
        facts = {key: value for key, value in manifest.items() if key not in ("files", "sha256")}
        write_manifest(temporary, {**facts, "kind": "converted restart point"})
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if final.exists():
        shutil.rmtree(final)  # damaged
    temporary.rename(final)
    flush_to_disk(final.parent)
    return final


def convert(source: Path, target: Path, stage: int) -> None:
    """Write the universal form of DeepSpeed's files.

    Args:
        source: folder with DeepSpeed's files.
        target: folder to make; may not exist.
        stage: ZeRO stage that wrote them.

    Raises:
        UserError: stage 0 in half precision, whose master weights DeepSpeed keeps in a form of its own.
    """
    common = _read(sorted(source.glob("*model_states.pt"))[0])
    if stage == 0:
        shared = _write_parameters(common, target)
    else:
        _run_deepspeeds(source, target)
        shared = _read(target / "zero" / "optimizer_state.pt")
    shapes = {name: shape for group in common["param_shapes"] or [] for name, shape in group.items()}
    _complete(target, shared | {"ds_version": common["ds_version"]}, shapes)
    for stale in target.glob("*model_states.pt"):
        stale.unlink()
    for name in MODEL_FILES:
        torch.save({**common, "module": {}, "optimizer": None}, target / name)


def whole_weights(folder: Path, stage: int, universal: bool) -> dict[str, torch.Tensor]:
    """Weights by name, in the precision of training or in fp32, on the CPU.

    Args:
        folder: a restart point.
        stage: ZeRO stage that wrote it.
        universal: whether it was converted.
    """
    engine = folder / TAG
    if universal:
        files = sorted((engine / "zero").rglob("fp32.pt"))
        return {path.parent.relative_to(engine / "zero").as_posix(): _read(path)["param"] for path in files}
    if stage < 3:
        return _read(engine / MODEL_FILES[0])["module"]
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    with contextlib.redirect_stdout(io.StringIO()):
        return get_fp32_state_dict_from_zero_checkpoint(str(folder), tag=TAG)


def _run_deepspeeds(source: Path, target: Path) -> None:
    settings = Namespace(
        input_folder=str(source),
        output_folder=str(target),
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        ds_to_universal.main(settings)
    (target.parent / "latest_universal").unlink(missing_ok=True)
    shutil.rmtree(target / "tmp", ignore_errors=True)


def _write_parameters(common: dict[str, Any], target: Path) -> dict[str, Any]:
    """Stage 0 holds everything in one file; returns what it says of the optimizer."""
    optimizer = common["optimizer"]
    if set(optimizer) != {"state", "param_groups"}:
        raise UserError("a restart point of deepspeed.stage 0 in half precision cannot be converted")
    for index, name in enumerate(common["parameter_names"]):
        state = {"fp32": common["module"][name], **optimizer["state"][index]}
        folder = target / "zero" / name
        folder.mkdir(parents=True)
        for key in _TENSORS:
            torch.save({"param": state[key].clone()}, folder / f"{key}.pt")
        torch.save(state["step"].clone(), folder / "step.pt")
    return {"param_groups": optimizer["param_groups"]}


def _complete(target: Path, shared: dict[str, Any], shapes: dict[str, torch.Size]) -> None:
    """Whole tensors, the number of updates beside each, and one description of the optimizer for all stages."""
    zero = target / "zero"
    folders = [path.parent for path in sorted(zero.rglob("exp_avg.pt"))]
    known = folders[0] / "step.pt"
    step = _read(known) if known.exists() else shared["optimizer_state_dict"]["state"][0]["step"]
    for folder in folders:
        torch.save(step, folder / "step.pt")
        for key in _TENSORS:
            found = _read(folder / f"{key}.pt")
            if not isinstance(found, dict):  # stage 3's are flat
                torch.save({"param": found.view(shapes[folder.relative_to(zero).as_posix()])}, folder / f"{key}.pt")
    groups = [{key: value for key, value in group.items() if key != "params"} for group in shared["param_groups"]]
    kept = {key: shared[key] for key in _SHARED if key in shared}
    inner = {"state": {0: {"step": step}}, "param_groups": groups}
    torch.save({**kept, "param_groups": groups, "optimizer_state_dict": inner}, zero / "optimizer_state.pt")


def _read(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=False)

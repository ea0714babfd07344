"""The inhibition that a model was trained with, in two files beside its weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from l2e.errors import UserError
from l2e.files import write_atomically

SETTINGS, TENSORS = "inhibition.json", "inhibition.safetensors"


def packed(state: Mapping[str, Any]) -> dict[str, bytes]:
    """Name and content of the files that hold a state of `Inhibition.state_dict`; equal states give equal bytes."""
    tensors: dict[str, torch.Tensor] = {}
    taps = [[key, _without_tensors(tap, str(key), tensors)] for key, tap in state["taps"].items()]
    text = json.dumps({"config": state["config"], "taps": taps}, indent=1, sort_keys=True) + "\n"
    return {SETTINGS: text.encode(), TENSORS: safetensors.torch.save(tensors)}


def write_inhibition(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the files into a model's folder."""
    for name, content in packed(state).items():
        write_atomically(folder / name, content)


def read_inhibition(folder: Path) -> dict[str, Any]:
    """The state that `write_inhibition` wrote, on the CPU.

    Raises:
        UserError: it is not there, or damaged.
    """
    absent = [name for name in (SETTINGS, TENSORS) if not (folder / name).is_file()]
    if absent:
        raise UserError(
            f"{folder / absent[0]} does not exist: the statistics and the threshold of training are not beside this "
            f"model. Exports of runs whose method edits activations hold them; a restart point of the same update "
            f"gives them too: python scripts/export.py run=RUN step=N output=FOLDER"
        )
    try:
        found = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        tensors = safetensors.torch.load((folder / TENSORS).read_bytes())
        return {"config": found["config"], "taps": {key: _with_tensors(tap, tensors) for key, tap in found["taps"]}}
    except (ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise UserError(f"{folder / SETTINGS}, {TENSORS}: no inhibition ({error}); export the run anew") from None


def _without_tensors(tree: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """The tree with {"tensor": name} in place of each tensor, which goes into `tensors`."""
    if isinstance(tree, torch.Tensor):
        tensors[name] = tree.detach().cpu().clone().contiguous()
        return {"tensor": name}
    if isinstance(tree, dict):
        return {key: _without_tensors(value, f"{name}.{key}", tensors) for key, value in tree.items()}
    return tree


def _with_tensors(tree: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if not isinstance(tree, dict):
        return tree
    if tree.keys() == {"tensor"}:
        return tensors[tree["tensor"]]
    return {key: _with_tensors(value, tensors) for key, value in tree.items()}

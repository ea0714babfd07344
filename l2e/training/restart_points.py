"""Restart points: what they are called, which one a run continues from, which are kept.

`step<N>` is read by the layout (ranks, ZeRO stage) that wrote it, `step<N>-universal` by every layout.
"""

import logging
import re
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from l2e.errors import UserError
from l2e.manifest import DamagedError, Manifest, hash_of, read_manifest, verify

log = logging.getLogger("l2e.training")

UNIVERSAL = "universal"
TRAINER_FILE = "trainer.pt"


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What the weights of a run come from."""

    config: dict[str, Any]
    """The settings that decide the weights, as a tree."""

    data: dict[str, Any]
    """The data's fingerprint."""

    ranks: int
    stage: int
    precision: str
    versions: dict[str, str]
    git: dict[str, Any]

    def facts(self, kind: str, step: int) -> Manifest:
        """What a manifest says, but for the files."""
        return {"kind": kind, "step": step, "config_sha256": hash_of(self.config), **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class RestartPoint:
    """A folder that was written completely."""

    folder: Path
    step: int
    universal: bool

    @property
    def key(self) -> tuple[int, bool]:
        """Newest first; of one step, the layout's own before the converted one."""
        return -self.step, self.universal


def restart_points(folder: Path) -> list[RestartPoint]:
    """The restart points in `folder`, newest first; not yet verified."""
    found = []
    for path in folder.glob("step*"):
        match = re.fullmatch(rf"step(\d+)(-{UNIVERSAL})?", path.name)
        if match:
            found.append(RestartPoint(folder=path, step=int(match[1]), universal=bool(match[2])))
    return sorted(found, key=lambda point: point.key)


def choose(folder: Path, wanted: Identity) -> RestartPoint | None:
    """The restart point to continue from; None when there is none at all.

    A damaged one is named in a warning, set aside as `<name>.damaged`, and the one before is taken.

    Raises:
        UserError: the newest is of another config, other data or another layout; or all are damaged.
    """
    damaged: list[tuple[RestartPoint, str]] = []
    for step, points in _by_step(restart_points(folder)):
        other_layouts = []
        for point in points:
            try:
                manifest = read_manifest(point.folder)
                if not point.universal and _layout(manifest) != (wanted.ranks, wanted.stage):
                    other_layouts.append(manifest)
                    continue
                _refuse_another_run(point, manifest, wanted)
                verify(point.folder)
            except DamagedError as error:
                damaged.append((point, str(error)))
                continue
            _set_aside(damaged, step)
            return point
        if other_layouts:
            found = [error for _, error in damaged] + [
                _other_layout(folder, other_layouts[0], wanted.ranks, wanted.stage)
            ]
            raise UserError("; ".join(found))
    if damaged:
        raise UserError(
            f"no restart point in {folder} can be used: {'; '.join(error for _, error in damaged)}. "
            f"Put the files back, or remove {folder} to start from the beginning"
        )
    return None


def find(folder: Path, step: int | None, *, universal: bool = True) -> RestartPoint:
    """The restart point of `step`, or the newest; not yet verified.

    Args:
        folder: the run's `checkpoints` folder.
        step: None takes the newest.
        universal: whether a converted one will do.

    Raises:
        UserError: there is none.
    """
    points = [point for point in restart_points(folder) if universal or not point.universal]
    for point in points:
        if step in (None, point.step):
            return point
    there = ", ".join(point.folder.name for point in reversed(points)) or "none"
    wanted = "no restart point" if step is None else f"no restart point of step {step}"
    raise UserError(f"{wanted} in {folder}; there: {there}")


def verified(point: RestartPoint) -> Manifest:
    """Its manifest, with every file as it says.

    Raises:
        UserError: a file is missing or damaged.
    """
    try:
        return verify(point.folder)
    except DamagedError as error:
        raise UserError(f"the restart point is damaged: {error}; take another with step=...") from None


def check_layout(folder: Path, ranks: int, stage: int) -> None:
    """Refuse what `choose` would refuse for its layout, before anything is loaded.

    Raises:
        UserError: the newest restart point was written by other ranks or another stage, and is not converted.
    """
    for _, points in _by_step(restart_points(folder)):
        manifests = []
        for point in points:
            try:
                manifests.append((point, read_manifest(point.folder)))
            except DamagedError:
                continue  # `choose` names it
        if any(point.universal or _layout(manifest) == (ranks, stage) for point, manifest in manifests):
            return
        if manifests:
            raise UserError(_other_layout(folder, manifests[0][1], ranks, stage))


def prune(folder: Path, keep: int) -> None:
    """Remove all but the restart points of the last `keep` steps.

    Each is renamed first: a kill in the middle leaves what `remove_leftovers` removes, and no half restart point.
    """
    for _, points in _by_step(restart_points(folder))[keep:]:
        for point in points:
            old = point.folder.with_name(f".{point.folder.name}.old.tmp")
            point.folder.rename(old)
            shutil.rmtree(old)


def remove_leftovers(folder: Path) -> None:
    """Remove what an interrupted save left behind."""
    for path in folder.glob(".step*.tmp"):
        shutil.rmtree(path)


def differences(held: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Dotted keys of two trees of settings that differ."""
    one, two = flatten(held), flatten(wanted)
    return [key for key in sorted({*one, *two}) if one.get(key) != two.get(key)]


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys to the leaves of a tree."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {k: v for key, value in tree.items() for k, v in flatten(value, f"{prefix}.{key}".lstrip(".")).items()}


def _by_step(points: Iterable[RestartPoint]) -> list[tuple[int, list[RestartPoint]]]:
    steps: dict[int, list[RestartPoint]] = {}
    for point in points:
        steps.setdefault(point.step, []).append(point)
    return list(steps.items())


def _layout(manifest: Manifest) -> tuple[int, int]:
    return manifest["ranks"], manifest["stage"]


def _refuse_another_run(point: RestartPoint, manifest: Manifest, wanted: Identity) -> None:
    before, now = manifest["data"], wanted.data
    data = [f"{k} was {before.get(k)} and is {now.get(k)}" for k in before | now if before.get(k) != now.get(k)]
    if data:
        raise UserError(f"the data has changed since the restart point of step {point.step}: {'; '.join(data)}")
    keys = [key for key in differences(manifest["config"], wanted.config) if key != "deepspeed.stage"]
    if keys:
        held, here = flatten(manifest["config"]), flatten(wanted.config)
        shown = ", ".join(f"{key} is {held.get(key)} there and {here.get(key)} here" for key in keys)
        raise UserError(f"{point.folder} belongs to a run with another config: {shown}; remove it, or give it back")


def _other_layout(folder: Path, manifest: Manifest, ranks: int, stage: int) -> str:
    return (
        f"the restart point of step {manifest['step']} in {folder} was written by {manifest['ranks']} ranks with "
        f"deepspeed.stage={manifest['stage']}, this run has {ranks} with deepspeed.stage={stage}; go on with those, "
        f"or convert it (equal but for rounding): python scripts/convert.py run={folder.parent}"
    )


def _set_aside(damaged: list[tuple[RestartPoint, str]], step: int) -> None:
    for point, error in damaged:
        aside = point.folder.with_name(f"{point.folder.name}.damaged")
        shutil.rmtree(aside, ignore_errors=True)
        point.folder.rename(aside)
        log.warning("skipped a damaged restart point (now %s): %s; going on from step %d", aside.name, error, step)

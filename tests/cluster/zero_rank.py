"""One process of test_zero_memory.py: real engines, and the bytes of the tensors that they hold.

Nothing here knows the planner: tensors are found by the garbage collector and counted by storage; what lives
shortly is taken from PyTorch's profile of allocations.
"""

import gc
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from l2e.models import build_pythia
from l2e.training.config import DeepSpeedConfig, TrainingConfig
from l2e.training.loss import next_token_loss

BUCKET = 500_000_000
"""The engine caps the bucket at the model's size, where it could not be told from the weights by its size."""


class Host(str):
    """The CPU under another name: the engine refuses fp16 there because it is slow; what is held is the same."""

    type = "host"


SEQUENCES, LENGTH = 1, 4  # activations must not matter here


def storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Bytes of each storage by address; empty ones and single numbers left out."""
    found = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if not t.is_meta}
    return {address: size for address, size in found.items() if size > 512}


def alive() -> list[Tensor]:
    """All tensors of this process, gradients included."""
    gc.collect()
    known = [o for o in gc.get_objects() if type(o) in (Tensor, nn.Parameter)]
    return known + [t.grad for t in known if t.grad is not None]


def size(found: dict[int, int], *without: dict[int, int]) -> int:
    return sum(count for address, count in found.items() if not any(address in other for other in without))


def allocation_peak(record: Any, bucket: int) -> int:
    """Largest sum of allocations that were not yet freed; the reduction bucket is left out."""
    level = top = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]" and abs(event.nbytes()) != bucket:
            level += event.nbytes()
            top = max(top, level)
    return top


def measure(case: dict[str, Any], folder: Path, device: torch.device, ranks: int) -> dict[str, float]:
    """Bytes by part of one engine, and of the files that it saves."""
    from l2e.training import engine as engine_module
    from l2e.training.deepspeed_settings import deepspeed_settings

    def settings(*arguments: Any, **sizes: Any) -> dict[str, Any]:
        made = deepspeed_settings(*arguments, **sizes)
        made["zero_optimization"]["reduce_bucket_size"] = BUCKET
        return made

    engine_module.deepspeed_settings = settings  # type: ignore[assignment]
    others = alive()  # held, so that no address is given out again
    before = storages(others)
    model = build_pythia(case["model"], seed=1, max_length=64).train()
    training = TrainingConfig(
        steps=5, batch_size=2 * SEQUENCES * ranks, seq_length=LENGTH, lr=1e-3, precision=case["precision"]
    )
    engine = engine_module.Engine(
        model,
        training,
        DeepSpeedConfig(stage=case["stage"]),
        micro_batch_size=SEQUENCES,
        accumulation=2,
        device=Host(device.type),  # type: ignore[arg-type]
    )

    def micro_batch() -> None:
        tokens = torch.randint(0, 700, (SEQUENCES, LENGTH + 1))
        engine.backward(next_token_loss(engine.forward(tokens[:, :-1]), tokens[:, 1:]))

    engine.train()
    for _ in range(2):
        micro_batch()
    engine.update(1e-3)
    wrapped = getattr(engine.optimizer, "optimizer", engine.optimizer)
    weights = storages(getattr(p, "ds_tensor", p) for p in model.parameters())
    whole = storages(model.parameters())
    flat = getattr(engine.optimizer, "fp32_partitioned_groups_flat", [])
    master = storages([*(p for group in wrapped.param_groups for p in group["params"]), *flat])
    moments = storages(t for state in wrapped.state.values() for t in state.values() if isinstance(t, Tensor))
    known = (before, weights, whole, master, moments)
    element = next(model.parameters()).element_size()
    bucket = BUCKET * (4 if (case["stage"], case["precision"]) == (3, "bf16") else element)  # what travels is fp32
    buffers = {address: count for address, count in storages(alive()).items() if count != bucket}
    parts = {
        "weights": size(weights),
        "master": size(master, weights),
        "moments": size(moments),
        "accumulated": size(buffers, *known),
    }
    micro_batch()
    if ranks > 1:
        # The threads of the reduction let go of what they sent a moment later (once they were seen to hold it still).
        dist.barrier()
        time.sleep(0.3)
    whole = storages(model.parameters())
    now = {address: count for address, count in storages(alive()).items() if count != bucket}
    parts["gathered"] = size(whole, weights)
    parts["gradients"] = size(now, *known, whole) - parts["accumulated"]
    micro_batch()
    engine.update(1e-3)
    # A whole update: the profile knows nothing of what was allocated before it.
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        micro_batch()
        micro_batch()
        engine.update(1e-3)
    parts["rise"] = allocation_peak(record, bucket)
    for name, content in engine.snapshot().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    engine.close()
    del others
    return parts


def main(cases: Path, folder: Path) -> None:
    """Measure all cases and write what this rank saw."""
    import deepspeed

    from l2e.training.engine import process_group

    # DeepSpeed refuses fp16 on a CPU too.
    deepspeed.accelerator.get_accelerator().is_fp16_supported = lambda: True
    gc.freeze()
    with process_group() as device:
        rank, ranks = dist.get_rank(), dist.get_world_size()
        found = {}
        for name, case in json.loads(cases.read_text()).items():
            target = folder / name
            target.mkdir(exist_ok=True)
            found[name] = measure(case, target, device, ranks)
        (folder / f"rank{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

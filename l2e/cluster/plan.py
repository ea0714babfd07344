"""A plan: all that can be said of a run before its first update."""

from dataclasses import asdict, dataclass
from typing import Any

from l2e.cluster.advice import problems
from l2e.cluster.audit import Difference, audit
from l2e.cluster.compute import Compute, compute
from l2e.cluster.disk import Disk, disk
from l2e.cluster.memory import GIB, Allowance, Memory, peak_memory
from l2e.cluster.published_pythia import not_reachable
from l2e.cluster.workload import Workload, embedding_parameters, parameters


@dataclass(frozen=True, kw_only=True)
class Device:
    """One GPU as planned with."""

    name: str
    memory_gib: float
    peak_tflops: float
    bf16: bool = True


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The parts of a plan; `as_dict` is plan.json."""

    work: Workload
    device: Device
    gpus_per_node: int
    mfu_source: str
    compute: Compute
    memory: Memory
    disk: Disk
    differences: list[Difference] | None
    problems: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers under names that stay: bytes, seconds, hours, counts."""
        work = self.work
        return {
            "model": work.model.name,
            "parameters": {
                "total": parameters(work.size),
                "non_embedding": parameters(work.size) - embedding_parameters(work.size),
            },
            "training": {
                "updates": work.training.steps,
                "tokens_per_update": work.tokens_per_update,
                "tokens": work.tokens,
                "micro_batch_size": work.micro_batch,
                "accumulation": work.accumulation,
                "precision": work.training.precision,
                "zero_stage": work.deepspeed.stage,
            },
            "device": asdict(self.device),
            "gpus": work.gpus,
            "nodes": -(-work.gpus // self.gpus_per_node),
            "compute": asdict(self.compute) | {"mfu_source": self.mfu_source},
            "memory": {
                "moment": self.memory.moment,
                "parts": self.memory.parts,
                "total": self.memory.total,
                "fits": self.memory.total <= self.device.memory_gib * GIB,
            },
            "disk": asdict(self.disk) | {"run": self.disk.run},
            "audit": {
                "differences": None if self.differences is None else [asdict(d) for d in self.differences],
                "not_reachable": not_reachable(work.model.name),
            },
            "problems": self.problems,
        }


def make_plan(
    work: Workload, device: Device, *, gpus_per_node: int, mfu: float, mfu_source: str, allowance: Allowance
) -> Plan:
    """Plan a run on `work.gpus` of `device`.

    Args:
        work: the run.
        device: one of its GPUs.
        gpus_per_node: of the cluster.
        mfu: share of the peak that the time is computed with.
        mfu_source: where it is from, for the reader.
        allowance: what no formula gives.
    """
    return Plan(
        work=work,
        device=device,
        gpus_per_node=gpus_per_node,
        mfu_source=mfu_source,
        compute=compute(work, peak_tflops=device.peak_tflops, mfu=mfu),
        memory=peak_memory(work, allowance),
        disk=disk(work),
        differences=audit(work),
        problems=problems(work, device.memory_gib, bf16=device.bf16, allowance=allowance),
    )

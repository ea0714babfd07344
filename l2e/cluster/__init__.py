"""What a run will cost, and how it differs from the published ones, before its first update."""

from l2e.cluster.audit import Difference, audit
from l2e.cluster.compute import Compute, compute, implied_mfu
from l2e.cluster.gpus import GPUS, Gpu
from l2e.cluster.memory import Allowance, Memory, peak_memory
from l2e.cluster.page import markdown, tables
from l2e.cluster.plan import Device, Plan, make_plan
from l2e.cluster.workload import Workload, parameters

__all__ = [
    "GPUS",
    "Allowance",
    "Compute",
    "Device",
    "Difference",
    "Gpu",
    "Memory",
    "Plan",
    "Workload",
    "audit",
    "compute",
    "implied_mfu",
    "make_plan",
    "markdown",
    "parameters",
    "peak_memory",
    "tables",
]

"""What a run will cost; the entry of scripts/plan.py."""

import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from l2e.cli.plan_config import PlanConfig
from l2e.cli.pretrain_config import PretrainConfig
from l2e.cluster import GPUS, Allowance, Device, Plan, Workload, make_plan, markdown, tables
from l2e.errors import UserError
from l2e.files import write_atomically
from l2e.models import pythia_size
from l2e.models.flops import flops_per_token
from l2e.reporting.runs import load_run
from l2e.settings import build_settings


def run(tree: dict[str, Any], overrides: list[str]) -> None:
    """Print the plan of the run that the same overrides would start, and write it where asked to.

    Raises:
        UserError: impossible settings; with `strict`, a run that could not start.
    """
    config = build_settings(PlanConfig, tree)
    plan = _plan(config)
    _print(plan, config.name)
    if config.output is not None:
        folder = Path(config.output)
        write_atomically(folder / "plan.json", json.dumps(plan.as_dict(), indent=2) + "\n")
        write_atomically(folder / "plan.md", markdown(plan, config.name))
        print(f"plan: {folder / 'plan.md'}")
    if config.strict and plan.problems:
        raise UserError(" | ".join(plan.problems))


def workload_of(config: PlanConfig | PretrainConfig, gpus: int) -> Workload:
    """What is planned, from the settings of a plan or of a run."""
    return Workload(
        model=config.model,
        data=config.data,
        training=config.training,
        deepspeed=config.deepspeed,
        checkpoint=config.checkpoint,
        inhibition=config.inhibition,
        gpus=gpus,
    )


def _plan(config: PlanConfig) -> Plan:
    work = workload_of(config, config.gpus)
    device = _device(config)
    mfu, source = config.mfu, "assumed"
    if config.from_run is not None:
        mfu, source = measured_mfu(Path(config.from_run), device.peak_tflops), f"measured in {config.from_run}"
    return make_plan(
        work,
        device,
        gpus_per_node=config.gpus_per_node,
        mfu=mfu,
        mfu_source=source,
        allowance=Allowance(context_gib=config.context_gib, fragmentation=config.fragmentation),
    )


def _device(config: PlanConfig) -> Device:
    gpu = GPUS[config.gpu]
    peak = gpu.fp32_tflops if config.training.precision == "fp32" else gpu.half_tflops
    changed = config.memory_gib is not None or config.peak_tflops is not None
    return Device(
        name=f"{config.gpu}, changed" if changed else config.gpu,
        memory_gib=config.memory_gib or gpu.memory_gib,
        peak_tflops=config.peak_tflops or peak,
        bf16=gpu.bf16,
    )


def measured_mfu(path: Path, peak_tflops: float) -> float:
    """The median MFU of a run: as its metrics say it, else from its tokens per second.

    Args:
        path: the run directory.
        peak_tflops: of the GPUs that it ran on, taken to be those that are planned with.

    Raises:
        UserError: no run, or one that measured neither.
    """
    record = load_run(path)
    told = [float(value) for value in record.series("mfu").values if value > 0]
    if told:
        return statistics.median(told)
    speeds = [float(value) for value in record.series("tokens_per_second").values if value > 0]
    name, length, ranks = (record.setting(key) for key in ("model.name", "training.seq_length", "ranks"))
    ranks = ranks or record.environment.get("ranks")
    if not speeds or name is None or length is None or not ranks:
        raise UserError(f"from_run: {path} has no mfu and no tokens_per_second with the ranks that made them")
    size = pythia_size(name)
    size = replace(size, vocab_size=record.setting("model.vocab_size") or size.vocab_size)
    mfu = statistics.median(speeds) * flops_per_token(size, length) / (ranks * peak_tflops * 1e12)
    if mfu > 1:
        raise UserError(f"from_run: {path} would have used {mfu:.0%} of {peak_tflops:g} TFLOP/s; give its own gpu=")
    return mfu


def _print(plan: Plan, name: str) -> None:
    console = Console()
    console.print(f"Plan of {name}", style="bold", highlight=False)
    for table in tables(plan):
        drawn = RichTable(title=table.title, title_justify="left", title_style="bold", show_header=any(table.columns))
        for column in table.columns:
            drawn.add_column(column, overflow="fold")
        for row in table.rows:
            drawn.add_row(*row)
        if table.rows:
            console.print(drawn)
        if table.note:
            console.print(table.note, highlight=False)
    for problem in plan.problems:
        console.print(f"problem: {problem}", style="bold red", highlight=False, soft_wrap=True)

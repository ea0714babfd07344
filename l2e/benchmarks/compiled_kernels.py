"""Triton's kernels compiled for a GPU that is not there, and what stands in the machine code."""

import re
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

KERNELS = ("look_kernel", "join_kernel", "scale_kernel")
"""Names in `l2e.inhibition.kernels.triton_ops`."""

THREADS = 128
"""Of a program: Triton's default of 4 warps."""

_POINTERS = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int32: "*i32",
    torch.int8: "*i8",
}


@dataclass(frozen=True)
class Launch:
    """A kernel as it was called."""

    kernel: Any
    arguments: dict[str, Any]


class _Recorder:
    """Stands in a kernel's place."""

    def __init__(self, kernel: Any, launches: list[Launch]) -> None:
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return self._record

    def _record(self, *positional: Any, **named: Any) -> None:
        arguments = dict(zip(self.kernel.arg_names, positional, strict=False)) | named
        self.launches.append(Launch(self.kernel, arguments))


def recorded(triton_ops: Any, work: Callable[[], object]) -> list[Launch]:
    """The launches that `work` makes through `triton_ops`; none is done, so tensors on the meta device will do."""
    launches: list[Launch] = []
    with ExitStack() as stack:
        for name in KERNELS:
            stack.enter_context(mock.patch.object(triton_ops, name, _Recorder(getattr(triton_ops, name), launches)))
        work()
    return launches


@dataclass(frozen=True)
class MachineCode:
    """Of one kernel."""

    registers: int
    """Of a thread."""

    spilled_bytes: int
    """Of a thread, in memory because the registers do not hold it."""

    instructions: list[tuple[int, str]]
    """Address and text."""

    def loops(self) -> list[range]:
        """Addresses from a jump's target to the jump, of every jump backwards but the endless one at the end."""
        jumps = ((at, re.search(r"\bBRA\b.*0x([0-9a-f]+)", text)) for at, text in self.instructions)
        return [range(start, at + 1) for at, found in jumps if found and (start := int(found[1], 16)) < at]

    def main_loop(self) -> list[str]:
        """The instructions of the loop that reads most; empty where there is none."""
        bodies = [[text for at, text in self.instructions if at in loop] for loop in self.loops()]
        return max(bodies, key=lambda body: sum(load_bits(body)), default=[])

    def around_loops(self) -> list[str]:
        """All that stands in no loop."""
        loops = self.loops()
        return [text for at, text in self.instructions if not any(at in loop for loop in loops)]


def load_bits(body: list[str]) -> list[int]:
    """Width of each load from global memory, also of those that go to shared memory (LDGSTS)."""
    loads = (re.search(r"\bLDG(?:STS)?\.E(?:\.\w+)*", text) for text in body)
    widths = (re.search(r"\.(64|128)\b", found[0]) for found in loads if found)
    return [int(width[1]) if width else 32 for width in widths]


def compile_for(launch: Launch, target: int) -> MachineCode:
    """Compile as Triton would for these arguments.

    Args:
        launch: of a kernel that is not interpreted.
        target: compute capability without its dot.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature: dict[str, str] = {}
    constants: dict[tuple[int, ...], Any] = {}
    hints: dict[tuple[int, ...], Any] = {}
    for place, parameter in enumerate(launch.kernel.params):
        value = launch.arguments[parameter.name]
        special = not parameter.do_not_specialize
        if parameter.is_constexpr or value is None or (special and isinstance(value, int) and value == 1):
            signature[parameter.name], constants[(place,)] = "constexpr", value
            continue
        signature[parameter.name] = _type(value)
        if special and (isinstance(value, Tensor) or (isinstance(value, int) and value % 16 == 0)):
            hints[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(launch.kernel, signature, constants, hints)
    options = {key: value for key, value in launch.arguments.items() if key not in launch.kernel.arg_names}
    made = triton.compile(source, target=GPUTarget("cuda", target, 32), options=options)
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        return _read(*(_printed(tool, flag, file.name) for flag in ("-res-usage", "-sass")))


def _type(value: Any) -> str:
    if isinstance(value, Tensor):
        return _POINTERS[value.dtype]
    if isinstance(value, float):
        return "fp32"
    return "i32" if -(2**31) <= value < 2**31 else "i64"


def _printed(tool: Path, flag: str, file: str) -> str:
    return subprocess.run([tool, flag, file], capture_output=True, text=True, check=True).stdout


def _read(usage: str, listing: str) -> MachineCode:
    used = {key: int(number) for key, number in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", usage)}
    lines = re.findall(r"^\s+/\*([0-9a-f]{4,})\*/\s+([^;]+);", listing, re.MULTILINE)
    code = [(int(address, 16), text.strip()) for address, text in lines]
    return MachineCode(used["REG"], used["STACK"] + used["LOCAL"], code)

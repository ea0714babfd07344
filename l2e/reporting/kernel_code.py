"""A table of what `l2e.benchmarks.kernel_code` counted, from its JSON."""

from typing import Any

from l2e.reporting.cells import Table, decimals


def kernel_code_table(result: dict[str, Any]) -> Table:
    """A row for each launch on outputs in half precision."""
    rows = [
        [
            name.removesuffix(", bf16"),
            decimals(found["instructions"], 1),
            decimals(found["issue_ps"], 2),
            decimals(found["memory_ps"], 2),
            str(found["registers"]),
            str(found["programs_per_sm"]),
        ]
        for name, found in result["results"].items()
        if name.endswith(", bf16")
    ]
    caption = (
        f"{result['device'].partition(': ')[2]}, triton {result['versions']['triton']}, outputs of "
        f"{result['settings']['model']} in bf16. instructions: of a thread for one output; to issue, to move: "
        "picoseconds for one output if the whole device did nothing else. Counted in the machine code, not timed."
    )
    header = ["launch", "instructions", "to issue", "to move", "registers", "programs per\nmultiprocessor"]
    return Table("The kernels, compiled", caption, header, rows, 1)

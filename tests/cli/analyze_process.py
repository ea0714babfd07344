"""One rank of scripts/analyze.py with a kind of analysis of its own, which tells who draws."""

from dataclasses import dataclass
from typing import Any

from l2e.cli.analysis_kinds import KINDS, Kind
from l2e.cli.entry import main
from l2e.reporting.cells import Table
from l2e.training.launch import launched


@dataclass(kw_only=True)
class NoSettings:
    pass


def draw(request: Any) -> list[Any]:
    values = request.subjects[0].activations().values(3)
    print(f"drawn by rank {launched().rank}: {len(values)} sequences", flush=True)
    return [Table("Means", "", ["sequence", "mean"], [[str(i), f"{row.mean():.6f}"] for i, row in enumerate(values)])]


if __name__ == "__main__":
    KINDS["mine"] = Kind(NoSettings, draw)
    main("analyze", "l2e.cli.analyze:run")

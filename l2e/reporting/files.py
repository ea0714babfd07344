"""Files of a run that may be half written: read what is whole."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def number(value: Any) -> float:
    """A number of a JSON file as float; NaN for null and for what is no number (lm-eval writes "N/A")."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value)


def whole(value: Any) -> int:
    """A count of a JSON file; 0 for what is no number."""
    found = number(value)
    return int(found) if math.isfinite(found) else 0


def read_json(file: Path, warnings: list[str]) -> Any:
    """What a JSON file holds; None, with a warning, when it is missing or cut off."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        warnings.append(f"{file.name} is missing")
    except ValueError:
        warnings.append(f"{file.name} is cut off or no JSON and is left out")
    return None


def json_lines(file: Path, warnings: list[str]) -> Iterator[dict[str, Any]]:
    """The objects of a JSON lines file; what an interrupted write left behind is skipped."""
    if not file.is_file():
        return
    for index, line in enumerate(file.read_text(encoding="utf-8", errors="replace").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            parsed = json.loads(line)
        except ValueError:
            parsed = None
        if isinstance(parsed, dict):
            yield parsed
        else:
            warnings.append(f"{file.name}: line {index} is cut off or no JSON and is left out")

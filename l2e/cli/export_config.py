"""Settings of scripts/export.py."""

from dataclasses import dataclass


@dataclass(kw_only=True)
class ExportConfig:
    """Which restart point, and where to."""

    run: str
    """Run directory."""

    step: int | None
    """Of the restart point; null takes the newest."""

    output: str | None
    """Folder to make; null is `<run>/hf/step<N>`."""

    offline: bool
    """Ask no hub for anything."""

"""Settings of scripts/convert.py."""

from dataclasses import dataclass


@dataclass(kw_only=True)
class ConvertConfig:
    """Which restart point."""

    run: str
    """Run directory."""

    step: int | None
    """Of the restart point; null takes the newest."""

"""l2e: pretrain Pythia while inhibiting monosemantic neurons, and measure what it does.

`l2e.attach` adds the method to any PyTorch training loop; the rest of the package is the framework.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from l2e.inhibition import Inhibition, attach

__all__ = ["Inhibition", "attach"]


def __getattr__(name: str) -> Any:
    """Import torch only when the method is asked for: the command line sets the environment first."""
    if name in __all__:
        from l2e import inhibition

        return getattr(inhibition, name)
    raise AttributeError(f"module 'l2e' has no attribute {name!r}")

"""l2e: pretrain Pythia while inhibiting monosemantic neurons, and measure what it does.

`l2e.attach` adds the method to any PyTorch training loop; the rest of the package is the framework.
"""

from typing import TYPE_CHECKING

from l2e.lazy import exports

if TYPE_CHECKING:
    from l2e.inhibition import Inhibition, attach
else:
    # Torch is imported only when the method is asked for: the command line sets the environment first.
    __getattr__ = exports(__name__, inhibition="Inhibition attach")

__all__ = ["Inhibition", "attach"]

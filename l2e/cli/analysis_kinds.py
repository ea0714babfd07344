"""The kinds of analysis: `analysis=<name>` on the command line, one line each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from l2e.analysis import distributions, fkr, ks, layers, ms
from l2e.analysis.deactivation import DeactivateSettings
from l2e.analysis.dynamics_settings import DynamicsConfig
from l2e.analysis.probe_settings import ProbeSettings
from l2e.analysis.statistics_settings import StatisticsSettings
from l2e.analysis.toy.experiments import ToySettings
from l2e.lazy import later

if TYPE_CHECKING:
    from l2e.analysis.request import Request
    from l2e.reporting.analysis.pages import Part


@dataclass(frozen=True)
class Kind:
    """One kind of analysis."""

    settings: type
    """Dataclass of what stands under `analysis`."""

    draw: "Callable[[Request], Sequence[Part]]"
    """Makes figures, tables and sentences; called on one rank, imported then."""

    needs: Literal["activations", "models", "runs", "texts", "nothing"] = "activations"
    """What must have been named. Activations are collected beforehand, by all ranks; `models` are loaded by `draw`."""

    each: bool = True
    """Whether it is called for each set of texts by itself, or once."""


def _drawing(kind: str) -> "Callable[[Request], Sequence[Part]]":
    return partial(later("l2e.cli.analysis_drawing:draw"), kind)


KINDS: dict[str, Kind] = {
    "deactivate": Kind(DeactivateSettings, _drawing("deactivate"), needs="models"),
    "distributions": Kind(distributions.DistributionsConfig, _drawing("distributions")),
    "dynamics": Kind(DynamicsConfig, _drawing("dynamics"), needs="runs", each=False),
    "fkr": Kind(fkr.FkrConfig, _drawing("fkr")),
    "ks": Kind(ks.KsConfig, _drawing("ks"), each=False),
    "layers": Kind(layers.LayersConfig, _drawing("layers")),
    "ms": Kind(ms.MsConfig, _drawing("ms")),
    "probe": Kind(ProbeSettings, _drawing("probe")),
    "statistics": Kind(StatisticsSettings, _drawing("statistics"), needs="texts", each=False),
    "toy": Kind(ToySettings, _drawing("toy"), needs="nothing", each=False),
}
"""Every kind; a further one is a line here and a file in configs/analysis."""

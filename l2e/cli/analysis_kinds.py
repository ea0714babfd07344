"""The kinds of analysis: `analysis=<name>` on the command line, one line each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from l2e.analysis import distributions, fkr, ks, layers, ms
from l2e.analysis.deactivation import DeactivateSettings
from l2e.analysis.dynamics import DynamicsConfig
from l2e.analysis.probing import ProbeSettings
from l2e.analysis.rankings import RANKINGS
from l2e.analysis.request import Request
from l2e.analysis.toy.experiments import ToySettings
from l2e.reporting.analysis import distributions as distribution_figures
from l2e.reporting.analysis import dynamics as dynamics_figure
from l2e.reporting.analysis import fkr as fkr_figures
from l2e.reporting.analysis import ks as ks_figure
from l2e.reporting.analysis import layers as layer_figures
from l2e.reporting.analysis import ms as ms_figures
from l2e.reporting.analysis.deactivate import draw_deactivate
from l2e.reporting.analysis.pages import Part
from l2e.reporting.analysis.probe import draw_probe
from l2e.reporting.analysis.statistics import StatisticsSettings, draw_statistics
from l2e.reporting.analysis.toy import draw_toy


@dataclass(frozen=True)
class Kind:
    """One kind of analysis."""

    settings: type
    """Dataclass of what stands under `analysis`."""

    draw: Callable[[Request], Sequence[Part]]
    """Makes figures, tables and sentences; called on one rank."""

    needs: Literal["activations", "models", "runs", "texts", "nothing"] = "activations"
    """What must have been named. Activations are collected beforehand, by all ranks; `models` are loaded by `draw`."""

    each: bool = True
    """Whether it is called for each set of texts by itself, or once."""


def _statistics(asked: Request) -> Sequence[Part]:
    return draw_statistics(asked.settings, asked.feature_sets)


def _ms(asked: Request) -> Sequence[Part]:
    ranking = RANKINGS[asked.settings.ranking]
    return ms_figures.draw(ms.measure(asked.settings, asked.subjects, asked.features, ranking))


def _ks(asked: Request) -> Sequence[Part]:
    return ks_figure.draw(
        *(ks.measure(asked.settings, asked.subjects_on(texts), texts) for texts in asked.feature_sets)
    )


def _layers(asked: Request) -> Sequence[Part]:
    return layer_figures.draw(layers.measure(asked.settings, asked.subjects, asked.features))


def _fkr(asked: Request) -> Sequence[Part]:
    return fkr_figures.draw(fkr.measure(asked.settings, asked.subjects, asked.features))


def _distributions(asked: Request) -> Sequence[Part]:
    ranking = RANKINGS[asked.settings.ranking]
    return distribution_figures.draw(distributions.measure(asked.settings, asked.subjects, asked.features, ranking))


def _probe(asked: Request) -> Sequence[Part]:
    return draw_probe(asked.settings, asked.features, asked.subjects)


def _deactivate(asked: Request) -> Sequence[Part]:
    return draw_deactivate(asked.settings, asked.features, asked.subjects)


def _dynamics(asked: Request) -> Sequence[Part]:
    return dynamics_figure.draw(asked.settings, asked.runs)


def _toy(asked: Request) -> Sequence[Part]:
    return draw_toy(asked.settings)


KINDS: dict[str, Kind] = {
    "deactivate": Kind(DeactivateSettings, _deactivate, needs="models"),
    "distributions": Kind(distributions.DistributionsConfig, _distributions),
    "dynamics": Kind(DynamicsConfig, _dynamics, needs="runs", each=False),
    "fkr": Kind(fkr.FkrConfig, _fkr),
    "ks": Kind(ks.KsConfig, _ks, each=False),
    "layers": Kind(layers.LayersConfig, _layers),
    "ms": Kind(ms.MsConfig, _ms),
    "probe": Kind(ProbeSettings, _probe),
    "statistics": Kind(StatisticsSettings, _statistics, needs="texts", each=False),
    "toy": Kind(ToySettings, _toy, needs="nothing", each=False),
}
"""Every kind; a further one is a line here and a file in configs/analysis."""

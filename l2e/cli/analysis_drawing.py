"""What draws each kind of analysis; imported when one is drawn, because the figures' libraries take seconds to load."""

from collections.abc import Callable, Sequence

from l2e.analysis import distributions, fkr, ks, layers, ms
from l2e.analysis.rankings import RANKINGS
from l2e.analysis.request import Request
from l2e.reporting.analysis import deactivate as deactivate_figures
from l2e.reporting.analysis import distributions as distributions_figures
from l2e.reporting.analysis import dynamics as dynamics_figures
from l2e.reporting.analysis import fkr as fkr_figures
from l2e.reporting.analysis import ks as ks_figures
from l2e.reporting.analysis import layers as layers_figures
from l2e.reporting.analysis import ms as ms_figures
from l2e.reporting.analysis import probe as probe_figures
from l2e.reporting.analysis import statistics as statistics_figures
from l2e.reporting.analysis import toy as toy_figures
from l2e.reporting.analysis.pages import Part


def draw(kind: str, asked: Request) -> Sequence[Part]:
    """Figures, tables and sentences of an analysis of this kind."""
    return _DRAW[kind](asked)


def _statistics(asked: Request) -> Sequence[Part]:
    return statistics_figures.draw_statistics(asked.settings, asked.feature_sets)


def _ms(asked: Request) -> Sequence[Part]:
    ranking = RANKINGS[asked.settings.ranking]
    return ms_figures.draw(ms.measure(asked.settings, asked.subjects, asked.features, ranking))


def _ks(asked: Request) -> Sequence[Part]:
    return ks_figures.draw(
        *(ks.measure(asked.settings, asked.subjects_on(texts), texts) for texts in asked.feature_sets)
    )


def _layers(asked: Request) -> Sequence[Part]:
    return layers_figures.draw(layers.measure(asked.settings, asked.subjects, asked.features))


def _fkr(asked: Request) -> Sequence[Part]:
    return fkr_figures.draw(fkr.measure(asked.settings, asked.subjects, asked.features))


def _distributions(asked: Request) -> Sequence[Part]:
    ranking = RANKINGS[asked.settings.ranking]
    return distributions_figures.draw(distributions.measure(asked.settings, asked.subjects, asked.features, ranking))


def _probe(asked: Request) -> Sequence[Part]:
    return probe_figures.draw_probe(asked.settings, asked.features, asked.subjects)


def _deactivate(asked: Request) -> Sequence[Part]:
    return deactivate_figures.draw_deactivate(asked.settings, asked.features, asked.subjects)


def _dynamics(asked: Request) -> Sequence[Part]:
    return dynamics_figures.draw(asked.settings, asked.runs)


def _toy(asked: Request) -> Sequence[Part]:
    return toy_figures.draw_toy(asked.settings)


_DRAW: dict[str, Callable[[Request], Sequence[Part]]] = {
    "deactivate": _deactivate,
    "distributions": _distributions,
    "dynamics": _dynamics,
    "fkr": _fkr,
    "ks": _ks,
    "layers": _layers,
    "ms": _ms,
    "probe": _probe,
    "statistics": _statistics,
    "toy": _toy,
}

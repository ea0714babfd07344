"""Analyse checkpoints; the entry of scripts/analyze.py."""

import logging
from pathlib import Path
from typing import Any

from l2e.analysis.feature_settings import FeatureSettings
from l2e.analysis.request import Request
from l2e.cli.analysis_kinds import Kind
from l2e.cli.analysis_material import Material
from l2e.cli.analysis_models import NamedModel, find_models
from l2e.cli.analyze_config import AnalyzeConfig, choose
from l2e.cli.logs import quieten_libraries, start_logging
from l2e.cli.processes import processes
from l2e.errors import UserError
from l2e.reporting.analysis.pages import save_analysis
from l2e.settings import build_settings
from l2e.training.launch import launched

log = logging.getLogger("l2e")


def run(tree: dict[str, Any], overrides: list[str]) -> None:
    """Analyse, and say where the page is; under torchrun or srun the ranks share the sequences.

    Raises:
        UserError: unknown settings, unusable models or texts.
    """
    config = build_settings(AnalyzeConfig, tree)
    name, kind, settings = choose(config.analysis)
    sets = config.feature_sets
    given = [config.models] if isinstance(config.models, str) else config.models
    models = find_models(given, weights=kind.needs != "runs")
    _check(name, kind, models, sets)
    start_logging()
    quieten_libraries()
    with processes() as device:
        requests = Material(config, sets, models, device).requests(settings, kind.each and _reads_texts(kind))
        if kind.needs == "activations":
            for request in requests.values():
                _collect(request)
    if launched().rank == 0:
        names = [model.name for model in models]
        for texts, request in requests.items():
            page = save_analysis(Path(config.output), name, texts, names, kind.draw(request))
        log.info("analysis: %s", page)


def _collect(request: Request) -> None:
    for features in request.feature_sets:
        for subject in request.subjects_on(features):
            subject.activations()


def _reads_texts(kind: Kind) -> bool:
    return kind.needs in ("activations", "models", "texts")


def _check(name: str, kind: Kind, models: list[NamedModel], sets: dict[str, FeatureSettings]) -> None:
    if kind.needs in ("activations", "models", "runs") and not models:
        raise UserError(f"models: analysis={name} needs one at least, e.g. models=[runs/a]")
    if _reads_texts(kind) and not sets:
        raise UserError(f"features: analysis={name} needs a set of texts at least, e.g. features=builtin")
    if kind.needs == "runs" and (others := [model.given for model in models if model.run is None]):
        raise UserError(f"models: analysis={name} reads run directories, and {others[0]} is none")

"""Settings of the studies: what the files in configs/analysis give, and what is refused."""

from pathlib import Path

import pytest
import yaml

from l2e.analysis import distributions, fkr, ks, layers, ms
from l2e.analysis.dynamics_settings import DynamicsConfig
from l2e.errors import UserError
from l2e.settings import build_settings

KINDS = {
    "ms": ms.MsConfig,
    "ks": ks.KsConfig,
    "layers": layers.LayersConfig,
    "fkr": fkr.FkrConfig,
    "dynamics": DynamicsConfig,
    "distributions": distributions.DistributionsConfig,
}


@pytest.mark.parametrize("kind", KINDS)
def test_configuration_files(kind: str) -> None:
    file = Path(fkr.__file__).parents[2] / "configs" / "analysis" / f"{kind}.yaml"
    tree = yaml.safe_load(file.read_text())
    settings = build_settings(KINDS[kind], tree)
    assert settings == KINDS[kind]()
    assert settings.kind == kind


@pytest.mark.parametrize(
    ("kind", "key", "value", "message"),
    [
        ("ms", "top", 0, "top must be at least 1, not 0"),
        ("ks", "neurons", 0, "neurons must be at least 1, not 0"),
        ("layers", "resamples", 0, "resamples must be at least 1, not 0"),
        ("fkr", "rates", [0.1, 0.01], "rates must be ascending"),
        ("fkr", "rates", [0.0, 0.01], "rates must be ascending, above 0"),
        ("fkr", "rates", [], "rates must be at least one"),
        ("fkr", "rate", 1.5, "rate must be in"),
        ("fkr", "layer", 3, "unknown setting"),
        ("dynamics", "tail", 0.0, "tail must be in"),
        ("distributions", "bins", 5, "bins must be even"),
        ("distributions", "neurons", [{"layer": 1}], "neurons.0: a value is required"),
    ],
)
def test_settings_that_are_refused(kind: str, key: str, value: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_settings(KINDS[kind], {key: value})

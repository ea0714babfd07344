"""The figures: they are drawn, their CSV holds the numbers, their captions say what was found."""

import csv
import io
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
from made_neurons import MadeModel, made_features, made_model

from l2e.analysis import distributions, fkr, ks, layers, ms
from l2e.analysis.bootstrap import Interval
from l2e.reporting.analysis import distributions as draw_distributions
from l2e.reporting.analysis import fkr as draw_fkr
from l2e.reporting.analysis import ks as draw_ks
from l2e.reporting.analysis import layers as draw_layers
from l2e.reporting.analysis import ms as draw_ms
from l2e.reporting.analysis.scale import Place, errors, in_words, positions, size
from l2e.reporting.pictures import Picture

FEATURES = made_features()
SMALL = made_model(FEATURES, name="small $1_a$", parameters=70_000_000)
LARGE = made_model(FEATURES, {}, name="large", parameters=1_400_000_000, shape=(5, 16), seed=4)
TWIN = made_model(FEATURES, {}, name="twin", parameters=70_000_000, seed=5)


def rows(picture: Picture) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(picture.csv_text)))


def drawn(kind: str, models: list[MadeModel]) -> list[Picture]:
    settings = {"resamples": 50}
    match kind:
        case "ms":
            return draw_ms.draw(ms.measure(ms.MsConfig(top=3, random=4, **settings), models, FEATURES))
        case "ks":
            other = replace(FEATURES, name="other texts")
            config = ks.KsConfig(neurons=20, **settings)
            return draw_ks.draw(*(ks.measure(config, models, each) for each in (FEATURES, other)))
        case "layers":
            return draw_layers.draw(layers.measure(layers.LayersConfig(neurons=20, **settings), models, FEATURES))
        case "fkr":
            return draw_fkr.draw(fkr.measure(fkr.FkrConfig(rates=[0.01, 0.02, 0.2, 1.0], **settings), models, FEATURES))
    return draw_distributions.draw(distributions.measure(distributions.DistributionsConfig(), models, FEATURES))


NAMES = {
    "ms": ["ms-label-and-rest", "ms-top-and-random"],
    "ks": ["ks-by-scale"],
    "layers": ["layers", "layers-by-scale"],
    "fkr": ["fkr-by-rate", "fkr-by-layer"],
    "distributions": ["distributions"],
}


@pytest.mark.parametrize("models", [[SMALL], [LARGE, SMALL], [SMALL, TWIN, LARGE]], ids=["one", "two", "equal sizes"])
@pytest.mark.parametrize("kind", NAMES)
def test_one_model_or_several(kind: str, models: list[MadeModel]) -> None:
    pictures = drawn(kind, models)
    expected = NAMES[kind][:1] if kind == "layers" and len(models) == 1 else NAMES[kind]
    assert [picture.name for picture in pictures] == expected
    for picture in pictures:
        assert picture.png.startswith(b"\x89PNG")
        svg = ET.fromstring(picture.svg_file)
        assert svg.tag.endswith("svg")
        assert len(picture.caption) > 150
        assert picture.caption.strip().endswith(".")
        assert "nan" not in picture.caption
        assert {row["model"] for row in rows(picture)} == {model.name for model in models}


def test_the_same_numbers_give_the_same_bytes() -> None:
    one, other = (drawn("fkr", [SMALL])[0] for _ in range(2))
    assert (one.png, one.svg_file, one.csv_text) == (other.png, other.svg_file, other.csv_text)


def test_ms_numbers_and_findings() -> None:
    result = ms.measure(ms.MsConfig(top=3, random=4), [SMALL], FEATURES)
    against_rest, against_random = draw_ms.draw(result)
    found = rows(against_rest)
    assert [float(row["ms_on_label"]) for row in found if row["group"] == "top"] == [
        one.own for one in result.models[0].top
    ]
    mean = next(row for row in found if row["group"] == "top: mean")
    assert float(mean["ms_on_label"]) == pytest.approx(np.mean([one.own for one in result.models[0].top]))
    assert float(mean["ms_on_rest"]) == result.models[0].rest.value
    assert "lies above 0 in 1 of 1" in against_rest.caption
    assert "mean difference" in against_rest.caption
    assert "labels shuffled" in against_rest.svg or "shuffled" in against_rest.caption
    worse = replace(result.models[0], over_random=Interval(0.1, -0.2, 0.4))
    assert "small $1_a$ 0.10 [-0.20, 0.40]. Its interval lies above 0 in 0 of 1" in (
        draw_ms.draw(replace(result, models=(worse,)))[1].caption
    )
    assert "shuffled" not in draw_ms.draw(ms.measure(ms.MsConfig(control=False), [SMALL], FEATURES))[0].caption
    assert against_random.name == "ms-top-and-random"


def test_ks_says_whether_scale_matters() -> None:
    result = ks.measure(ks.KsConfig(), [LARGE, SMALL], FEATURES)
    (picture,) = draw_ks.draw(result)
    small, large = result.models[1].mean, result.models[0].mean
    words = "lower for the larger" if large.high < small.low else "the intervals overlap"
    assert words in picture.caption
    found = {(row["model"], row["kind"]): row for row in rows(picture)}
    assert float(found["large", "labels"]["ks_mean"]) == large.value
    assert float(found["large", "labels shuffled"]["ks_mean"]) == result.models[0].control.value
    swapped = replace(
        result,
        models=tuple(
            replace(m, mean=Interval(v, v - 0.01, v + 0.01)) for m, v in zip(result.models, (0.9, 0.5), strict=True)
        ),
    )
    assert "higher for the larger" in draw_ks.draw(swapped)[0].caption
    swapped = replace(
        result,
        models=tuple(
            replace(m, mean=Interval(v, v - 0.01, v + 0.01)) for m, v in zip(result.models, (0.5, 0.9), strict=True)
        ),
    )
    assert "lower for the larger" in draw_ks.draw(swapped)[0].caption


def test_fkr_marks_the_minimum_and_tells_an_end_from_a_valley() -> None:
    result = fkr.measure(fkr.FkrConfig(rates=[0.01, 0.02, 0.2, 1.0]), [SMALL], FEATURES)
    model = result.models[0]
    curve = tuple(Interval(value, value, value) for value in (0.5, 0.3, 0.6, 0.75))
    valley = replace(model, by_rate=curve, minimum=Interval(0.02, 0.01, 0.02))
    picture = draw_fkr.draw(replace(result, models=(valley,)))[0]
    assert "lowest at 2% [1, 2], 0.30 [0.30, 0.30]" in picture.caption
    assert "no U" not in picture.caption
    assert [row["inhibited_share"] for row in rows(picture) if row["layer"] == "lowest point"] == ["0.02"]
    assert [float(row["false_killing_rate"]) for row in rows(picture) if row["layer"] == "mean"] == [
        0.5,
        0.3,
        0.6,
        0.75,
    ]
    assert len([row for row in rows(picture) if row["layer"] == "2"]) == 4
    end = replace(model, minimum=Interval(0.01, 0.01, 0.02))
    assert "an end of the curve, so no U" in draw_fkr.draw(replace(result, models=(end,)))[0].caption


def test_distributions_hold_every_bin() -> None:
    result = distributions.measure(distributions.DistributionsConfig(bins=6, reach=3.0), [SMALL], FEATURES)
    (picture,) = draw_distributions.draw(result)
    found = rows(picture)
    assert len(found) == 2 * 4 * 6
    top = [row for row in found if row["chosen"].startswith("first by")]
    assert sum(float(row["share_of_label"]) for row in top) == pytest.approx(4)
    assert {row["from"] for row in top} == {"-3.0", "-2.0", "-1.0", "0.0", "1.0", "2.0"}


def test_sizes_as_the_papers_write_them() -> None:
    given = [70_426_624, 162_322_944, 405_334_016, 1_011_781_632, 1_414_647_808, 2_775_208_960, 6_857_302_016]
    assert [size(number) for number in given] == ["70M", "162M", "405M", "1B", "1.4B", "2.8B", "6.9B"]
    assert [size(number) for number in (11_846_072_320, 999_900_000, 1_000, 9_960, 999)] == [
        "12B",
        "1B",
        "1k",
        "10k",
        "999",
    ]


def test_places_on_the_axis() -> None:
    assert positions([Place("b", 20), Place("a", 10)]) == [20.0, 10.0]
    assert positions([Place("b", 20), Place("a", 10), Place("c", 20)]) == [1.0, 0.0, 2.0]
    assert positions([Place("a", 10)]) == [0.0]


def test_intervals_in_figures() -> None:
    nothing = float("nan")
    np.testing.assert_allclose(errors([Interval(2, 1.5, 3), Interval(1, nothing, nothing)]), [[0.5, 0], [1, 0]])
    assert in_words(Interval(1.234, 1, 2)) == "1.23 [1.00, 2.00]"
    assert in_words(Interval(1.234, nothing, nothing)) == "1.23"

"""Differences over items and seeds against SciPy, statsmodels and simulation."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import bootstrap
from statsmodels.formula.api import ols
from statsmodels.regression.mixed_linear_model import MixedLM
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.contingency_tables import mcnemar as other_mcnemar
from statsmodels.stats.multitest import multipletests

from l2e.reporting.effects import bootstrap_interval, effect, holm, mcnemar, mean_squares


@pytest.mark.parametrize(("gained", "lost"), [(9, 3), (3, 9), (0, 5), (40, 38), (1, 0)])
def test_mcnemar_is_that_of_statsmodels(gained: int, lost: int) -> None:
    expected = other_mcnemar([[100, lost], [gained, 50]], exact=True).pvalue
    assert mcnemar(gained, lost) == pytest.approx(expected, rel=1e-12)
    assert mcnemar(0, 0) == 1


def test_one_seed_gives_the_paired_error_and_the_bootstrap_of_scipy() -> None:
    change = np.random.default_rng(3).choice([-1, 0, 1], p=[0.08, 0.8, 0.12], size=700)
    found = effect(change[None, :])
    assert found.difference == pytest.approx(change.mean())
    assert found.error == pytest.approx(change.std(ddof=1) / np.sqrt(700))
    assert found.p_value == mcnemar((change == 1).sum(), (change == -1).sum())
    interval = bootstrap((change,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(1))
    assert (found.low, found.high) == pytest.approx(tuple(interval.confidence_interval), abs=0.0015)
    assert found.seeds == 1
    assert np.isnan(found.seed_sd)


def test_an_interval_is_the_same_each_time_and_wider_for_fewer_items() -> None:
    change = np.array([1, 0, 0, 0, -1, 1, 0, 0] * 50)
    assert bootstrap_interval(change) == bootstrap_interval(change)
    few, many = bootstrap_interval(change[:80]), bootstrap_interval(change)
    assert few[1] - few[0] > 1.8 * (many[1] - many[0])
    assert bootstrap_interval(np.zeros(10)) == (0, 0)
    assert bootstrap_interval(np.ones(10)) == (1, 1)


def test_mean_squares_are_those_of_a_two_way_table_in_statsmodels() -> None:
    draw = np.random.default_rng(0)
    table = draw.normal(size=(3, 1)) + draw.normal(size=(1, 12)) + draw.normal(size=(3, 12))
    rows = [{"seed": s, "item": i, "y": table[s, i]} for s in range(3) for i in range(12)]
    anova = anova_lm(ols("y ~ C(seed) + C(item)", data=pd.DataFrame(rows)).fit())
    expected = list(zip(anova["mean_sq"], anova["df"], strict=True))
    for found, (square, freedom) in zip(mean_squares(table), expected, strict=True):
        assert found == (pytest.approx(square), freedom)


def test_the_error_is_that_of_a_mixed_model_in_statsmodels() -> None:
    """Seeds and items as crossed random effects, by restricted maximum likelihood: the same for a full table."""
    draw = np.random.default_rng(2)
    table = draw.normal(0, 1, (4, 1)) + draw.normal(0, 1, (1, 15)) + draw.normal(0.3, 0.7, (4, 15))
    rows = [{"all": 1, "seed": s, "item": i, "y": table[s, i]} for s in range(4) for i in range(15)]
    parts = {"seed": "0 + C(seed)", "item": "0 + C(item)"}
    model = MixedLM.from_formula("y ~ 1", groups="all", vc_formula=parts, re_formula="0", data=pd.DataFrame(rows))
    fitted = model.fit(reml=True)
    found = effect(table)
    assert found.difference == pytest.approx(fitted.fe_params["Intercept"])
    assert found.error == pytest.approx(fitted.bse_fe["Intercept"], rel=1e-3)


def test_the_error_over_seeds_and_items_by_hand() -> None:
    """Two seeds, two items: 1 0 / 1 1 has mean 3/4 and sums of squares 1/4, 1/4, 1/4, each with one degree."""
    found = effect([[1, 0], [1, 1]])
    assert found.difference == 0.75
    assert found.error == pytest.approx(0.25)  # sqrt(1/4 / 4): no component beyond the rest
    assert found.seed_sd == pytest.approx(np.sqrt(0.125))


@pytest.mark.parametrize(
    ("seeds", "of_seed", "of_item", "rest"),
    [(3, 0.02, 0.3, 0.4), (3, 0.0, 0.3, 0.4), (3, 0.02, 0.0, 0.4), (5, 0.01, 0.3, 0.4)],
)
def test_intervals_over_seeds_and_items_cover_the_truth(
    seeds: int, of_seed: float, of_item: float, rest: float
) -> None:
    """95% intervals over new seeds and new items; 600 trials have a standard error of 0.9 points."""
    draw, truth, covered = np.random.default_rng(5), 0.01, 0
    for _ in range(600):
        noise = (
            draw.normal(0, of_seed, (seeds, 1)) + draw.normal(0, of_item, (1, 300)) + draw.normal(0, rest, (seeds, 300))
        )
        found = effect(truth + noise)
        covered += found.low <= truth <= found.high
    assert 0.925 <= covered / 600 <= 0.99


def test_items_alone_do_not_cover_other_seeds() -> None:
    """Why the seeds are needed: with one seed the interval misses the truth far more often than 5 in 100."""
    draw, covered = np.random.default_rng(6), 0
    for _ in range(400):
        share = 0.2 + draw.normal(0, 0.03)
        change = draw.choice([1, 0], p=[share, 1 - share], size=1000)
        found = effect(change[None, :])
        covered += found.low <= 0.2 <= found.high
    assert covered / 400 < 0.75


def test_holm_is_that_of_statsmodels() -> None:
    values = [0.01, 0.04, 0.03, 0.005, 0.9, 0.04]
    assert holm(values) == pytest.approx(multipletests(values, method="holm")[1])
    assert holm([]) == []


def test_identical_answers_are_no_effect() -> None:
    for table in (np.zeros((1, 5)), np.zeros((3, 5))):
        found = effect(table)
        assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)
    with pytest.raises(ValueError, match="at least one item"):
        effect(np.zeros((2, 0)))

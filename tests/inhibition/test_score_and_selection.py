import numpy as np
import pytest
import torch
from scipy import stats

from l2e.inhibition import MovingThreshold, monosemanticity_score, select_blocks
from l2e.inhibition.selection import ScoreHistogram


def test_score_of_the_worked_example() -> None:
    """M13: h = (-1, 1, -1, 0, -2), mean (3, 0, -1, 1, -1), sigma 1 gives (16, 1, 0, 1, 1)."""
    values = torch.tensor([[-1.0, 1.0, -1.0, 0.0, -2.0]])
    mean = torch.tensor([3.0, 0.0, -1.0, 1.0, -1.0])
    assert monosemanticity_score(values, mean, torch.ones(5)).tolist() == [[16, 1, 0, 1, 1]]


def test_compensation_adds_a_share_of_the_mean_variance() -> None:
    values, mean, var = torch.tensor([[2.0, 2.0]]), torch.zeros(2), torch.tensor([1.0, 3.0])
    scores = monosemanticity_score(values, mean, var, compensation=0.5)  # mean variance 2, half of it is 1
    assert scores.tolist() == [[pytest.approx(4 / 2), pytest.approx(4 / 4)]]


def test_a_neuron_that_never_varied_scores_zero() -> None:
    scores = monosemanticity_score(torch.tensor([[5.0, 1.0]]), torch.zeros(2), torch.tensor([0.0, 1.0]))
    assert scores.tolist() == [[0, 1]]
    assert monosemanticity_score(torch.ones(1, 2), torch.zeros(2), torch.zeros(2), 0.01).tolist() == [[0, 0]]


def test_half_precision_values_are_scored_in_fp32() -> None:
    values = torch.tensor([[300.0]], dtype=torch.float16)  # its square overflows in fp16
    assert monosemanticity_score(values, torch.zeros(1), torch.ones(1)).item() == 90000


@pytest.mark.parametrize("rate", [0.001, 0.02, 0.5])
def test_histogram_finds_the_kth_largest(rate: float) -> None:
    rng = np.random.default_rng(0)
    scores = (rng.chisquare(1, 50_000) * 10.0 ** rng.integers(-6, 7, 50_000)).astype(np.float32)
    exact = np.sort(scores)[::-1][round(rate * scores.size) - 1]
    histogram = ScoreHistogram()
    for part in np.array_split(scores, 7):
        histogram.add(torch.from_numpy(part))
    assert histogram.kth_largest(rate).item() == pytest.approx(exact, rel=1.3e-4)


def test_histogram_takes_zero_and_infinity() -> None:
    histogram = ScoreHistogram()
    histogram.add(torch.tensor([0.0, 0.0, float("inf")]))
    assert histogram.kth_largest(1.0).item() < 1e-38
    assert histogram.kth_largest(0.01).item() > 1e38


def test_warmup_averages_the_kth_values_and_selects_nothing() -> None:
    threshold = MovingThreshold(0.25, warmup=2)
    for scores in ([1.0, 2, 3, 4, 5, 6, 7, 8], [10.0, 20, 30, 40, 50, 60, 70, 80]):
        assert not threshold.observe(torch.tensor(scores)).any()
        assert threshold.value != threshold.value
        threshold.step()
    assert threshold.value == pytest.approx((7 + 70) / 2, rel=2e-4)  # the 2nd largest of 8 in each


def test_the_threshold_moves_by_the_excess_share() -> None:
    threshold = MovingThreshold(0.25, warmup=1)
    threshold.observe(torch.tensor([1.0, 2, 3, 4]))
    threshold.step()
    start = threshold.value
    mask = threshold.observe(torch.tensor([[5.0, 1, start, 9]]))
    assert mask.tolist() == [[True, False, False, True]]  # strictly above
    assert threshold.step().tolist() == [2, 4]
    assert threshold.value == pytest.approx(start + 0.5 - 0.25)


def test_splits_of_a_batch_give_the_same_threshold() -> None:
    scores = torch.from_numpy(np.random.default_rng(0).chisquare(1, (30, 1000)).astype(np.float32))
    whole, split = MovingThreshold(0.02, warmup=3), MovingThreshold(0.02, warmup=3)
    for batch in scores:
        whole.observe(batch)
        for part in batch.split(77):
            split.observe(part)
        whole.step()
        split.step()
    assert whole.value == split.value


def test_threshold_reaches_the_chi_square_quantile_on_gaussian_input() -> None:
    rng = np.random.default_rng(0)
    threshold = MovingThreshold(0.02, warmup=1)
    threshold.observe(torch.full((100,), 3.0))  # a start far off
    threshold.step()
    for _ in range(600):
        threshold.observe(torch.from_numpy(rng.chisquare(1, 20_000).astype(np.float32)))
        threshold.step()
    assert threshold.value == pytest.approx(stats.chi2.ppf(0.98, 1), rel=0.02)  # 5.412


def test_an_update_without_scores_changes_nothing() -> None:
    threshold = MovingThreshold(0.5, warmup=1)
    threshold.step()
    assert not threshold.ready
    threshold.observe(torch.tensor([1.0, 2.0]))
    threshold.step()
    before = threshold.value
    threshold.step()
    assert threshold.value == before


@pytest.mark.parametrize("rate", [0.0, 1.0, -1, 2])
def test_impossible_rates_are_refused(rate: float) -> None:
    with pytest.raises(ValueError, match=r"rate must lie in \(0, 1\)"):
        MovingThreshold(rate)


def test_saved_threshold_continues_exactly() -> None:
    scores = torch.from_numpy(np.random.default_rng(0).chisquare(1, (8, 500)).astype(np.float32))
    for cut in (2, 6):  # in the warm-up and after it
        one = MovingThreshold(0.02, warmup=4)
        for batch in scores[:cut]:
            one.observe(batch)
            one.step()
        two = MovingThreshold(0.02, warmup=4)
        two.load_state_dict(one.state_dict())
        for batch in scores[cut:]:
            one.observe(batch)
            two.observe(batch)
            one.step()
            two.step()
        assert one.value == two.value


@pytest.mark.parametrize(
    ("layers", "blocks", "expected"),
    [
        (6, "middle-2", [2, 3]),
        (24, "middle-2", [11, 12]),
        (32, "middle-2", [15, 16]),
        (6, "middle-third", [2, 3]),  # the papers' footnote: the same as middle-2 for 6 layers
        (24, "middle-third", [8, 9, 10, 11, 12, 13, 14, 15]),
        (32, "middle-third", list(range(10, 21))),
        (24, "top-bottom", [0, 23]),
        (6, [5, 0], [0, 5]),
    ],
)
def test_placements(layers: int, blocks: str | list[int], expected: list[int]) -> None:
    assert select_blocks(layers, blocks) == expected


@pytest.mark.parametrize("blocks", ["middle", [], [6], [-1], [1, 1]])
def test_impossible_placements_are_refused(blocks: str | list[int]) -> None:
    with pytest.raises(ValueError, match="blocks"):
        select_blocks(6, blocks)

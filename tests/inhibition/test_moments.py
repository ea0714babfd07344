import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from l2e.inhibition import RunningMoments
from l2e.inhibition.moments import ShiftedSums


def partition(draw_sizes: list[int], samples: np.ndarray) -> list[np.ndarray]:
    return np.split(samples, np.cumsum(draw_sizes)[:-1])


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=8).filter(lambda sizes: sum(sizes) > 1),
    offset=st.sampled_from([0.0, 100.0, -1e4]),
    seed=st.integers(0, 1000),
)
def test_any_partition_gives_the_moments_of_one_pass(sizes: list[int], offset: float, seed: int) -> None:
    samples = (np.random.default_rng(seed).normal(size=(sum(sizes), 3, 2)) + offset).astype(np.float32)
    moments = RunningMoments([3, 2])
    for batch in partition(sizes, samples):
        moments.update(torch.from_numpy(batch))
    exact = samples.astype(np.float64)
    np.testing.assert_allclose(moments.mean, exact.mean(0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(moments.var, exact.var(0, ddof=1), rtol=1e-3, atol=abs(offset) ** 2 * 1e-8 + 1e-5)
    assert moments.updates == len(sizes)


def test_lemma_by_hand() -> None:
    # Samples 1, 3 then 5, 9: mean 4.5; unbiased variance ((3.5)^2 + 1.5^2 + 0.5^2 + 4.5^2) / 3 = 35 / 3.
    moments = RunningMoments([1])
    moments.update(torch.tensor([[1.0], [3.0]]))
    assert moments.mean.item() == 2.0
    assert moments.var.item() == 2.0
    moments.update(torch.tensor([[5.0], [9.0]]))
    assert moments.mean.item() == pytest.approx(4.5)
    assert moments.var.item() == pytest.approx(35 / 3)


def test_samples_without_dimensions() -> None:
    moments = RunningMoments([])
    for batch in ([1.0, 3.0], [5.0, 9.0]):
        moments.update(torch.tensor(batch))
    assert moments.mean.shape == moments.var.shape == ()
    assert (moments.mean.item(), moments.var.item()) == pytest.approx((4.5, 35 / 3))


def test_forgetting_follows_the_printed_formula() -> None:
    """M03 in NumPy, term by term as the paper prints it."""
    batches = np.random.default_rng(0).normal(size=(12, 4, 5)).astype(np.float32)
    n_f, b = 3, 4
    mu = v = np.zeros(5)
    m = 0
    for count, batch in enumerate(batches):
        mu_b, v_b = batch.mean(0), batch.var(0)
        if count < n_f:
            seen = batches[: count + 1].reshape(-1, 5).astype(np.float64)
            mu, v = seen.mean(0), seen.var(0, ddof=1)
        else:
            v = n_f * (mu - mu_b) ** 2 / ((n_f + 1 - 1 / b) * (n_f + 1)) + (v_b + (n_f - 1 / b) * v) / (n_f + 1 - 1 / b)
            mu = (n_f * mu + mu_b) / (n_f + 1)
        m += b
    moments = RunningMoments([5], forget_after=n_f)
    for batch in batches:
        moments.update(torch.from_numpy(batch))
    np.testing.assert_allclose(moments.mean, mu, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(moments.var, v, rtol=1e-4)


def test_a_single_sample_has_no_spread_and_the_next_ones_are_exact() -> None:
    moments = RunningMoments([1])
    for value in (2.0, 4.0, 9.0):
        moments.update(torch.tensor([[value]]))
    assert moments.mean.item() == pytest.approx(5.0)
    assert moments.var.item() == pytest.approx(13.0)  # (9 + 1 + 16) / 2


def test_a_merge_leaves_old_tensors_alone() -> None:
    moments = RunningMoments([2])
    moments.update(torch.randn(4, 2))
    mean, var = moments.mean, moments.var
    held = mean.clone(), var.clone()
    moments.update(torch.randn(4, 2))
    assert torch.equal(mean, held[0])
    assert torch.equal(var, held[1])


def test_saved_state_continues_exactly() -> None:
    batches = torch.randn(6, 4, 3)
    one, two = RunningMoments([3], forget_after=2), RunningMoments([3], forget_after=2)
    for batch in batches[:3]:
        one.update(batch)
    two.load_state_dict(one.state_dict())
    for batch in batches[3:]:
        one.update(batch)
        two.update(batch)
    assert torch.equal(one.mean, two.mean)
    assert torch.equal(one.var, two.var)
    assert one.updates == two.updates == 6


def test_wrong_input_is_refused() -> None:
    moments = RunningMoments([3])
    with pytest.raises(ValueError, match=r"\[4\] given to moments of \[3\]"):
        moments.update(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="at least one sample"):
        moments.update(torch.zeros(0, 3))
    with pytest.raises(ValueError, match="forget_after"):
        RunningMoments([3], forget_after=0)
    with pytest.raises(ValueError, match="shape"):
        moments.load_state_dict(RunningMoments([4]).state_dict())


def test_shifted_sums_survive_a_large_mean_and_a_new_shift() -> None:
    samples = np.random.default_rng(1).normal(size=(32, 4)).astype(np.float32) + 1000
    sums = ShiftedSums(torch.full((4,), 1000.0))
    for part in np.split(samples, [5, 6, 20]):
        sums.add(torch.from_numpy(part))
    for shift in (1000.0, 1000.5):
        sums.rebase(torch.full((4,), shift))
        size, mean, var = sums.moments()
        assert size == 32
        np.testing.assert_allclose(mean, samples.astype(np.float64).mean(0), rtol=1e-7)
        np.testing.assert_allclose(var, samples.astype(np.float64).var(0), rtol=1e-4)

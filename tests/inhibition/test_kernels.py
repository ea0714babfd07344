"""Triton's kernels against the formulas in NumPy: on a GPU where there is one, in Triton's interpreter elsewhere."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from l2e.inhibition.kernels import DTYPES, missing, takes_triton, torch_ops
from l2e.inhibition.moments import ShiftedSums
from l2e.inhibition.rule import Rule
from l2e.inhibition.strength import Rounding, round_at_random

if (reason := missing()) is not None:
    pytest.skip(reason, allow_module_level=True)

import triton
import triton.language as tl

from l2e.inhibition.kernels import triton_ops
from l2e.inhibition.kernels.backward import at_random
from l2e.inhibition.kernels.forward import nearest

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

SHIPPED_ROWS = triton_ops.ROWS

SHAPES = [(4, 5, 8), (3, 7, 150), (1, 1, 1), (2, 1025), (20, 2, 3), (2, 3, 2, 5)]
"""Plain, a block with a tail, the smallest, samples of one dimension, more than a program takes, three dimensions."""


@pytest.fixture(autouse=True)
def few_samples_to_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter takes milliseconds for a row."""
    monkeypatch.setattr(triton_ops, "ROWS", 8)


def outputs(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Rule]:
    generator = torch.Generator().manual_seed(3)
    values = (3 * torch.randn(shape, generator=generator) + 1).to(dtype)
    mean = torch.randn(shape[1:], generator=generator)
    inverse = torch.rand(shape[1:], generator=generator)
    return values.to(DEVICE), Rule(mean.to(DEVICE), inverse.to(DEVICE), torch.tensor(1.5, device=DEVICE))


def by_hand(values: Tensor, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
    """Deviations and mask, with IEEE's single precision and nothing of PyTorch's."""
    deviation = values.float().cpu().numpy() - rule.mean.cpu().numpy()
    return deviation, deviation * deviation * rule.inverse_spread.cpu().numpy() > rule.limit.cpu().numpy()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_one_look_counts_gathers_and_sums_the_logs(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    values, rule = outputs(shape, dtype)
    sums = ShiftedSums(rule.mean)
    sums.first += 1  # what an earlier micro-batch left
    view = triton_ops.look(values, rule, "penalty", None, sums)
    deviation, mask = by_hand(values, rule)
    wide = deviation.astype(np.float64)
    assert view.selected.item() == mask.sum()
    assert view.logs.item() == pytest.approx(np.log(wide[mask] ** 2).sum(), rel=1e-5, abs=1e-4)
    np.testing.assert_allclose(sums.first.cpu(), 1 + wide.sum(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(sums.second.cpu(), (wide**2).sum(0), rtol=1e-5)
    assert sums.size.unique().tolist() == [shape[0]]


@pytest.mark.parametrize("deviation", [1e-15, 3e-3, np.sqrt(2) * (1 - 1e-7), 1.0, 7.5, 1e18])
def test_logs_of_any_size_and_of_all_rows_of_a_program(deviation: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many rows to a program as shipped; squares just below 2 have the largest mantissa."""
    monkeypatch.setattr(triton_ops, "ROWS", SHIPPED_ROWS)
    values = torch.full((2 * SHIPPED_ROWS + 3, 2), deviation, device=DEVICE)
    values[:, 1] *= -1
    rule = Rule(torch.zeros(2, device=DEVICE), torch.ones(2, device=DEVICE), torch.zeros((), device=DEVICE))
    view = triton_ops.look(values, rule, "penalty", None, None)
    assert view.selected.item() == values.numel()
    one = float(np.float32(deviation) * np.float32(deviation))  # may be rounded
    assert view.logs.item() == pytest.approx(values.numel() * np.log(one), rel=2e-6, abs=1e-4)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_gradients_are_joined_and_measured(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    values, rule = outputs(shape, dtype)
    other = torch.randn(shape, generator=torch.Generator().manual_seed(5)).to(DEVICE, dtype)
    scale, weight = torch.tensor(0.5, device=DEVICE), torch.tensor(0.002, device=DEVICE)
    result, totals = triton_ops.join_gradients(other, values, rule, scale, weight, None)
    deviation, mask = by_hand(values, rule)
    unit = np.where(mask, 2 * 0.5 / np.where(mask, deviation, 1), 0)
    before = other.float().cpu().numpy()
    expected = torch.from_numpy(np.float32(before + 0.002 * unit)).to(dtype)
    torch.testing.assert_close(result.cpu(), expected, rtol=2 * torch.finfo(dtype).eps, atol=1e-7)
    assert torch.equal(result.cpu()[~mask], other.cpu()[~mask])
    unchanged = (result.cpu() == other.cpu()).numpy() & mask
    if dtype == torch.bfloat16 and mask.sum() > 50:
        assert 0.1 < unchanged.sum() / mask.sum() < 0.99  # the case is one where some of the gradient is lost
    sums = [(unit.astype(np.float64) ** 2).sum(), (before.astype(np.float64) ** 2).sum(), mask.sum(), unchanged.sum()]
    np.testing.assert_allclose(totals.cpu(), sums, rtol=1e-5)
    assert totals.dtype == torch.float64


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_selected_are_put_at_their_mean_and_their_gradient_is_scaled(dtype: torch.dtype) -> None:
    values, rule = outputs((3, 7, 150), dtype)
    view = triton_ops.look(values, rule, "deactivate", None, None)
    _, mask = by_hand(values, rule)
    assert np.array_equal(view.mask.cpu(), mask)
    assert 0.1 < mask.mean() < 0.9
    assert torch.equal(view.edited.cpu(), torch.where(torch.from_numpy(mask), rule.mean.cpu().to(dtype), values.cpu()))
    gradient = torch.randn(values.shape).to(DEVICE, dtype)
    for factor in (-1.0, 0.0, 1.0, -2.5):
        scaled = triton_ops.scale_selected(gradient, view.mask, factor)
        wide = gradient.float().cpu()
        expected = torch.where(torch.from_numpy(mask), wide * factor, wide).to(dtype)
        assert torch.equal(scaled.cpu(), expected), factor


@pytest.mark.parametrize("pooled", [False, True])
def test_a_limit_for_each_sample(pooled: bool) -> None:
    values, rule = outputs((5, 6, 9), torch.float32)
    if pooled:  # 5 x 6 rows of 9 channels, six rows to a sample
        rule = replace(rule, mean=rule.mean[:1, :].unsqueeze(0), inverse_spread=rule.inverse_spread[:1, :].unsqueeze(0))
    limit = torch.tensor([0.1, 1.0, 2.0, 5.0, 1e9], device=DEVICE).view(5, 1, 1)
    view = triton_ops.look(values, rule, "deactivate", lambda scores: limit, None)
    scores = rule.scores(values)[1].cpu().numpy()
    expected = [scores[i] > np.float32(bound) for i, bound in enumerate([0.1, 1.0, 2.0, 5.0, 1e9])]
    assert np.array_equal(view.mask.cpu(), np.stack(expected))
    assert view.rule.limit is limit
    _, totals = triton_ops.join_gradients(values, values, view.rule, limit.new_ones(()), limit.new_ones(()), None)
    assert totals[2].item() == view.selected.item() == np.stack(expected).sum()


def test_pooled_positions_are_gathered_per_channel() -> None:
    values, _ = outputs((5, 4, 9), torch.float32)  # 20 rows: three parts
    shift = torch.linspace(-1, 1, 9, device=DEVICE)
    sums = ShiftedSums(shift)
    triton_ops.gather(values, sums, shift.view(1, 1, 9))
    flat = values.cpu().double().numpy().reshape(20, 9) - shift.cpu().double().numpy()
    np.testing.assert_allclose(sums.first.cpu(), flat.sum(0), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(sums.second.cpu(), (flat**2).sum(0), rtol=1e-5)
    assert sums.size.tolist() == [20]


def test_shorter_samples_leave_the_other_positions_alone() -> None:
    values, rule = outputs((4, 3, 8), torch.float32)
    whole = torch.zeros(5, 8, device=DEVICE)
    sums = ShiftedSums(torch.cat([rule.mean, whole[:2]]))
    triton_ops.look(values, rule, "count", None, sums)
    assert not sums.first[3:].any()
    assert not sums.second[3:].any()
    assert sums.first[:3].all()
    assert sums.size.flatten().tolist() == [4, 4, 4, 0, 0]


def test_at_the_threshold_at_the_mean_and_beyond_all_numbers() -> None:
    """phi is 4 for z = 2: not above a tau of 4, but above the number before it."""
    inf, nan = float("inf"), float("nan")
    values = torch.tensor([[2.0, -2.0, 0.0, 1e-30, inf, nan, 1e30, 1.0]], device=DEVICE)
    mean, inverse = torch.zeros(8, device=DEVICE), torch.ones(8, device=DEVICE)
    inverse[7] = 0.0  # never varied
    for tau, expected in [
        (4.0, [0, 0, 0, 0, 1, 0, 1, 0]),
        (float(np.nextafter(np.float32(4), np.float32(0))), [1, 1, 0, 0, 1, 0, 1, 0]),
        (0.0, [1, 1, 0, 0, 1, 0, 1, 0]),  # (1e-30)^2 is 0 in single precision
        (nan, [0] * 8),
        (inf, [0] * 8),
    ]:
        rule = Rule(mean, inverse, torch.tensor(tau, device=DEVICE))
        view = triton_ops.look(values, rule, "deactivate", None, None)
        assert view.mask.int().tolist() == [expected], tau
        assert torch.equal(rule.select(values)[1], view.mask)
        one = torch.ones((), device=DEVICE)
        result, totals = triton_ops.join_gradients(torch.zeros_like(values), values, rule, one, one, None)
        assert ((result != 0).int() - view.mask.int()).tolist() == [[0, 0, 0, 0, -expected[4], 0, 0, 0]]  # 2 / inf is 0
        assert totals[2].item() == sum(expected)


def test_nan_and_infinite_outputs_reach_the_sums() -> None:
    values = torch.tensor([[1.0, float("inf"), float("nan")], [1.0, 1.0, 1.0]], device=DEVICE)
    sums = ShiftedSums(torch.zeros(3, device=DEVICE))
    triton_ops.gather(values, sums, sums.shift)
    assert sums.first.isfinite().tolist() == [True, False, False]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_random_rounding_takes_one_of_the_two_neighbours_and_the_mean_is_right(dtype: torch.dtype) -> None:
    other = torch.ones(4, 4, 1500).to(DEVICE, dtype)
    values = torch.full(other.shape, 2.0).to(DEVICE, dtype)
    inverse = torch.ones(other.shape[1:], device=DEVICE)
    inverse[3] = 0  # a quarter is not selected
    rule = Rule(torch.zeros_like(inverse), inverse, torch.zeros((), device=DEVICE))
    step = torch.finfo(dtype).eps  # from 1 to the next number
    scale, one = torch.tensor(0.3 * step, device=DEVICE), torch.ones((), device=DEVICE)
    rounding = Rounding(DEVICE)
    rounding.start("a run")
    result, totals = triton_ops.join_gradients(other, values, rule, scale, one, rounding)
    moved = result.float().cpu() != 1
    assert sorted(result.float().unique().tolist()) == [1.0, 1.0 + step]
    shares = moved.float().mean(2)
    assert shares[:, :3].flatten().tolist() == pytest.approx([0.3] * 12, abs=0.055)  # 4.6 sigma
    assert not shares[:, 3].any()
    assert totals[2:].tolist() == [18_000, 18_000 - moved.sum().item()]
    for shift in (1, 2, 3, 4, 7):  # neighbours draw independently
        agreement = (moved[:, :3, shift:] == moved[:, :3, :-shift]).float().mean().item()
        assert agreement == pytest.approx(0.3**2 + 0.7**2, abs=0.02)
    assert (moved[0, :3] == moved[1, :3]).float().mean().item() == pytest.approx(0.58, abs=0.035)
    second = triton_ops.join_gradients(other, values, rule, scale, one, rounding)[0]
    assert (result[:, :3] == second[:, :3]).float().mean().item() == pytest.approx(0.58, abs=0.02)
    rounding.start("a run")
    assert torch.equal(triton_ops.join_gradients(other, values, rule, scale, one, rounding)[0], result)


@triton.jit
def every_number(values, draws, results, nearest_results, BLOCK: tl.constexpr):
    cells = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(values + cells)
    tl.store(results + cells, at_random(value, tl.load(draws + cells), results.dtype.element_ty))
    tl.store(nearest_results + cells, nearest(value, results.dtype.element_ty))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_rounding_of_every_kind_of_number(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patterns drawn from all of single precision, and those of the half precisions with their neighbours."""
    rng = np.random.default_rng(0)
    kinds = [
        rng.integers(0, 2**32, 2**15, dtype=np.uint32).view(np.float32),
        np.ldexp(rng.uniform(-1, 1, 2**14), rng.integers(-30, 18, 2**14)).astype(np.float32),
        (rng.integers(0, 2**16, 2**13, dtype=np.uint32) << 16).view(np.float32),
        (rng.integers(0, 2**16, 2**13 - 8, dtype=np.uint32) << 16 | 0x8000).view(np.float32),  # ties
        np.array([0, -0.0, np.inf, -np.inf, np.nan, 65519, 65520, 3.3961776e38], dtype=np.float32),
    ]
    values = torch.from_numpy(np.concatenate(kinds))
    draws = torch.from_numpy(rng.random(len(values), dtype=np.float32))
    results = [torch.empty(len(values), dtype=dtype, device=DEVICE) for _ in range(2)]
    every_number[(len(values) // 4096,)](values.to(DEVICE), draws.to(DEVICE), *results, BLOCK=4096)
    monkeypatch.setattr(torch, "rand", lambda *args, **options: draws)
    for found, expected in zip(results, [round_at_random(values, dtype), values.to(dtype)], strict=True):
        same = (found.cpu().view(torch.int16) == expected.view(torch.int16)) | (found.cpu().isnan() & expected.isnan())
        assert same.all(), values[~same][:10]


def test_values_and_gradients_that_are_not_contiguous() -> None:
    values, rule = outputs((4, 5, 8), torch.float32)
    turned = values.transpose(0, 1).contiguous().transpose(0, 1)
    assert not turned.is_contiguous()
    expanded = torch.ones((), device=DEVICE).expand(4, 5, 8)
    one = torch.ones((), device=DEVICE)
    plain = triton_ops.join_gradients(expanded.contiguous(), values, rule, one, one, None)
    for found, expected in zip(triton_ops.join_gradients(expanded, turned, rule, one, one, None), plain, strict=True):
        assert torch.equal(found, expected)
    assert (
        triton_ops.look(turned, rule, "count", None, None).selected
        == triton_ops.look(values, rule, "count", None, None).selected
    )


def test_the_same_numbers_every_time_and_those_of_pytorch() -> None:
    values, rule = outputs((20, 7, 150), torch.bfloat16)
    views = [triton_ops.look(values, rule, "penalty", None, ShiftedSums(rule.mean)) for _ in range(2)]
    assert torch.equal(views[0].logs, views[1].logs)
    torch_view = torch_ops.look(values, rule, "penalty", None)
    assert views[0].selected == torch_view.selected
    torch.testing.assert_close(views[0].logs, torch_view.logs, rtol=1e-5, atol=1e-3)


def test_what_goes_to_triton() -> None:
    on_cpu = torch.zeros(2, 3, 4)
    assert not takes_triton("auto", on_cpu, on_cpu[0])
    values = on_cpu.to(DEVICE)
    assert takes_triton("triton", values, values[0])
    assert takes_triton("triton", values, values[:1, :1])  # channels, the last
    assert not takes_triton("triton", values, values[:1, :, :1])  # channels, not the last
    assert not takes_triton("triton", values.double(), values[0])
    assert not takes_triton("torch", values, values[0])
    assert importlib.util.find_spec("triton") is not None

"""M19 and M20, the idealised update M09 (V2 of the reference) and the order of MEmeL's Table 4 (V1)."""

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from l2e.analysis.decrease_ratio import (
    DELTAS,
    Estimate,
    LayerStatistics,
    MeanRatios,
    Measurement,
    StudyConfig,
    aggregate,
    decrease_ratio,
    measure_update,
    run_seed,
    total_update_ratio,
)
from l2e.inhibition import deactivate

ROOT = Path(__file__).parents[2]
FACTORS = {"rd": 1.0, "naive_a": 0.0, "naive_b": -1.0}


def square_loss(output: Tensor, label: Tensor) -> Tensor:
    return ((output - label) ** 2).sum()


@pytest.mark.parametrize(
    ("before", "after", "percent"),
    [(4.0, 1.0, 75.0), (4.0, 4.0, 0.0), (4.0, 5.0, -25.0), (16.0, 0.0, 100.0)],
)
def test_decrease_ratio_by_hand(before: float, after: float, percent: float) -> None:
    assert decrease_ratio(torch.tensor([before]), torch.tensor([after])).tolist() == [percent]


@pytest.mark.parametrize(
    ("before", "after", "percent"),
    [(4.0, 5.0, 25.0), (4.0, 3.0, 25.0), (-4.0, -5.0, 25.0), (-4.0, 4.0, 200.0), (4.0, 4.0, 0.0)],
)
def test_total_update_ratio_by_hand(before: float, after: float, percent: float) -> None:
    assert total_update_ratio(torch.tensor([before]), torch.tensor([after])).tolist() == [percent]


def test_the_papers_worked_example_in_both_ratios() -> None:
    """M12: mean 1, z = 7. RD takes it to 6: 1 - 25/36 = 30.6%; naive (b) to 8: 1 - 49/36 = -36.1%. Both move by 1/7."""
    before = torch.tensor([36.0, 36.0])
    assert decrease_ratio(before, torch.tensor([25.0, 49.0])).tolist() == pytest.approx([30.5556, -36.1111], abs=1e-4)
    moved = total_update_ratio(torch.tensor([7.0, 7.0]), torch.tensor([6.0, 8.0]))
    assert moved.tolist() == pytest.approx([14.2857, 14.2857], abs=1e-4)


# V2. f1 = w.x with w = (2, 1, 1) and x = (1, 2, 2): z = 6, |x|^2 = 9. The loss (z' - 6)^2 is minimal without
# inhibition. Inhibited to the mean 1, its gradient is 2 (1 - 6) = -10, and w moves by -lr (-delta) (-10) x, so
# z moves by -lr delta 10 |x|^2 = -0.9 delta at lr 0.01: M09 with a factor 1 -+ 0.18 on z - mean = 5.
WEIGHT, INPUT, MEAN, LABEL, LR = [2.0, 1.0, 1.0], [1.0, 2.0, 2.0], 1.0, 6.0, 0.01
MOVED = {"rd": 5.1, "naive_a": 6.0, "naive_b": 6.9}


@pytest.mark.parametrize("method", FACTORS)
def test_idealised_update_through_deactivate(method: str) -> None:
    weight = torch.tensor(WEIGHT, requires_grad=True)
    inputs = torch.tensor(INPUT)
    values = (weight @ inputs).reshape(1, 1)
    output = deactivate(values, torch.tensor([MEAN]), torch.tensor([[True]]), FACTORS[method])
    (gradient,) = torch.autograd.grad(square_loss(output, torch.tensor([[LABEL]])), weight)
    moved = ((weight - LR * gradient) @ inputs).item()
    assert moved == pytest.approx(MOVED[method], abs=1e-5)


@pytest.mark.parametrize(
    ("method", "decrease", "update"),
    [
        ("rd", 32.76, 15.0),  # 1 - 0.82^2; 0.9 / 6
        ("naive_a", 0.0, 0.0),
        ("naive_b", -39.24, 15.0),  # 1 - 1.18^2
        ("original", 0.0, 0.0),  # the loss is at its minimum
    ],
)
def test_idealised_update_as_the_study_measures_it(method: str, decrease: float, update: float) -> None:
    lower = nn.Linear(3, 1, bias=False)
    lower.weight = nn.Parameter(torch.tensor([WEIGHT]))
    batch = torch.tensor([INPUT]), torch.tensor([[LABEL]])
    layer = LayerStatistics(torch.tensor([MEAN]), torch.tensor([3.0]))
    ratios = measure_update(lower, nn.Identity(), batch, layer, DELTAS[method], LR, square_loss)
    assert ratios.decrease.tolist() == pytest.approx([decrease], abs=1e-3)
    assert ratios.update.tolist() == pytest.approx([update], abs=1e-3)
    assert lower.weight.tolist() == [WEIGHT]  # the step was on a copy
    assert lower.weight.grad is None


def test_the_top_neuron_of_each_sample_is_inhibited_and_measured() -> None:
    """Identity weights, means (1, 1.5), variance (1, 1), loss minimal without inhibition.

    Sample (3, 1): scores (4, 0.25). Its neuron 0 gets gradient 2 (1 - 3) = -4, under RD +4, so row 0 of the weights
    moves by -0.01 x 4 x (3, 1) and z by -0.04 x 10 to 2.6: score 2.56, decrease 36%, update 0.4 / 3.
    Sample (0, 4): scores (1, 6.25). Its neuron 1 gets 2 (1.5 - 4) = -5, under RD +5, so z moves by -0.05 x 16 to
    3.2: score 2.89, decrease 1 - 2.89 / 6.25 = 53.76%, update 20%.
    """
    lower = nn.Linear(2, 2, bias=False)
    lower.weight = nn.Parameter(torch.eye(2))
    inputs = torch.tensor([[3.0, 1.0], [0.0, 4.0]])
    layer = LayerStatistics(torch.tensor([1.0, 1.5]), torch.ones(2))
    ratios = measure_update(lower, nn.Identity(), (inputs, inputs), layer, 1.0, 0.01, square_loss)
    assert ratios.decrease.tolist() == pytest.approx([36.0, 53.76], abs=1e-3)
    assert ratios.update.tolist() == pytest.approx([13.3333, 20.0], abs=1e-3)


def measurement(**decreases: float) -> Measurement:
    return Measurement(0.9, {name: MeanRatios(decreases[name], 1.0, 0.5) for name in DELTAS})


def test_seeds_are_put_together_in_pairs() -> None:
    """RD leads Original by 1, 2 and 3: mean 2, standard error 1 / sqrt 3. Its own values have another spread."""
    runs = [
        {0: measurement(original=base, naive_a=0.0, naive_b=5.0, rd=base + lead)}
        for base, lead in ((10.0, 1.0), (0.0, 2.0), (-10.0, 3.0))
    ]
    row = aggregate(runs)[0]
    assert row.lead["original"].mean == pytest.approx(2.0)
    assert row.lead["original"].error == pytest.approx(0.5773503)
    assert row.lead["original"].errors_away == pytest.approx(3.4641016)
    assert row.lead["original"].positive == 3
    assert row.lead["naive_b"].values == (6.0, -3.0, -12.0)
    assert row.lead["naive_b"].positive == 1
    assert row.decrease["rd"].values == (11.0, 2.0, -7.0)
    assert (row.accuracy.mean, row.update["naive_a"].mean, row.median_update["naive_a"].mean) == (0.9, 1.0, 0.5)


def test_one_seed_has_no_standard_error() -> None:
    assert math.isnan(Estimate((1.0,)).error)
    assert math.isnan(Estimate((1.0,)).errors_away)


@pytest.mark.parametrize("steps", [(), (10, 0), (1, 1), (-1, 5)])
def test_adam_steps_must_ascend(steps: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="adam_steps"):
        StudyConfig(adam_steps=steps)


TINY = StudyConfig(adam_steps=(0, 20), statistics_samples=500, batches=3, batch_size=8)


def test_a_seed_decides_everything_and_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = run_seed(3, TINY)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert run_seed(3, TINY) == first
    assert run_seed(4, TINY) != first


def test_the_order_of_the_papers_table_on_a_trained_network() -> None:
    """V1, smaller: RD lowers the score more than no change and than naive (b), beyond 3 s.e. over 5 seeds."""
    config = StudyConfig(adam_steps=(300,), statistics_samples=5000, batches=25)
    row = aggregate([run_seed(seed, config) for seed in range(5)])[300]
    assert 0.75 < row.accuracy.mean < 0.92  # the reference: .82 after 100 steps, .90 after 1000
    assert row.lead["original"].errors_away > 3
    assert row.lead["naive_b"].errors_away > 3
    # The reference's differences, after 100 and 1000 steps: .0071 and .0012, .0143 and .0071.
    assert 0.0012 < row.lead["original"].mean < 0.02
    assert 0.0071 < row.lead["naive_b"].mean < 0.04
    assert row.decrease["original"].mean > row.decrease["naive_b"].mean


def test_an_untrained_network_guesses() -> None:
    measured = run_seed(0, StudyConfig(adam_steps=(0,), batches=1))[0]
    assert measured.accuracy == pytest.approx(1 / 20, abs=0.03)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = ROOT / "scripts" / "studies" / "decrease_ratio.py"
    spec = importlib.util.spec_from_file_location("decrease_ratio_script", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def page_of(script: ModuleType, trained: tuple[float, float]) -> str:
    """A page of two seeds on which RD leads Original by the given amounts, and naive (b) by 1 more."""
    runs = [
        {
            0: measurement(original=noise, naive_a=0.0, naive_b=0.0, rd=0.0),
            100: measurement(original=1.0, naive_a=-1.0, naive_b=0.0, rd=1.0 + lead),
        }
        for noise, lead in zip((1.0, -1.0), trained, strict=True)
    ]
    config = StudyConfig(adam_steps=(0, 100))
    return script.page(config, aggregate(runs), config, aggregate(runs), "the command")


def test_the_page_says_where_the_order_holds(script: ModuleType) -> None:
    page = page_of(script, (3.0, 3.2))  # mean 3.1, standard error 0.1: 31 of them
    assert "One update per batch: RD > Original holds after 100 Adam steps (at least 31.0 s.e.)" in page
    assert "it does not after 0 (not resolved)" in page
    assert "| 100 | +3.10000 ± 0.10000 | +31.0 | 2/2 | higher |" in page
    assert "`python the command`: 2 seeds" in page


def test_the_page_does_not_hide_a_reversed_order(script: ModuleType) -> None:
    page = page_of(script, (-3.0, -3.2))
    assert "RD > Original holds nowhere; it does not after 0 (not resolved) and 100 (lower)." in page
    assert "**lower**" in page


def test_the_script_writes_the_page(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    monkeypatch.setattr(script, "StudyConfig", lambda: TINY)
    monkeypatch.setattr(script, "SINGLE_BATCHES", 2)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(sys, "argv", ["decrease_ratio.py", "--seeds", "2", "--output", str(page)])
    script.main()
    assert page.read_text().startswith("# Does Reverse Deactivation lower monosemanticity?")
    assert "nan" not in page.read_text()
    assert list(tmp_path.iterdir()) == [page]


def test_one_seed_is_refused(script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["decrease_ratio.py", "--seeds", "1", "--output", str(tmp_path / "page.md")])
    with pytest.raises(SystemExit):
        script.main()
    assert not list(tmp_path.iterdir())

import pytest
import torch

from l2e.inhibition import deactivate, log_penalty


def test_penalty_by_hand() -> None:
    values = torch.tensor([[3.0, 1.0, -2.0]], requires_grad=True)
    mean = torch.tensor([1.0, 1.0, 2.0])
    mask = torch.tensor([[True, False, True]])
    penalty = log_penalty(values, mean, mask)
    assert penalty.item() == pytest.approx(4.1588831)  # log 4 + log 16 = 6 log 2
    penalty.backward()
    assert values.grad is not None
    assert values.grad.tolist() == [[1.0, 0.0, pytest.approx(-0.5)]]  # 2 / (z - mean)


def test_gradient_by_finite_differences_with_the_mask_held() -> None:
    torch.manual_seed(0)
    values = torch.randn(3, 4, 5, dtype=torch.float64)
    mean, mask = torch.randn(4, 5), torch.rand(3, 4, 5) < 0.5
    values = values.float().requires_grad_()
    (gradient,) = torch.autograd.grad(log_penalty(values, mean, mask), values)
    step = 1e-3
    for index in [(0, 0, 0), (1, 2, 3), (2, 3, 4)]:
        shifted = [values.detach().clone() for _ in range(2)]
        shifted[0][index] += step
        shifted[1][index] -= step
        slope = (log_penalty(shifted[0], mean, mask) - log_penalty(shifted[1], mean, mask)) / (2 * step)
        assert gradient[index].item() == pytest.approx(slope.item(), rel=2e-2, abs=1e-2)


def test_a_value_at_the_mean_gives_no_nan() -> None:
    for selected in (True, False):
        values = torch.tensor([[1.0, 2.0]], requires_grad=True)
        penalty = log_penalty(values, torch.tensor([1.0, 0.0]), torch.tensor([[selected, True]]))
        penalty.backward()
        assert penalty.item() == pytest.approx(1.3862944)  # log 4
        assert values.grad is not None
        assert values.grad.tolist() == [[0.0, 1.0]]


def test_the_mean_is_a_constant() -> None:
    mean = torch.zeros(2, requires_grad=True)
    penalty = log_penalty(torch.ones(1, 2, requires_grad=True), mean, torch.ones(1, 2, dtype=torch.bool))
    penalty.backward()
    assert mean.grad is None


def test_half_precision_is_measured_in_fp32() -> None:
    values = torch.tensor([[1e-6]], dtype=torch.bfloat16)  # its square is 0 in fp16
    assert log_penalty(values, torch.zeros(1), torch.tensor([[True]])).item() == pytest.approx(-27.63, abs=0.01)


@pytest.mark.parametrize("delta", [1.0, 0.0, -1.0, 100.0])
def test_deactivation_has_the_mean_as_value_and_minus_delta_times_the_gradient(delta: float) -> None:
    values = torch.tensor([[7.0, 5.0]], requires_grad=True)  # M12: z = 7, mean 1
    mean = torch.tensor([1.0, 1.0])
    output = deactivate(values, mean, torch.tensor([[True, False]]), delta)
    assert output.tolist() == [[1.0, 5.0]]
    output.backward(torch.tensor([[2.0, 3.0]]))
    assert values.grad is not None
    assert values.grad.tolist() == [[-delta * 2.0, 3.0]]


def test_the_papers_worked_example_of_reverse_deactivation() -> None:
    """M12: with a loss that pulls z' from 1 to 2, one unit step moves z = 7 to 6 under RD, to 8 under naive (b)."""
    for delta, expected in ((1.0, 6.0), (-1.0, 8.0), (0.0, 7.0)):
        z = torch.tensor([[7.0]], requires_grad=True)
        output = deactivate(z, torch.tensor([1.0]), torch.tensor([[True]]), delta)
        ((output - 2) ** 2 / 2).backward()
        assert z.grad is not None
        assert (z - z.grad).item() == expected

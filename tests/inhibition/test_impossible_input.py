"""What cannot be right is refused with a clear error, or handled, and never spoils the statistics."""

import copy
import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from small_networks import SETTINGS, Network, OneBlock, batches, train
from torch import Tensor, nn

import l2e
from l2e.inhibition import InhibitionConfig, MovingThreshold


def trained(**settings: Any) -> tuple[Network, l2e.Inhibition]:
    model = Network()
    inhibition = l2e.attach(model, **{**SETTINGS, "weight": 0.05, **settings})
    train(model, inhibition, batches(4))
    return model, inhibition


def observe(model: nn.Module, inhibition: l2e.Inhibition, batch: Tensor) -> None:
    """An update that leaves the weights alone."""
    (model(batch).square().mean() + inhibition.penalty()).backward()
    inhibition.step()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("scope", ["step", "micro_batch"])
def test_outputs_that_are_not_finite_are_named_and_change_nothing(bad: float, scope: str) -> None:
    model, inhibition = trained(scope=scope)
    before = copy.deepcopy(inhibition.state_dict())
    batch = batches(1)[0]
    batch[3, 2, 1] = bad
    with pytest.raises(FloatingPointError, match="block 1 gave NaN or infinite outputs in update 5;"):
        observe(model, inhibition, batch)
    assert str(inhibition.state_dict()) == str(before)
    twin = copy.deepcopy(model)
    other = l2e.attach(twin, **SETTINGS, weight=0.05, scope=scope)
    other.load_state_dict(before)
    for one, two in zip(train(model, inhibition, batches(3)), train(twin, other, batches(3)), strict=True):
        assert one == two
    assert str(inhibition.state_dict()) == str(other.state_dict())


def test_the_first_update_may_be_the_bad_one() -> None:
    model = Network()
    inhibition = l2e.attach(model, **SETTINGS, weight=0.05)
    with pytest.raises(FloatingPointError, match=r"block 1 .* in update 1;"):
        observe(model, inhibition, torch.full((4, 5, 8), math.nan))
    assert inhibition.state_dict()["taps"][1]["statistics"]["moments"] is None
    train(model, inhibition, batches(3))
    assert inhibition.metrics()["block1/threshold"] > 0


@pytest.mark.parametrize("scope", ["step", "micro_batch"])
@pytest.mark.parametrize("method", ["l2e", "l2e_no_threshold", "memel"])
def test_batches_of_one(method: str, scope: str) -> None:
    model = Network()
    inhibition = l2e.attach(model, method, **SETTINGS, scope=scope, weight=0.01)
    data = batches(20, size=1)
    losses = train(model, inhibition, data)
    assert all(math.isfinite(loss) for loss in losses)
    for tap in inhibition.taps.values():
        moments = tap.statistics.moments
        assert moments is not None
        assert moments.var.isfinite().all()
        assert (moments.var > 0).all()
    assert 0 < inhibition.metrics()["block1/selected"] <= 1


@pytest.mark.parametrize("compensation", [0.0, 0.01])
@pytest.mark.parametrize("method", ["l2e", "l2e_no_threshold", "memel", "reverse_deactivation"])
def test_neurons_that_never_vary(method: str, compensation: float) -> None:
    """All of them, then some: no NaN, and what never moved is never selected."""

    for constant in (slice(None), slice(0, 4)):
        model = OneBlock()
        inhibition = l2e.attach(model, method, ["block"], **SETTINGS, weight=0.1, compensation=compensation)
        for batch in batches(6):
            batch[..., constant] = 2.0
            x = batch.clone().requires_grad_()
            out = model(x)
            (out.sum() + inhibition.penalty()).backward()
            assert x.grad.isfinite().all()
            assert (x.grad[..., constant] == 1).all()  # untouched
            assert torch.equal(out[..., constant], x[..., constant])
            inhibition.step()
        selected = inhibition.metrics()["block/selected"]
        assert selected == 0 if constant == slice(None) else selected > 0


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 2.0, math.nan])
def test_rates_outside_the_open_interval(rate: float) -> None:
    for method in ("l2e", "memel"):
        with pytest.raises(ValueError, match=r"rate must lie in \(0, 1\)"):
            l2e.attach(Network(), method, rate=rate, weight=0.1)
    with pytest.raises(ValueError, match=r"rate must lie in \(0, 1\)"):
        MovingThreshold(rate)


def test_step_before_anything_ran() -> None:
    model = Network()
    inhibition = l2e.attach(model, weight=0.1)
    with pytest.raises(RuntimeError, match="block 1, block 2 never ran in training mode"):
        inhibition.step()
    model.eval()
    model(batches(1)[0])
    with pytest.raises(RuntimeError, match="is the model in train"):
        inhibition.step()


def test_a_block_that_is_left_out_of_some_updates_is_no_error() -> None:
    model, inhibition = trained()
    before = copy.deepcopy(inhibition.state_dict()["taps"])
    inhibition.step()
    after = inhibition.state_dict()["taps"]
    assert str(after[1]["statistics"]["moments"]) == str(before[1]["statistics"]["moments"])
    train(model, inhibition, batches(1))
    assert inhibition.metrics()["block1/selected"] > 0


def test_an_empty_batch_is_passed_through() -> None:
    model, inhibition = trained()
    before = str(inhibition.state_dict())
    assert model(torch.empty(0, 5, 8)).shape == (0, 5, 8)
    assert inhibition.penalty().item() == 0
    assert str(inhibition.state_dict()) == before


def test_sequences_of_other_lengths_and_outputs_of_other_shapes() -> None:
    model, inhibition = trained()
    for length in (3, 9, 1):
        train(model, inhibition, batches(2, seq=length))
    moments = inhibition.taps[1].statistics.moments
    assert moments is not None
    assert moments.mean.shape == (9, 8)
    assert moments.merges.flatten().tolist() == [10, *[8] * 2, *[6] * 2, *[2] * 4]
    tap = inhibition.taps[1]
    with pytest.raises(ValueError, match=r"block 1 gave outputs of shape \[5, 7\] per sample after \[9, 8\]"):
        tap.forward(torch.randn(2, 5, 7), True)
    with pytest.raises(ValueError, match=r"of shape \[8\] per sample after \[9, 8\]"):
        tap.forward(torch.randn(2, 8), True)


def test_positions_without_enough_updates_are_not_scored() -> None:
    model = OneBlock()
    inhibition = l2e.attach(model, "memel", ["block"], late_start=3, rate=0.4)
    for batch in batches(4, seq=2):
        model(batch)
        inhibition.step()
    x = 10 * batches(1, seq=5)[0]
    result = model(x)
    inhibition.step()
    assert torch.equal(result[:, 2:], x[:, 2:])  # never seen before
    changed = (result[:, :2] != x[:, :2]).float().mean().item()
    assert changed > 0.9  # 40% of 5 positions are all of the 2 that are known
    # The share is one of the outputs that could be selected.
    assert inhibition.metrics()["block/selected"] == pytest.approx(changed)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "l2e"}, "weight: method l2e needs one"),
        ({"method": "l2e", "strength": -1.0}, "strength must be at least 0"),
        ({"method": "l2e", "strength": [[10, 0.1], [5, 0.1]]}, "strength must name updates in rising order"),
        ({"method": "l2e", "strength": [[10.0]]}, r"a number or a list of \[update, strength\]"),
        ({"method": "l2e", "strength": []}, "strength must name updates"),
        ({"method": "l2e", "weight": math.inf}, "weight must be at least 0"),
        ({"method": "l2e", "weight": 0.1, "top_k": 5}, "top_k: method l2e selects by `rate`"),
        ({"method": "memel", "top_k": 0}, "top_k must be at least 1"),
        ({"method": "l2e", "weight": 0.1, "delta": 1.0}, "delta: method l2e has none to set"),
        ({"method": "naive_a", "delta": 1.0}, "delta: method naive_a has none to set"),
        ({"method": "dropout", "dropout": 1.0}, r"dropout must lie in \[0, 1\)"),
        ({"method": "memel", "update_first": True}, "update_first needs scope=micro_batch"),
        ({"method": "memel", "count_offset": -1}, "count_offset must be at least 0"),
        ({"method": "memel", "channel_dim": 0}, "channel_dim must not be 0"),
        ({"method": "memel", "neurons": "token"}, "neurons must be one of position, channel"),
    ],
)
def test_impossible_settings_name_their_key(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InhibitionConfig(**settings)


def test_more_neurons_than_there_are() -> None:
    model = Network()
    inhibition = l2e.attach(model, "memel", top_k=41, late_start=1)
    with pytest.raises(ValueError, match="top_k: 41 of 40 neurons cannot be selected"):
        train(model, inhibition, batches(2))


def test_modules_that_are_not_there() -> None:
    with pytest.raises(ValueError, match=r"blocks: Network has no module 'blocks\.9'"):
        l2e.attach(Network(), blocks=["blocks.9"], weight=0.1)
    with pytest.raises(ValueError, match="stack: Network has no module 'layers'"):
        l2e.attach(Network(), stack="layers", weight=0.1)
    with pytest.raises(ValueError, match=r"stack: blocks\.0\.0 is a Linear, not a ModuleList"):
        l2e.attach(Network(), stack="blocks.0.0", weight=0.1)


def test_a_list_inside_the_blocks_is_not_taken_for_the_blocks() -> None:
    class WithHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    model = nn.Sequential(nn.Linear(8, 8), *(WithHeads() for _ in range(3)), nn.LayerNorm(8))
    with pytest.raises(ValueError, match=r"1\.heads is one of several alike"):
        l2e.attach(model, weight=0.1)
    found = l2e.attach(model, blocks=[1, 3], stack="", weight=0.1)
    assert found.paths == {1: "1", 3: "3"}
    assert l2e.attach(Network(), weight=0.1).paths == {1: "blocks.1", 2: "blocks.2"}


def test_one_module_under_two_names_is_refused() -> None:
    shared = nn.Linear(8, 8)
    with pytest.raises(ValueError, match="names a module twice"):
        l2e.attach(nn.Sequential(shared, shared), weight=0.1)
    with pytest.raises(ValueError, match="names a module twice"):
        l2e.attach(Network(), blocks=["blocks.0", "blocks.0"], weight=0.1)


def test_outputs_without_neurons_are_refused() -> None:
    model = nn.Sequential(nn.Flatten(0), nn.Flatten(0))
    l2e.attach(model, blocks=[0], weight=0.1)
    with pytest.raises(ValueError, match=r"block 0 gave outputs of shape \[3\]; expected \[batch"):
        model(torch.randn(3, 1))


def test_state_of_another_method_is_refused() -> None:
    _, one = trained()
    two = l2e.attach(Network(), "memel")
    with pytest.raises(ValueError, match="saved by method l2e, this is memel"):
        two.load_state_dict(one.state_dict())


def test_the_method_needs_torch_alone() -> None:
    """With every other dependency hidden, the three lines still work."""
    program = """
import sys
hidden = ("transformers deepspeed hydra omegaconf pydantic datasets lm_eval wandb tokenizers safetensors"
          " matplotlib rich zstandard accelerate").split()
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in hidden:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hide())
import torch, l2e
model = torch.nn.Sequential(*[torch.nn.Linear(4, 4) for _ in range(4)])
inhibition = l2e.attach(model, method="l2e", weight=0.1, late_start=1, warmup=1)
for _ in range(4):
    (model(torch.randn(8, 4)).square().mean() + inhibition.penalty()).backward()
    inhibition.step()
print(inhibition.metrics()["block1/threshold"] > 0, sorted(m for m in sys.modules if m.startswith("l2e.") and
      not m.startswith("l2e.inhibition")))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == "True ['l2e.lazy']"  # which needs Python alone


def test_the_state_is_at_most_four_numbers_per_neuron_and_tap() -> None:
    """Held over an update, sums included, with every option that keeps something."""
    model = Network()
    inhibition = l2e.attach(model, **SETTINGS, strength=0.1)
    train(model, inhibition, batches(3, seq=64))
    model(batches(1, seq=64)[0])  # in the middle of an update
    neurons = 64 * 8
    for tap in inhibition.taps.values():
        assert size_of(vars(tap.statistics)) / 4 <= 4 * neurons + 64 * 8 + 64  # a few more per position and tap
        assert size_of(inhibition.state_dict()["taps"][1]) / 4 <= 2 * neurons + 64 * 4 + 64


def size_of(thing: Any, depth: int = 0) -> int:
    """Bytes of the distinct tensors in a tree of objects."""
    return sum(tensor.nbytes for tensor in {id(t): t for t in tensors_of(thing, depth)}.values())


def tensors_of(thing: Any, depth: int) -> list[Tensor]:
    if isinstance(thing, Tensor):
        return [thing]
    if depth > 4:
        return []
    inner = list(thing.values()) if isinstance(thing, dict) else list(thing) if isinstance(thing, list | tuple) else []
    inner += list(vars(thing).values()) if hasattr(thing, "__dict__") and not isinstance(thing, type) else []
    return [tensor for each in inner for tensor in tensors_of(each, depth + 1)]

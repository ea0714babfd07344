"""The same update however its batch is split: over micro-batches, ranks, and sequences of several lengths."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import SETTINGS, Network, batches, train

import l2e
from l2e.inhibition import MovingThreshold, RunningMoments
from l2e.inhibition.moments import ShiftedSums


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 6)), min_size=1, max_size=6), seed=st.integers(0, 99)
)
def test_each_position_has_the_moments_of_the_sequences_that_reach_it(
    lengths: list[tuple[int, int]], seed: int
) -> None:
    random = np.random.default_rng(seed)
    parts = [random.standard_normal((size, length, 2)).astype(np.float32) for size, length in lengths]
    moments = RunningMoments([parts[0].shape[1], 2])
    for part in parts:
        moments.grow(part.shape[1])
        sums = ShiftedSums(moments.mean)
        sums.add(torch.from_numpy(part))
        moments.merge(*sums.moments())
    for position in range(max(length for _, length in lengths)):
        seen = np.concatenate([part[:, position] for part in parts if part.shape[1] > position]).astype(np.float64)
        assert moments.count[position].item() == len(seen)
        np.testing.assert_allclose(moments.mean[position], seen.mean(0), rtol=1e-4, atol=1e-5)
        expected = seen.var(0, ddof=1) if len(seen) > 1 else np.zeros(2)
        np.testing.assert_allclose(moments.var[position], expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, 11), max_size=5, unique=True), seed=st.integers(0, 99))
def test_any_split_of_a_batch_gives_the_same_update(cuts: list[int], seed: int) -> None:
    """Moments, threshold, selection and gradient of the penalty, for unequal micro-batches too."""
    found = []
    for parts in ([12], np.diff([0, *sorted(cuts), 12]).tolist()):
        model = Network()
        inhibition = l2e.attach(model, **SETTINGS, weight=0.05)
        for batch in batches(3, seed=seed):
            model.zero_grad()
            penalties = torch.zeros(())
            for part in batch.split(parts):
                model(part)
                # `sequence` divides by a micro-batch's sequences; a trainer weighs it by its share of the batch.
                penalties = penalties + inhibition.penalty() * len(part) / 12
            if penalties.requires_grad:
                penalties.backward()
            inhibition.step()
        statistics = inhibition.taps[2].statistics
        gradient = model.blocks[0][0].weight.grad
        assert gradient is not None
        found.append((statistics.moments, inhibition.metrics(), gradient))
    (one, metrics, gradient), (two, others, other) = found
    torch.testing.assert_close(one.mean, two.mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(one.var, two.var, rtol=1e-4, atol=1e-6)
    assert others["block2/selected"] == metrics["block2/selected"] > 0
    assert others["block2/threshold"] == pytest.approx(metrics["block2/threshold"], rel=1e-6)
    torch.testing.assert_close(gradient, other, rtol=1e-4, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(rate=st.floats(0.01, 0.5), size=st.integers(1, 400), seed=st.integers(0, 99))
def test_the_warm_up_finds_the_k_th_largest_score(rate: float, size: int, seed: int) -> None:
    scores = np.random.default_rng(seed).chisquare(1, size).astype(np.float32)
    k = max(1, round(rate * size))
    expected = np.sort(scores)[::-1][k - 1]
    for exact, error in ((True, 1e-6), (False, 2e-4)):
        threshold = MovingThreshold(rate, warmup=1, exact=exact)
        assert not threshold.observe(torch.from_numpy(scores)).any()
        threshold.step()
        assert threshold.value == pytest.approx(expected, rel=error)


RANKS = """
import sys, torch, torch.distributed as dist
sys.path.insert(0, sys.argv[1])
from small_networks import Network, SETTINGS, batches
import l2e
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=int(sys.argv[3]), world_size=2)
rank, found, sent = dist.get_rank(), {}, []
send = dist.all_reduce
def counted(tensor, *args, **kwargs):
    sent.append(tensor.numel())
    return send(tensor, *args, **kwargs)
dist.all_reduce = counted
CASES = [
    ("accumulated", "l2e", {}, [(5, 5)] * 8, [6, 6]),
    ("unequal", "l2e", {}, [(5, 5)] * 8, [4, 8]),
    ("lengths", "l2e", {}, [(5, 3), (3, 5), (6, 2), (2, 6)] * 2, [6, 6]),
    ("exact", "memel", {}, [(5, 5)] * 8, [6, 6]),
    ("strength", "l2e", {"strength": 0.2}, [(5, 5)] * 8, [6, 6]),
    ("pooled", "l2e", {"neurons": "channel"}, [(5, 3), (3, 5)] * 4, [6, 6]),
]
for early in (False, True):
    for name, method, extra, lengths, shares in CASES:
        model = Network()
        inhibition = l2e.attach(model, method, **SETTINGS, **{"weight": 0.05, **extra})
        for batch, length in zip(batches(8, seq=6), lengths):
            model.zero_grad()
            mine = batch.split(shares)[rank][:, : length[rank]]
            parts = mine.split([1, len(mine) - 1]) if name == "unequal" and rank == 1 else mine.chunk(2)
            for index, part in enumerate(parts):
                loss = model(part).square().sum() / 300
                loss = loss + inhibition.penalty() * len(part) / 12
                if early and index + 1 == len(parts):
                    inhibition.start_sharing()
                loss.backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    send(parameter.grad)
                    parameter -= 0.05 * parameter.grad
            sent.clear()
            inhibition.step()
        found[name, early] = {
            "weights": model.state_dict(),
            "metrics": inhibition.metrics(),
            "state": inhibition.state_dict(),
            "sent by step": list(sent),
        }
model = Network()
inhibition = l2e.attach(model, **SETTINGS, weight=0.05)
model(batches(1)[0])
inhibition.start_sharing()
try:
    model(batches(1)[0])
except RuntimeError as error:
    found["refused"] = str(error)
inhibition.skip()
model(batches(1)[0])
inhibition.step()
found["after skip"] = [tap.statistics.moments.count.max().item() for tap in inhibition.taps.values()]
torch.save(found, f"{sys.argv[4]}{rank}")
dist.barrier()
dist.destroy_process_group()  # without it gloo's thread may abort the process at its exit
"""


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("ranks")
    script = folder / "ranks.py"
    script.write_text(RANKS)
    arguments = [sys.executable, str(script), str(Path(__file__).parent), str(folder / "meet")]
    processes = [subprocess.Popen([*arguments, str(rank), str(folder / "out")]) for rank in (0, 1)]
    assert [process.wait(timeout=200) for process in processes] == [0, 0]
    return [torch.load(folder / f"out{rank}", weights_only=True) for rank in (0, 1)]


CASES = {
    "accumulated": ("l2e", {}, [(5, 5)] * 8),
    "unequal": ("l2e", {}, [(5, 5)] * 8),
    "lengths": ("l2e", {}, [(5, 3), (3, 5), (6, 2), (2, 6)] * 2),
    "exact": ("memel", {}, [(5, 5)] * 8),
    "strength": ("l2e", {"strength": 0.2}, [(5, 5)] * 8),
    "pooled": ("l2e", {"neurons": "channel"}, [(5, 3), (3, 5)] * 4),
}


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_two_ranks_with_accumulation_equal_one_process(two_ranks: list[dict], name: str, early: bool) -> None:
    method, extra, lengths = CASES[name]
    model = Network()
    inhibition = l2e.attach(model, method, **SETTINGS, **{"weight": 0.05, **extra})
    sizes = [4, 8] if name == "unequal" else [6, 6]
    for batch, length in zip(batches(8, seq=6), lengths, strict=True):
        model.zero_grad()
        for part, end in zip(batch.split(sizes), length, strict=True):
            loss = model(part[:, :end]).square().sum() / 300
            (loss + inhibition.penalty() * len(part) / 12).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.05 * parameter.grad
        inhibition.step()
    one, two = (rank[name, early] for rank in two_ranks)
    assert str(one["state"]) == str(two["state"])  # the ranks never drift apart
    for key, parameter in model.state_dict().items():
        torch.testing.assert_close(one["weights"][key], parameter, rtol=1e-4, atol=1e-6)
    for key, value in inhibition.metrics().items():
        assert one["metrics"][key] == pytest.approx(value, rel=1e-3, nan_ok=True), key
    assert inhibition.metrics()["block1/selected"] > 0
    plain = Network()
    train(plain, l2e.attach(plain, "none"), batches(8))
    assert not torch.allclose(plain.blocks[1][0].weight, model.blocks[1][0].weight, atol=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_statistics_sent_before_the_backward_pass(two_ranks: list[dict], name: str) -> None:
    """They are the same to the bit, and `step` has only the norms of the gradients left to send."""
    late, early = two_ranks[0][name, False], two_ranks[0][name, True]
    assert all(torch.equal(weight, late["weights"][key]) for key, weight in early["weights"].items())
    assert str(early["state"]) == str(late["state"])
    norms = late["sent by step"][-2:]  # of each tap
    assert early["sent by step"] == norms
    assert sum(late["sent by step"]) > 5 * sum(norms)  # two sums of every neuron, and counts


def test_nothing_may_be_gathered_while_statistics_travel(two_ranks: list[dict]) -> None:
    for rank in two_ranks:
        assert "after the last forward pass" in rank["refused"]
        assert rank["after skip"] == [24, 24]  # a batch of 12 on each rank, and nothing of the skipped update

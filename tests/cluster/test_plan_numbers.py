"""The planner's numbers against published ones and against arithmetic done by hand."""

import pytest
from workloads import pythia, workload

from l2e.cluster.advice import problems
from l2e.cluster.compute import compute, implied_mfu
from l2e.cluster.disk import disk, restart_point
from l2e.cluster.memory import GIB, Allowance, peak_memory, peaks
from l2e.cluster.states import partition, partition_3, states
from l2e.cluster.workload import embedding_parameters, parameters
from l2e.models import PYTHIA, build_pythia, pythia_size

NOTHING = Allowance(context_gib=0, fragmentation=0)
N70 = 70_426_624


@pytest.mark.parametrize("name", PYTHIA)
def test_published_totals(name: str) -> None:
    assert parameters(PYTHIA[name]) == PYTHIA[name].parameters


def test_parameters_of_a_built_model() -> None:
    assert parameters(pythia_size("tiny")) == sum(p.numel() for p in build_pythia("tiny").parameters())
    # The suite's paper: 18,915,328 without embeddings at 70M, 302,311,424 at 410M.
    for name, count in (("pythia-70m", 18_915_328), ("pythia-410m", 302_311_424)):
        assert parameters(PYTHIA[name]) - embedding_parameters(PYTHIA[name]) == count


def test_sixteen_bytes_a_parameter() -> None:
    """Mixed-precision Adam (ZeRO, arXiv:1910.02054, section 3.1): 2 + 2 + 4 + 4 + 4."""
    found = states(pythia("pythia-70m", 32, 0))
    assert found.weights + found.gradients + found.master_weights + found.adam_moments == 16 * N70


def test_stages_divide_what_the_zero_paper_says() -> None:
    """Figure 1 there, with K = 12: 2 + 2 + 12/N, 2 + (2 + 12)/N, (2 + 2 + 12)/N; our own sums are stored in fp16."""
    ranks = 32
    one, two, three = (states(pythia("pythia-70m", ranks, stage)) for stage in (1, 2, 3))
    optimizer = 12 * N70 / ranks
    assert one.weights + one.gradients == pytest.approx(4 * N70, rel=1e-5)
    assert one.master_weights + one.adam_moments == pytest.approx(optimizer, rel=1e-5)
    assert two.weights + two.buffers == pytest.approx(2 * N70 + 2 * N70 / ranks, rel=1e-5)
    assert three.weights + three.buffers == pytest.approx(4 * N70 / ranks, rel=1e-4)
    assert three.master_weights + three.adam_moments == pytest.approx(optimizer, rel=1e-4)


def test_padding_by_hand() -> None:
    """tiny: groups of 983,040 and 6,912; 5 ranks take multiples of 10: 983,040 and 6,920, a fifth each."""
    assert partition(workload("tiny", 5)) == 983_040 // 5 + 6_920 // 5
    # Each tensor on its own: 98,304 -> 19,661 twice; (49,152, 16,384, 65,536, 65,536) -> (9,831, 3,277, 13,108, 13,108)
    # four times; 128 -> 26 for six of a block and two at the end; 384 -> 77; 512 -> 103.
    blocks = 9_831 + 3_277 + 2 * 13_108 + 6 * 26 + 77 + 103
    assert partition_3(workload("tiny", 5)) == 2 * 19_661 + 4 * blocks + 2 * 26


def test_a_small_case_by_hand() -> None:
    """tiny, fp32, ZeRO-0, one rank, one micro-batch of 2 x 16 tokens of hidden 128."""
    parts = peaks(workload("tiny", 1, 0, loss_chunk=0))["backward pass of the head"]
    unit = 2 * 16 * 128 * 4  # 16,384 bytes
    block = 18 * unit + 2 * 2 * 4 * 32 + 4 * 2 * 4 * 16
    assert parts["activations"] == 4 * block + 2 * unit
    assert parts["logits"] == 12 * 32 * 768
    fused = peaks(workload("tiny", 1, 0, loss_chunk=8))["backward pass of the head"]["logits"]
    # Kept: the weight's gradient and the hidden states'. Besides: both again, more than 4 bytes of 8 x 768 logits.
    assert fused == 2 * (4 * 768 * 128 + unit)
    large = pythia("pythia-70m", 32)
    assert peaks(large)["backward pass of the head"]["logits"] == pytest.approx(
        4 * 50304 * 512 + 2 * 65536 * 512 + (2 + 4) * 2**28, rel=1e-3
    )
    assert (parts["weights"], parts["Adam moments"], parts["gradients"]) == (4 * 989_952, 8 * 989_952, 0)
    assert parts["master weights"] == 0  # plain fp32 has no second copy
    twice = workload("tiny", 1, 0, micro_batch_size=1)
    assert peaks(twice)["backward pass of the head"]["gradients"] == 4 * 989_952  # of the first micro-batch


def test_the_peak_is_the_largest_moment_with_what_is_assumed_on_top() -> None:
    work = pythia("pythia-410m", 32, loss_chunk=0)
    bare = peak_memory(work, NOTHING)
    assert bare.total == max(sum(parts.values()) for parts in peaks(work).values())
    assert bare.moment == "backward pass of the head"
    assert bare.largest == "logits"
    assert peak_memory(work).total == pytest.approx(1.05 * bare.total + 1.5 * GIB)


# L2E, Table 2, row Pythia: ms of an update of 1024 x 2048 tokens.
TABLE_2 = {"pythia-70m": 605.8, "pythia-410m": 2383.1, "pythia-2.8b": 11285.1}
H100_TFLOPS = 989.4


@pytest.mark.parametrize(("gpus", "shares"), [(24, (0.05, 0.10, 0.14)), (8, (0.15, 0.30, 0.42))])
def test_table_2_implies_these_mfus(gpus: int, shares: tuple[float, ...]) -> None:
    for (name, milliseconds), share in zip(TABLE_2.items(), shares, strict=True):
        size = PYTHIA[name]
        # From first principles: 6 for each weight of a matrix product, 12 s h for each layer's attention.
        matrices = 12 * size.layers * size.hidden**2 + size.vocab_size * size.hidden
        per_token = 6 * matrices + 12 * size.layers * 2048 * size.hidden
        by_hand = per_token * 1024 * 2048 / (milliseconds / 1000) / (gpus * H100_TFLOPS * 1e12)
        found = implied_mfu(pythia(name, gpus), seconds_per_update=milliseconds / 1000, peak_tflops=H100_TFLOPS)
        assert found == pytest.approx(by_hand, rel=1e-9)
        assert found == pytest.approx(share, abs=0.01)


def test_time_by_hand() -> None:
    """343,277,568 FLOPs of a token at 70M and 2048: 720 TFLOP an update, 1.82 s at 40% of 989.4 TFLOP/s."""
    found = compute(pythia("pythia-70m", 1, steps=3600), peak_tflops=989.4, mfu=0.4)
    assert found.flops_per_token == 343_277_568
    assert found.seconds_per_update == pytest.approx(343_277_568 * 2_097_152 / (0.4 * 989.4e12))
    assert found.hours == pytest.approx(found.seconds_per_update)
    more = compute(pythia("pythia-70m", 16, steps=3600), peak_tflops=989.4, mfu=0.4)
    assert (more.hours, more.gpu_hours) == pytest.approx((found.hours / 16, found.gpu_hours))


def test_disk_by_hand() -> None:
    work = pythia("pythia-70m", 8, steps=14_300, checkpoint={"every": 1000, "keep": 2, "exports": [0, 1000, 99_999]})
    found = disk(work)
    assert found.rows == 14_300 * 4_196_352  # bytes of an update's rows (pythia.md D.5)
    assert (found.restart_points, found.exports) == (3, 3)  # two kept and one being written; 0, 1000 and the last
    assert found.export == pytest.approx(2 * N70 + 2_467_981, rel=1e-3)  # Pythia's tokenizer.json
    assert found.restart_point == pytest.approx((2 + 12) * N70, rel=1e-5)
    assert found.run == 3 * found.restart_point + 3 * found.export
    assert disk(pythia("pythia-70m", 8, checkpoint={"every": 0, "every_minutes": 0})).restart_points == 0
    assert disk(pythia("pythia-70m", 8, checkpoint={"every": 0, "keep": 4})).restart_points == 5  # by the clock
    assert disk(workload()).rows == 0


def test_restart_points_hold_the_moments_of_the_taps() -> None:
    """Mean and variance of 2 x 2048 x 512 neurons in fp32."""
    taps = {"method": "l2e", "weight": 1e-11}
    more = restart_point(pythia("pythia-70m", 8, inhibition=taps)) - restart_point(pythia("pythia-70m", 8))
    assert more == 2 * 2 * 2048 * 512 * 4


def test_a_batch_that_does_not_divide() -> None:
    (found,) = problems(pythia("pythia-70m", 24), 1000)
    assert found.startswith("gpus: 1024 sequences do not divide over 24; 16 or 32 GPUs do, or training.batch_size=1032")
    (found,) = problems(pythia("pythia-70m", 8, micro_batch_size=30), 1000)
    assert "30 does not divide the 128 sequences of a rank; the nearest that does is 32" in found
    assert problems(pythia("pythia-70m", 8), 1000) == []


def test_what_does_not_fit_and_what_would_help() -> None:
    work = pythia("pythia-2.8b", 8, activation_checkpointing=False, precision="bf16")
    (found,) = problems(work, 79.1)
    assert "the largest part is activations" in found
    assert "training.activation_checkpointing=true needs" in found
    # The micro-batch that is named fits, and the next larger one that divides the 128 of a rank does not.
    micro = int(found.split("micro_batch_size=")[1].split()[0])
    fits = [
        peak_memory(
            pythia("pythia-2.8b", 8, activation_checkpointing=False, precision="bf16", micro_batch_size=m)
        ).total
        <= 79.1 * GIB
        for m in (micro, 2 * micro)
    ]
    assert fits == [True, False]
    (found,) = problems(pythia("pythia-12b", 8), 39.4)
    assert "deepspeed=zero3 needs" in found
    assert "(still too much)" in found


def test_a_gpu_without_bf16() -> None:
    (found,) = problems(pythia("pythia-70m", 8, precision="bf16"), 1000, bf16=False)
    assert "take fp16" in found


def test_what_would_not_help_is_not_proposed() -> None:
    """The logits are most of it; another stage divides what is 2% of the peak."""
    (found,) = problems(pythia("pythia-410m", 8, loss_chunk=0), 20)
    assert "training.micro_batch_size=8 needs" in found
    assert "deepspeed=" not in found

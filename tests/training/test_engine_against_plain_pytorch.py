"""Norms and weights under every ZeRO stage and precision, against a loop without DeepSpeed, ranks or optimizer.

What is compared is the optimizer's fp32 copy of the weights, where half precision hides nothing. After the first
update all runs have seen the same weights, so only the order of sums differs; later on, half precision turns a
difference of 1e-8 into one of 1e-3 of a weight as soon as it is rounded the other way.
"""

import math
from functools import cache
from typing import Any

import pytest
import torch
from deepspeed_rank import ACCUMULATION, LENGTH, UPDATES, rows
from engine_rank import DECAY, EPS, PEAK, Case, initial_model
from processes import train
from torch import Tensor
from torch.nn import functional as F

Tensors = dict[str, Tensor]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CLIP = 2.0
"""Below the norms of the updates 0, 1, 2 and 4, above those of 3 and 5."""


def offloaded(stage: int) -> dict[str, Any]:
    return {"stage": stage, "offload_optimizer": "cpu", "offload_param": "cpu" if stage == 3 else "none"}


FP32 = {f"zero{stage}": Case(zero={"stage": stage}, clip=CLIP) for stage in range(4)}
HALF = {
    f"zero{stage}-{precision}": Case(zero={"stage": stage}, precision=precision, clip=CLIP)
    for stage in (1, 2, 3)
    for precision in ("bf16", "fp16")
}
OFFLOADED = {
    f"zero{stage}-{precision}-offloaded": Case(zero=offloaded(stage), precision=precision, clip=CLIP)
    for stage in (1, 2, 3)
    for precision in ("fp32", "bf16")
}
BUCKETS = {"overlap_comm": True, "reduce_bucket_size": 50_000, "allgather_bucket_size": 40_000}
OTHERS = {f"zero{stage}-not-clipped": Case(zero={"stage": stage}, clip=0) for stage in range(4)}
OTHERS |= {f"zero{stage}-buckets": Case(zero={"stage": stage, **BUCKETS}, clip=CLIP) for stage in (1, 2, 3)}

ALL = FP32 | HALF | OFFLOADED | OTHERS
FAST = [*FP32, "zero1-bf16", "zero2-bf16", "zero3-bf16", "zero1-fp16", "zero2-bf16-offloaded", "zero3-fp32-offloaded"]
FAST += ["zero0-not-clipped", "zero2-not-clipped"]
PAIR = {name: ALL[name] for name in FAST}
SLOW_PAIR = {name: case for name, case in ALL.items() if name not in FAST}
OVERFLOWS = {
    f"zero{stage}": Case(zero={"stage": stage}, precision="fp16", clip=CLIP, overflow_at=[1, 3, 4])
    for stage in (1, 2, 3)
}
OVERFLOWS["always"] = Case(zero={"stage": 1}, precision="fp16", clip=CLIP, overflow_at=[1, 2, 3, 4, 5])

# Errors seen: of norms in parts of themselves; of weights (root mean square) in parts of what training changes in
# them. At least five times that is allowed. The least mistake below costs 5e-4 of the first update's weights.
ALLOWED = {  # of the first norm, all norms, the weights after one update and at the end
    "fp32": (5e-6, 5e-6, 1e-5, 1e-5),  # seen: 4e-7, 4e-7, 2e-6, 8e-7
    "bf16": (5e-6, 3e-3, 1e-5, 2e-2),  # seen: 3e-7, 4e-4, 2e-6, 3e-3
    "fp16": (2e-5, 3e-4, 2e-3, 5e-3),  # seen: 3e-6, 5e-5, 2e-4, 6e-4; sums over ranks and micro-batches are fp16
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return train("engine_rank.py", PAIR, 2, tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def slow_pair(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return train("engine_rank.py", SLOW_PAIR, 2, tmp_path_factory.mktemp("slow_pair"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return train("engine_rank.py", ALL, 1, tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def overflowing(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return train("engine_rank.py", OVERFLOWS, 1, tmp_path_factory.mktemp("overflowing"))


def rate(step: int) -> float:
    """Three updates of warm-up, then half a cosine down to a tenth."""
    if step < 3:
        return PEAK * max(1, step) / 3
    return PEAK * (0.1 + 0.45 * (1 + math.cos(math.pi * (step - 3) / 3)))


def linear_of_stage_3(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """DeepSpeed's: in half precision the product is rounded before the bias is added, and the sum again."""
    return inputs.matmul(weight.t()) if bias is None else inputs.matmul(weight.t()) + bias


def gradient(model: torch.nn.Module, batch: Tensor, ranks: int, mistake: str | None) -> Tensors:
    """Mean over the micro-batches of all ranks, summed in fp32."""
    scale = 4096.0 if next(model.parameters()).dtype == torch.float16 else 1.0
    total = {name: torch.zeros(p.shape) for name, p in model.named_parameters()}
    parts = list(batch.view(ACCUMULATION, ranks, -1, LENGTH + 1).flatten(0, 1))
    parts = {"last micro-batch alone": parts[-ranks:], "one rank alone": parts[::ranks]}.get(mistake or "", parts)
    for tokens in parts:
        model.zero_grad()
        logits = model(tokens[:, :-1], use_cache=False).logits.float()
        (F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()) / ACCUMULATION * scale).backward()
        for name, p in model.named_parameters():
            assert p.grad is not None
            total[name] += p.grad.float() / scale / ranks
            if mistake == "summed in bf16":
                total[name] = total[name].bfloat16().float()
    factor = {"summed over ranks": ranks, "summed over micro-batches": ACCUMULATION}.get(mistake or "", 1)
    return {name: factor * g for name, g in total.items()}


def norm_of(gradients: Tensors) -> float:
    return math.sqrt(sum(g.double().square().sum().item() for g in gradients.values()))


@cache
def plain(precision: str, ranks: int, clip: float, mistake: str | None = None) -> tuple[list[float], list[Tensors]]:
    """Norms, and the fp32 weights after the first and the last update; AdamW written out."""
    model = initial_model()
    for p in model.parameters():
        p.data = p.data.to(DTYPES[precision])
    # As in GPT-NeoX the optimizer's copy is made of the rounded weights.
    weights = {name: p.detach().float().clone() for name, p in model.named_parameters()}
    first, second = ({name: torch.zeros_like(w) for name, w in weights.items()} for _ in range(2))
    norms, saved = [], []
    for step, batch in enumerate(rows()):
        gradients = gradient(model, batch, ranks, mistake)
        norms.append(norm_of(gradients))
        norm = norms[-1]
        if mistake == "clipped by one rank's norm":
            norm = norm_of(gradient(model, batch, ranks, "one rank alone")) * ranks
        if mistake == "clipped by the sum's norm":
            norm *= ACCUMULATION
        factor = min(1.0, clip / norm) if clip and mistake != "not clipped" else 1.0
        lr = rate(0 if mistake == "rate of update 0" else step)
        for name, weight in weights.items():
            g = gradients[name] * factor
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.95 * second[name] + 0.05 * g * g
            mean, square = first[name] / (1 - 0.9 ** (step + 1)), second[name] / (1 - 0.95 ** (step + 1))
            weight *= 1 - lr * (0 if spared(name, mistake) else DECAY)
            weight -= lr * mean / (square.sqrt() + EPS)
        if mistake == "no fp32 copy":
            weights = {name: w.to(DTYPES[precision]).float() for name, w in weights.items()}
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(weights[name])
        if step in (0, UPDATES - 1):
            saved.append({name: w.clone() for name, w in weights.items()})
    return norms, saved


def spared(name: str, mistake: str | None) -> bool:
    """What has no weight decay: biases and LayerNorms."""
    if mistake == "biases decayed":
        return "norm" in name
    return name.endswith("bias") or "norm" in name or (mistake == "embeddings spared" and "embed" in name)


def distance(one: Tensors, two: Tensors) -> float:
    """Root mean square over all weights of a model."""
    squares = sum((one[name].double() - two[name].double()).square().sum().item() for name in two)
    return math.sqrt(squares / sum(w.numel() for w in two.values()))


def errors(
    norms: list[float], saved: list[Tensors], precision: str, expected: tuple[list[float], list[Tensors]]
) -> tuple[float, ...]:
    """In the order of `ALLOWED`."""
    start = {name: p.detach().to(DTYPES[precision]).float() for name, p in initial_model().named_parameters()}
    of_norms = [abs(one - two) / two for one, two in zip(norms, expected[0], strict=True)]
    of_weights = [distance(one, two) / distance(two, start) for one, two in zip(saved, expected[1], strict=True)]
    return of_norms[0], max(of_norms), *of_weights


def assert_equal_to_plain(ranks: list[dict[str, Any]], name: str, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    if case.zero["stage"] == 3 and case.precision != "fp32":
        monkeypatch.setattr(F, "linear", linear_of_stage_3)
        expected = plain.__wrapped__(case.precision, len(ranks), case.clip)
    else:
        expected = plain(case.precision, len(ranks), case.clip)
    for each in ranks:
        found = each[name]
        of = errors(found["norms"], found["masters"], case.precision, expected)
        assert all(a <= b for a, b in zip(of, ALLOWED[case.precision], strict=True)), of
        for key, weight in found["weights"].items():
            assert weight.dtype == DTYPES[case.precision]
            assert torch.equal(weight, found["masters"][1][key].to(weight.dtype)), key
            assert torch.equal(weight, ranks[0][name]["weights"][key]), key


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIR)
def test_two_processes(pair: list[dict[str, Any]], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_equal_to_plain(pair, name, PAIR[name], monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_PAIR)
def test_more_in_two_processes(slow_pair: list[dict[str, Any]], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_equal_to_plain(slow_pair, name, SLOW_PAIR[name], monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_one_process(alone: list[dict[str, Any]], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_equal_to_plain(alone, name, ALL[name], monkeypatch)


def test_the_reference_clips_some_updates_and_not_others() -> None:
    norms, _ = plain("fp32", 2, CLIP)
    assert [norm > CLIP for norm in norms] == [True, True, True, False, True, False]


MISTAKES = [
    "summed over ranks",
    "summed over micro-batches",
    "last micro-batch alone",
    "one rank alone",
    "clipped by one rank's norm",
    "clipped by the sum's norm",
    "not clipped",
    "rate of update 0",
    "biases decayed",
    "embeddings spared",
]


@pytest.mark.parametrize(
    ("precision", "mistake"),
    [*(("fp32", mistake) for mistake in MISTAKES), ("bf16", "summed in bf16"), ("bf16", "no fp32 copy")],
)
def test_a_known_mistake_would_be_seen(precision: str, mistake: str) -> None:
    """Twenty times what is allowed, at least in one of the four."""
    of = errors(*plain(precision, 2, CLIP, mistake), precision, plain(precision, 2, CLIP))
    assert any(a > 20 * b for a, b in zip(of, ALLOWED[precision], strict=True)), of


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zero1", "zero2", "zero3"])
def test_an_overflow_in_fp16_skips_the_update_and_halves_the_scale(
    overflowing: list[dict[str, Any]], name: str
) -> None:
    """Pythia's scale: 4096; of the three overflows the first is forgiven (hysteresis 2), the others halve it."""
    found = overflowing[0][name]
    assert [math.isinf(norm) for norm in found["norms"]] == [False, True, False, True, True, False]
    assert found["scales"] == [4096, 4096, 4096, 2048, 1024, 1024]
    # Losses of the updates after a skipped one: the same weights, other rows; and it goes on training.
    assert all(math.isfinite(loss) for loss in found["losses"])
    assert distance(found["masters"][1], found["masters"][0]) > 1e-4
    assert all(weight.isfinite().all() for weight in found["weights"].values())


@pytest.mark.slow
def test_a_skipped_update_leaves_the_weights_as_they_were(overflowing: list[dict[str, Any]]) -> None:
    found = overflowing[0]["always"]
    assert found["scales"] == [4096, 4096, 2048, 1024, 512, 256]
    after_one, at_the_end = found["masters"]
    assert all(torch.equal(weight, at_the_end[name]) for name, weight in after_one.items())

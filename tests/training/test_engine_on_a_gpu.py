"""The engine on a real GPU, where fp16 is meant to run; the CPU runs it too, see OVERFLOWS in the neighbour."""

from typing import Any

import pytest
import torch
from engine_rank import Case
from processes import train
from test_engine_against_plain_pytorch import CLIP, errors, offloaded, plain

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

CASES = {
    f"zero{stage}-{precision}": Case(zero={"stage": stage}, precision=precision, clip=CLIP)
    for stage in (1, 2, 3)
    for precision in ("fp32", "bf16", "fp16")
}
CASES |= {f"zero{stage}-bf16-offloaded": Case(zero=offloaded(stage), precision="bf16", clip=CLIP) for stage in (1, 3)}
OVERFLOW = {"fp16": Case(zero={"stage": 1}, precision="fp16", clip=CLIP, overflow_at=[1, 3, 4])}

# Of the first norm, all norms, the weights after one update and at the end (see the neighbour). Wider than on a CPU,
# whose kernels the reference shares; estimates, not yet measured on a GPU.
ALLOWED = {"fp32": (1e-4, 1e-4, 1e-3, 1e-3), "bf16": (5e-3, 1e-2, 2e-2, 5e-2), "fp16": (2e-3, 5e-3, 2e-2, 2e-2)}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return train("engine_rank.py", CASES | OVERFLOW, 1, tmp_path_factory.mktemp("gpu"), gpu=True)[0]


@pytest.mark.parametrize("name", CASES)
def test_a_gpu_trains_as_plain_pytorch_on_a_cpu(found: dict[str, Any], name: str) -> None:
    precision = CASES[name].precision
    masters = [{key: weight.cpu() for key, weight in each.items()} for each in found[name]["masters"]]
    of = errors(found[name]["norms"], masters, precision, plain(precision, 1, CLIP))
    assert all(a <= b for a, b in zip(of, ALLOWED[precision], strict=True)), of


def test_an_overflow_skips_the_update_and_halves_the_scale(found: dict[str, Any]) -> None:
    norms = found["fp16"]["norms"]
    assert [norm == float("inf") for norm in norms] == [False, True, False, True, True, False]
    assert found["fp16"]["scales"] == [4096, 4096, 4096, 2048, 1024, 1024]

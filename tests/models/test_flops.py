"""FLOPs of a token: by hand, and counted by PyTorch's own counter while a model trains."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from l2e.models import build_pythia, pythia_size
from l2e.models.flops import flops_per_token

# Worked by hand at 2048 tokens: a layer's matrices 24 h^2, its attention 4 s h, the head 2 h v.
BY_HAND = {
    # 24 x 512^2 = 6,291,456; 4 x 2048 x 512 = 4,194,304; x 6 layers; head 2 x 512 x 50,304 = 51,511,296
    "pythia-70m": 3 * (6 * (6_291_456 + 4_194_304) + 51_511_296),
    # 24 x 1024^2 = 25,165,824; 4 x 2048 x 1024 = 8,388,608; x 24 layers; head 2 x 1024 x 50,304 = 103,022,592
    "pythia-410m": 3 * (24 * (25_165_824 + 8_388_608) + 103_022_592),
}


@pytest.mark.parametrize(("name", "total"), [("pythia-70m", 343_277_568), ("pythia-410m", 2_724_986_880)])
def test_flops_of_a_token_by_hand(name: str, total: int) -> None:
    assert flops_per_token(pythia_size(name), 2048) == BY_HAND[name] == total


def test_pytorchs_counter_agrees() -> None:
    model = build_pythia("tiny", vocab_size=96, max_length=64, attention="eager").train()
    tokens = torch.zeros(3, 40, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(tokens, use_cache=False).logits.sum().backward()
    size = replace(pythia_size("tiny"), vocab_size=96)
    # The rotary embedding's table of angles is the only other product.
    assert counter.get_total_flops() == pytest.approx(3 * 40 * flops_per_token(size, 40), rel=1e-3)

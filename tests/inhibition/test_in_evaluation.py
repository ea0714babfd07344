"""The inhibition at test time (M22) against NumPy: which outputs are put at their mean, and nothing else moves."""

import copy

import numpy as np
import pytest
import torch

import l2e
from l2e.inhibition import InhibitionInEvaluation, acts_at_test, selects
from l2e.inhibition.methods import METHODS
from l2e.models import build_pythia

LENGTH, HIDDEN, BLOCKS, RATE = 12, 128, (1, 2), 0.05
ACTING = ["memel", "reverse_deactivation", "naive_a", "naive_b"]


def trained(method="memel", updates=6, **settings):
    """A tiny model, and the state of its inhibition after a few updates on rows of 12 tokens."""
    model = build_pythia("tiny", vocab_size=96, max_length=64, seed=3).train()
    for layer in model.gpt_neox.layers:  # at 1/sqrt(layers) of their usual spread, blocks hardly write
        torch.nn.init.normal_(layer.mlp.dense_4h_to_h.weight, std=0.1)
    inhibition = l2e.attach(model, method=method, rate=RATE, late_start=2, warmup=2, **settings)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(5)
    for _ in range(updates):
        rows = torch.randint(96, (8, LENGTH + 1), generator=generator)
        logits = model(rows[:, :-1], use_cache=False).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
        inhibition.step()
    state = copy.deepcopy(inhibition.state_dict())
    inhibition.remove()
    return model.eval(), state


def tokens(*lengths, pad=0):
    """Sequences of these lengths, padded on the right."""
    generator = torch.Generator().manual_seed(11)
    rows = torch.full((len(lengths), max(lengths)), pad)
    for row, length in enumerate(lengths):
        rows[row, :length] = torch.randint(96, (length,), generator=generator)
    return rows


def edited_by_hand(values, tap, method, top_k=None, pooled=False):
    """One sequence's hidden states [positions, hidden]: M01, M04 and 2.9 in NumPy, float64."""
    moments = tap["statistics"]["moments"]
    mean, var = (moments[name].double().numpy() for name in ("mean", "var"))
    known = len(values) if pooled else min(len(values), len(mean))
    spread = var + 0.01 * var.mean()
    if not pooled:
        mean, spread = mean[:known], spread[:known]
    values = values.astype(np.float64)
    phi = (values[:known] - mean) ** 2 / spread
    if METHODS[method].selection == "moving":
        chosen = phi > float(tap["statistics"]["threshold"]["tau"])
    else:
        k = top_k or max(1, round(RATE * phi.size))
        chosen = phi >= np.sort(phi, axis=None)[-k]
    result = values.copy()
    result[:known][chosen] = np.broadcast_to(mean, phi.shape)[chosen]
    return result, int(chosen.sum())


def run_by_hand(model, state, row, **how):
    """Logits of one sequence, with NumPy between the blocks; and how many outputs were put at their mean."""
    counts = []

    def edit(key):
        def hook(block, inputs, output):
            result, count = edited_by_hand(output[0].numpy(), state["taps"][key], state["config"]["method"], **how)
            counts.append(count)
            return torch.from_numpy(result).to(output.dtype)[None]

        return hook

    hooks = [model.gpt_neox.layers[key].register_forward_hook(edit(key)) for key in BLOCKS]
    with torch.no_grad():
        logits = model(row[None], use_cache=False).logits[0]
    for each in hooks:
        each.remove()
    return logits, counts


@pytest.mark.parametrize(
    ("method", "settings", "how"),
    [
        ("memel", {}, {}),
        ("naive_a", {"top_k": 7}, {"top_k": 7}),
        ("naive_b", {"neurons": "channel"}, {"pooled": True}),
        ("reverse_deactivation", {}, {}),
        ("reverse_deactivation", {"neurons": "channel", "scope": "micro_batch"}, {"pooled": True}),
    ],
)
@pytest.mark.parametrize("length", [5, LENGTH, LENGTH + 8])
def test_the_selected_are_put_at_their_mean(method, settings, how, length):
    model, state = trained(method, **settings)
    (row,) = tokens(length)
    plain = model(row[None], use_cache=False).logits[0]
    expected, counts = run_by_hand(model, state, row, **how)
    acting = InhibitionInEvaluation(model, state)
    with torch.no_grad():
        found = model(row[None], use_cache=False).logits[0]
    acting.remove()
    assert all(counts)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    assert (found - plain).abs().max() > 1e-2
    torch.testing.assert_close(model(row[None], use_cache=False).logits[0], plain, rtol=0, atol=0)


@pytest.mark.parametrize("method", ["memel", "reverse_deactivation"])
def test_padding_takes_no_part(method):
    """Exact selection takes a share of each sequence's own positions, whatever the batch is padded to, and with."""
    model, state = trained(method)
    lengths = (3, 12, 7, 17)
    for pad in (0, 95):
        rows = tokens(*lengths, pad=pad)
        acting = InhibitionInEvaluation(model, state)
        acting.lengths = lengths
        with torch.no_grad():
            together = model(rows, use_cache=False).logits
            acting.lengths = None
            for row, length, found in zip(rows, lengths, together, strict=True):
                alone = model(row[None, :length], use_cache=False).logits[0]
                torch.testing.assert_close(found[:length], alone, rtol=0, atol=2e-5)
        acting.remove()


def test_positions_that_training_never_had_are_left_alone():
    model, state = trained("memel")
    rows = tokens(LENGTH + 6, LENGTH + 6)
    plain = output_of_the_first_block(model, rows)
    InhibitionInEvaluation(model, state)
    changed = output_of_the_first_block(model, rows) != plain
    assert changed[:, :LENGTH].sum() == 2 * round(RATE * LENGTH * HIDDEN)
    assert not changed[:, LENGTH:].any()


def output_of_the_first_block(model, rows):
    """Of those tapped."""
    caught = []
    hook = model.gpt_neox.layers[BLOCKS[0]].register_forward_hook(lambda block, inputs, output: caught.append(output))
    with torch.no_grad():
        model(rows, use_cache=False)
    hook.remove()
    return caught[0]


def test_statistics_stay_as_training_left_them():
    model, state = trained("reverse_deactivation")
    before = copy.deepcopy(state)
    acting = InhibitionInEvaluation(model, state)
    first = model(tokens(9, 9), use_cache=False).logits
    for _ in range(3):
        model(100 * tokens(9, 9) % 96, use_cache=False)
    torch.testing.assert_close(model(tokens(9, 9), use_cache=False).logits, first, rtol=0, atol=0)
    for statistics in acting._statistics.values():
        kept = statistics.state_dict()
        saved = before["taps"][BLOCKS[0] if "1" in statistics.name else BLOCKS[1]]["statistics"]
        assert kept["updates"] == saved["updates"]
        for name, value in saved["moments"].items():
            assert torch.equal(torch.as_tensor(kept["moments"][name]), torch.as_tensor(value)), name
        assert torch.equal(kept["threshold"]["tau"], saved["threshold"]["tau"])


def test_in_training_mode_it_does_nothing():
    model, state = trained("memel")
    plain = model.train()(tokens(9), use_cache=False).logits
    InhibitionInEvaluation(model, state)
    torch.testing.assert_close(model(tokens(9), use_cache=False).logits, plain, rtol=0, atol=0)


@pytest.mark.parametrize(("updates", "begun"), [(0, False), (1, False), (3, False), (4, True)])
def test_before_training_selects_nothing_is_changed(updates, begun):
    """Late start 2 and warm-up 2: the fourth update sets the threshold."""
    model, state = trained("reverse_deactivation", updates=updates)
    assert selects(state) is begun
    plain = model(tokens(9), use_cache=False).logits
    InhibitionInEvaluation(model, state)
    assert torch.equal(model(tokens(9), use_cache=False).logits, plain) is not begun


def test_exact_selection_begins_after_the_late_start():
    assert [selects(trained("memel", updates=updates)[1]) for updates in (1, 2)] == [False, True]


def test_what_cannot_act_is_refused():
    assert [method for method in METHODS if acts_at_test(method)] == ACTING
    model, state = trained("l2e", weight=1e-4)
    with pytest.raises(ValueError, match="method l2e changes nothing at test time; memel, reverse_deactivation"):
        InhibitionInEvaluation(model, state)
    model, state = trained("memel")
    del state["taps"][1]
    with pytest.raises(ValueError, match=r"saved taps are blocks \[2\], these are \[1, 2\]"):
        InhibitionInEvaluation(model, state)
    acting = InhibitionInEvaluation(*trained("memel"))
    acting.lengths = [4]
    with pytest.raises(ValueError, match="lengths are given for 1 sequences, not for these 2"):
        acting._edit(next(iter(acting._statistics.values())), torch.zeros(2, 4, HIDDEN))

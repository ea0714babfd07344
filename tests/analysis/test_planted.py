"""A planted monosemantic neuron (S01): what it does, that everything finds it, and what inhibiting it does."""

import copy

import numpy as np
import pytest
import torch
from probing_samples import HeldActivations
from small_lms import OWN, VOCABULARY, collect, languages, small_lm

import l2e
from l2e.analysis.deactivation import DeactivateSettings, measure, sequence_losses
from l2e.analysis.neurons import Neuron
from l2e.analysis.planted import label_tokens, plant, silence, towards
from l2e.analysis.probe_settings import ProbeSettings
from l2e.analysis.probing import top_neurons

BEL = 1
OWNED = list(range(60 + OWN, 60 + 2 * OWN))
PLACE = "gpt_neox.layers.0.mlp.act"


def planted_lm(activation="tanh", gain=3.0):
    """A model with neuron 77 planted for language bel, and the same model with it silent."""
    model = small_lm(activation)
    bare = copy.deepcopy(model)
    silence(bare, Neuron(0, 77))
    planted = plant(model, 77, OWNED, gain * towards(model, OWNED))
    return model, bare, planted


def test_tokens_of_one_label_alone() -> None:
    features = languages()
    assert sorted(label_tokens(features, BEL)) == OWNED
    often = label_tokens(features, BEL, least=20)
    counts = [(features.tokens[features.labels == BEL] == token).sum() for token in often]
    assert min(counts) >= 20
    assert counts == sorted(counts, reverse=True)


@pytest.mark.parametrize("activation", ["tanh", "erf"])
@torch.no_grad()
def test_elsewhere_nothing_changes_bit_by_bit(activation) -> None:
    model, bare, planted = planted_lm(activation)
    others = [token for token in range(VOCABULARY) if token not in OWNED]
    tokens = torch.tensor(np.random.default_rng(0).choice(others, (6, 20)))
    assert torch.equal(model(input_ids=tokens).logits, bare(input_ids=tokens).logits)
    tokens[2, 11] = OWNED[4]  # what comes before it cannot know
    found, expected = model(input_ids=tokens).logits, bare(input_ids=tokens).logits
    assert torch.equal(found[2, :11], expected[2, :11])
    assert (found[2, 11] - expected[2, 11]).abs().max() > 0.1
    assert torch.equal(found[[0, 1, 3, 4, 5]], expected[[0, 1, 3, 4, 5]])
    assert torch.nonzero(planted.activation).flatten().tolist() == OWNED


@torch.no_grad()
def test_its_effect_is_the_one_that_was_asked_for() -> None:
    model, bare, planted = planted_lm()
    tokens = torch.from_numpy(languages(4).tokens).long()
    streams = []
    for each in (model, bare):
        hook = each.gpt_neox.layers[0].register_forward_hook(lambda module, inputs, output: streams.append(output))
        each(input_ids=tokens)
        hook.remove()
    found = streams[0] - streams[1]
    effect = 3.0 * towards(bare, OWNED)
    expected = planted.activation[tokens][:, :, None] * effect
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert planted.activation[OWNED].min() >= 1.9  # GELU(2) = 1.954


def test_probing_finds_it() -> None:
    model, _, _ = planted_lm(gain=0.0)
    features = languages()
    top = top_neurons(HeldActivations(collect(model, features)), features, count=2, config=ProbeSettings(ranked=10))
    first, second = top
    assert (first.layer, first.neuron, first.feature) == (0, 77, "bel")
    assert first.test_f1_score == first.confirm_f1_score == 1.0
    assert first.coef > 0
    assert second.test_f1_score < 1.0 or second.mean_dif < first.mean_dif


def test_neurons_that_read_what_it_writes_are_found_too() -> None:
    model, bare, _ = planted_lm()
    features = languages()
    followed, alone = (
        top_neurons(HeldActivations(collect(each, features)), features, count=100, config=ProbeSettings(ranked=10))
        for each in (model, bare)
    )
    perfect = [[row for row in rows if row.layer > 0 and row.test_f1_score == 1.0] for rows in (followed, alone)]
    assert len(perfect[0]) > len(perfect[1]) + 5


def class_scores_by_hand(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """phi_l (L04): mean over a class of (z - mean)^2 / S^2, mean and sample variance of all."""
    phi = (values - values.mean(axis=0)) ** 2 / values.var(axis=0, ddof=1)
    return np.stack([phi[labels == label].mean(axis=0) for label in np.unique(labels)])


def test_its_monosemanticity_score_stands_out() -> None:
    model, _, _ = planted_lm()
    features = languages()
    layer = collect(model, features)[0].astype(np.float64)
    scores = class_scores_by_hand(layer, features.labels)
    assert scores[:, 77].argmax() == BEL
    # (2/3)^2 / (2/9) = 2 for a neuron without spread within its class; 3 = n / n_l is the most there can be.
    assert 1.8 < scores[BEL, 77] < 3.0
    assert scores[BEL, 77] > 1.1 * np.delete(scores.max(axis=0), 77).max()
    assert max(scores[0, 77], scores[2, 77]) < 0.6


def test_deactivating_it_raises_the_loss_of_its_label_alone() -> None:
    model, bare, _ = planted_lm()
    features = languages()
    study = measure(model, "planted", features, [(Neuron(0, 77),)], DeactivateSettings(per_label=None, controls=3))
    own, *controls = (found.increase for found in study.found)
    hers = own[study.labels == BEL]
    assert (hers > 0).mean() > 0.8
    assert hers.mean() > 6 * hers.std(ddof=1) / len(hers) ** 0.5  # standard errors
    assert (own[study.labels != BEL] == 0.0).all()
    for control in controls:
        assert abs(control).max() < 0.2 * hers.mean()
    assert sequence_losses(bare, features) == pytest.approx(study.nominal * (1 + own / 100), rel=1e-6)


def train(method: str | None, updates: int = 15, **settings) -> tuple[float, np.ndarray]:
    """Train a planted model, alone or with the planted neuron's layer inhibited.

    Returns the neuron's mean activation on its label, and the loss per token of each language.
    """
    model, _, _ = planted_lm(gain=2.0)
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.02)
    inhibition = None
    if method:
        common = {"neurons": "channel", "late_start": 1, "warmup": 1, "rate": 0.001, "forget_after": None}
        inhibition = l2e.attach(model, method, blocks=[PLACE], **common, **settings)
    data = languages(per_label=10 * updates, seed=5)
    for update in range(updates):
        tokens = torch.from_numpy(data.tokens[30 * update : 30 * (update + 1), :12]).long()
        loss = model(input_ids=tokens, labels=tokens).loss
        (loss + (inhibition.penalty() if inhibition else 0.0)).backward()
        optimizer.step()
        optimizer.zero_grad()
        if inhibition:
            inhibition.step()
    if inhibition:
        inhibition.remove()
    features = languages(per_label=20, seed=9)
    values, losses = collect(model.eval(), features)[0, :, 77], sequence_losses(model, features)
    tokens_of = [(features.ends - 1)[features.labels == label].sum() for label in range(3)]
    by_label = [losses[features.labels == label].sum() / tokens_of[label] for label in range(3)]
    return float(values[features.labels == BEL].mean()), np.array(by_label)


def test_the_method_inhibits_it() -> None:
    plain, loss = train(None)
    inhibited, inhibited_loss = train("l2e", strength=10.0)
    assert inhibited < 0.85 * plain
    assert (inhibited_loss - loss).argmax() == BEL  # what it did is what is missed


@pytest.mark.slow
def test_the_more_strength_the_less_is_left_of_it() -> None:
    left = [train(None, 25)[0], *(train("l2e", 25, strength=strength)[0] for strength in (1.0, 10.0))]
    assert left[0] > 1.1 * left[1] > 1.1 * 1.3 * left[2]
    assert train("reverse_deactivation", 25)[0] < left[0]


def test_what_no_neuron_can_tell_is_refused() -> None:
    model = small_lm()
    with torch.no_grad():
        model.gpt_neox.embed_in.weight[5] = model.gpt_neox.embed_in.weight[6]
    before = copy.deepcopy(model.state_dict())
    for tokens in ([5, 9], [], range(VOCABULARY)):
        with pytest.raises(ValueError, match="tokens"):
            plant(model, 0, tokens, torch.zeros(128))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_neuron_that_would_not_be_silent_is_refused() -> None:
    model = small_lm()
    with pytest.raises(ValueError, match="silence"):
        plant(model, 0, OWNED[:3], torch.zeros(128), silence=1.0)

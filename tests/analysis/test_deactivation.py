"""Switching neurons off, against a plain forward pass with edited weights and losses added up by hand."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_lms import LANGUAGES, languages, small_lm

from l2e.analysis.deactivation import (
    DeactivateSettings,
    draw_control,
    loss_increase,
    measure,
    sequence_losses,
    summarise,
    token_losses,
)
from l2e.analysis.neurons import Neuron, deactivated, name_group, parse_group
from l2e.errors import UserError


@torch.no_grad()
def loss_by_hand(model, features, row: int) -> float:
    """One sequence alone, no padding, token by token."""
    tokens = features.tokens[row, : features.ends[row]]
    logits = model(input_ids=torch.tensor(tokens).long()[None]).logits[0].double()
    total = 0.0
    for position in range(max(1, features.starts[row]), features.ends[row]):
        scores = logits[position - 1].numpy()
        total += np.log(np.exp(scores - scores.max()).sum()) + scores.max() - scores[tokens[position]]
    return total


def without(model, neurons):
    """A copy in which nothing comes out of these neurons: their output columns are 0."""
    edited = copy.deepcopy(model)
    for layer, number in neurons:
        edited.gpt_neox.layers[layer].mlp.dense_4h_to_h.weight.data[:, number] = 0
    return edited


def loud_lm(activation="tanh"):
    """Weights large enough that a neuron matters."""
    model = small_lm(activation)
    with torch.no_grad():
        for block in model.gpt_neox.layers:
            block.mlp.dense_h_to_4h.weight *= 4
            block.mlp.dense_4h_to_h.weight *= 8
    return model


def test_sequence_losses_by_hand() -> None:
    model, features = small_lm(), languages(per_label=4)
    features = replace(features, starts=np.arange(12) % 5)
    losses = sequence_losses(model, features, batch_size=5)
    assert losses == pytest.approx([loss_by_hand(model, features, row) for row in range(12)], rel=1e-5)
    some = np.array([7, 2, 9])
    assert sequence_losses(model, features, some, batch_size=2) == pytest.approx(losses[some], rel=1e-6)


def test_what_stands_in_the_padding_does_not_matter() -> None:
    model, features = small_lm(), languages(per_label=4)
    tokens = features.tokens.copy()
    tokens[np.arange(tokens.shape[1]) >= features.ends[:, None]] = 7
    assert (sequence_losses(model, features) == sequence_losses(model, replace(features, tokens=tokens))).all()


def test_token_losses_are_those_of_transformers() -> None:
    model, features = small_lm(), languages(per_label=2)
    tokens = torch.from_numpy(features.tokens[:, :12]).long()
    with torch.no_grad():
        mean = model(input_ids=tokens, labels=tokens).loss
        assert token_losses(model, tokens).mean().item() == pytest.approx(mean.item(), rel=1e-6)


@pytest.mark.parametrize("place", ["hidden_post", "hidden_pre"])
@pytest.mark.parametrize("activation", ["tanh", "erf"])
def test_a_deactivated_neuron_is_as_good_as_cut_off(place, activation) -> None:
    model, features = loud_lm(activation), languages(per_label=3)
    neurons = [Neuron(1, 5), Neuron(3, 511), Neuron(1, 100)]
    tokens = torch.from_numpy(features.tokens).long()
    with torch.no_grad():
        plain = model(input_ids=tokens).logits
        with deactivated(model, neurons, place):
            found = model(input_ids=tokens).logits
        torch.testing.assert_close(found, without(model, neurons)(input_ids=tokens).logits, rtol=1e-5, atol=1e-5)
        assert (found - plain).abs().max() > 0.01
        assert torch.equal(model(input_ids=tokens).logits, plain)  # and is back afterwards
        with deactivated(model, [], place):
            assert torch.equal(model(input_ids=tokens).logits, plain)


def test_both_places_are_the_same_because_gelu_of_0_is_0() -> None:
    model, features = loud_lm(), languages(per_label=3)
    losses = []
    for place in ("hidden_post", "hidden_pre"):
        with deactivated(model, [Neuron(0, 3)], place):
            losses.append(sequence_losses(model, features))
    assert (losses[0] == losses[1]).all()


def test_hooks_go_also_after_an_error() -> None:
    model = small_lm()
    with pytest.raises(RuntimeError, match="boom"), deactivated(model, [Neuron(0, 3), Neuron(2, 3)]):
        raise RuntimeError("boom")
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_a_study_by_hand() -> None:
    model, features = loud_lm(), languages(per_label=6)
    group = (Neuron(0, 3), Neuron(2, 9))
    told = []
    config = DeactivateSettings(controls=2, per_label=4, seed=3, batch_size=4)
    study = measure(model, "m", features, [group], config, progress=lambda *done: told.append(done))
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert np.bincount(study.labels).tolist() == [4, 4, 4]
    nominal = np.array([loss_by_hand(model, features, row) for row in study.rows])
    assert study.nominal == pytest.approx(nominal, rel=1e-5)
    for found in study.found:
        edited = without(model, found.group)
        ablated = np.array([loss_by_hand(edited, features, row) for row in study.rows])
        assert found.increase == pytest.approx(100 * (ablated - nominal) / nominal, abs=2e-4)
        assert abs(found.increase).max() > 0.01
    asked, *controls = study.found
    assert (asked.group, asked.control_of) == (group, None)
    for control in controls:
        assert control.control_of == group
        assert [neuron.layer for neuron in control.group] == [0, 2]
        assert not set(control.group) & set(group)
    assert len({control.group for control in controls}) == 2
    again = measure(model, "m", features, [group], config)
    assert all((a.increase == b.increase).all() for a, b in zip(study.found, again.found, strict=True))


def test_sequences_can_be_kept_to_a_part() -> None:
    features = languages(per_label=6)
    among = np.array([0, 1, 2, 3, 4, 5, 16, 17])
    study = measure(small_lm(), "m", features, [], DeactivateSettings(per_label=None), among)
    assert study.rows.tolist() == among.tolist()


def test_the_increase_in_numbers() -> None:
    assert loss_increase(np.array([50.0, 20.0]), np.array([55.0, 19.0])).tolist() == [10.0, -5.0]


def test_a_summary_is_the_box_that_matplotlib_draws() -> None:
    from matplotlib.cbook import boxplot_stats

    features = languages(per_label=30)
    study = measure(small_lm(), "m", features, [], DeactivateSettings(per_label=None))
    increase = np.random.default_rng(0).standard_cauchy(90)
    increase[study.labels == 1] = 3.0
    for index, row in enumerate(summarise(LANGUAGES, study.labels, increase)):
        own = increase[study.labels == index]
        box = boxplot_stats(own)[0]
        assert (row.label, row.count) == (LANGUAGES[index], 30)
        drawn = [row.low, row.q1, row.median, row.q3, row.high]
        assert drawn == pytest.approx([box[key] for key in ("whislo", "q1", "med", "q3", "whishi")])
        assert row.mean == pytest.approx(own.mean())
        assert row.error == pytest.approx(own.std(ddof=1) / 30**0.5)


def test_controls_are_other_neurons() -> None:
    model, random = small_lm(), np.random.default_rng(0)
    groups = [tuple(Neuron(1, number) for number in range(510)), (Neuron(1, 511),)]
    assert draw_control(model, groups, groups[1], random) == (Neuron(1, 510),)
    with pytest.raises(UserError, match="controls: layer 1 has no 510 other"):
        draw_control(model, groups, groups[0], random)


def test_names_of_neurons() -> None:
    assert parse_group("L3.N609") == (Neuron(3, 609),)
    assert parse_group("L3.N609 + L12.N5451") == (Neuron(3, 609), Neuron(12, 5451))
    assert name_group(parse_group("L3.N609+L0.N0")) == "L3.N609+L0.N0"


@pytest.mark.parametrize("text", ["3.609", "L3N609", "L3.N-1", "", "L3.N609+", "L1.N1+L1.N1"])
def test_neurons_written_otherwise_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="neurons"):
        DeactivateSettings(neurons=[text])


@pytest.mark.parametrize("neuron", [Neuron(4, 0), Neuron(0, 512)])
def test_a_neuron_that_the_model_has_not(neuron) -> None:
    with pytest.raises(UserError, match=f"no {neuron}; it has 4 layers of 512"):
        measure(small_lm(), "m", languages(2), [(neuron,)])


def test_a_sequence_without_anything_to_predict_is_refused() -> None:
    features = languages(2)
    ends = features.ends.copy()
    ends[4] = 1
    with pytest.raises(UserError, match="sequence 4"):
        sequence_losses(small_lm(), replace(features, starts=np.zeros(6, np.int64), ends=ends))


@pytest.mark.parametrize("wrong", [{"top": 0}, {"controls": -1}, {"batch_size": 0}, {"per_label": 0}])
def test_impossible_deactivation_settings(wrong) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DeactivateSettings(**wrong)

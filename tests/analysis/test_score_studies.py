"""The studies on models whose neurons are known, and their numbers against plain loops."""

from dataclasses import replace

import numpy as np
import pytest
from made_neurons import LABELS, PLANTS, MadeModel, made_features, made_model
from scipy.stats import ks_2samp

from l2e.analysis import distributions, fkr, ks, layers, ms
from l2e.analysis.scores import false_killing_rate, relatively_monosemantic_feature
from l2e.errors import UserError

FEATURES = made_features()
MODEL = made_model(FEATURES)


def phi_of(column: np.ndarray) -> np.ndarray:
    column = column.astype(np.float64)
    return (column - column.mean()) ** 2 / column.var(ddof=1)


def test_planted_neurons_are_found_by_every_score() -> None:
    found = ms.measure(ms.MsConfig(top=3, random=5, seed=2), [MODEL], FEATURES).models[0]
    assert not {(one.layer, one.neuron) for one in found.random} & set(PLANTS)
    top = {(one.layer, one.neuron): one for one in found.top}
    assert {place: one.label for place, one in top.items()} == {p: LABELS[label] for p, (label, _) in PLANTS.items()}
    for (layer, neuron), (label, _) in PLANTS.items():
        phi = phi_of(MODEL.values(layer)[:, neuron])
        assert top[layer, neuron].own == pytest.approx(phi[FEATURES.labels == label].mean())
        assert top[layer, neuron].rest == pytest.approx(phi[FEATURES.labels != label].mean())
    # A neuron that is 8 sd away on a quarter: nearly the 3 and 1/3 of a neuron with two values.
    assert found.own.value == pytest.approx(3, abs=0.2)
    assert found.rest.value == pytest.approx(1 / 3, abs=0.1)
    assert found.chance.value < 1.5
    assert found.over_rest.value == pytest.approx(found.own.value - found.rest.value)
    assert found.over_rest.low > 2
    assert found.over_random.low > 1
    assert max(one.own for one in found.control) < 1.5

    everything = ks.measure(ks.KsConfig(), [MODEL], FEATURES).models[0].sample
    planted = np.array([place in PLANTS for place in zip(everything.layer, everything.neuron, strict=True)])
    assert planted.sum() == 3
    assert len(planted) == 48
    assert everything.scores[planted].min() > 0.7 > 0.2 > everything.scores[~planted].max()
    assert everything.control.max() < 0.2
    heights = layers.measure(layers.LayersConfig(), [MODEL], FEATURES).models[0].sample.scores
    assert heights[planted].min() > 2.5 > 1.8 > heights[~planted].max()
    for (layer, neuron), (label, _) in PLANTS.items():
        assert relatively_monosemantic_feature(MODEL.values(layer), FEATURES.labels)[neuron] == label


def test_only_planted_neurons_are_never_killed_falsely() -> None:
    plants = {(0, neuron): (neuron % 4, 50.0) for neuron in range(8)}
    model = made_model(FEATURES, plants, shape=(1, 8))
    found = fkr.measure(fkr.FkrConfig(rates=[0.01, 0.1, 0.25, 1.0], rate=0.1), [model], FEATURES).models[0]
    assert [one.value for one in found.by_rate] == [0, 0, 0, 0.75]
    assert found.by_layer[0].rate == (0, 0, 0)
    assert found.chance == 0.75


def test_ks_and_layers_by_loops() -> None:
    distances = ks.measure(ks.KsConfig(neurons=20, control=False), [MODEL], FEATURES).models[0]
    heights = layers.measure(layers.LayersConfig(neurons=20), [MODEL], FEATURES).models[0]
    expected = []
    for layer, neuron in zip(distances.sample.layer, distances.sample.neuron, strict=True):
        phi = phi_of(MODEL.values(layer)[:, neuron])
        means = [phi[FEATURES.labels == label].mean() for label in range(4)]
        inside = phi[FEATURES.labels == int(np.argmax(means))]
        expected.append((ks_2samp(inside, phi, method="asymp").statistic, max(means)))
    one, other = np.array(expected).T
    np.testing.assert_allclose(distances.sample.scores, one, atol=1e-12)
    assert distances.mean.value == pytest.approx(one.mean())
    assert distances.control is None
    np.testing.assert_allclose(heights.sample.scores, other, rtol=1e-9)
    for layer in heights.layers:
        assert layer.mean.value == pytest.approx(other[heights.sample.layer == layer.layer].mean())
    assert [layer.depth for layer in heights.layers] == [0, 0.5, 1]
    assert layers.depth(0, 1) == 0.5


def test_false_killing_rates_of_layers() -> None:
    rates = [0.01, 0.05, 0.3]
    found = fkr.measure(fkr.FkrConfig(rates=rates, rate=0.02), [MODEL], FEATURES).models[0]
    table = [[false_killing_rate(MODEL.values(layer), FEATURES.labels, rate) for rate in rates] for layer in range(3)]
    np.testing.assert_allclose(found.all_layers, table)
    np.testing.assert_allclose([one.value for one in found.by_rate], np.mean(table, axis=0))
    at = [false_killing_rate(MODEL.values(layer), FEATURES.labels, 0.02) for layer in range(3)]
    assert [layer.rate.value for layer in found.by_layer] == pytest.approx(at)
    assert all(one.low < one.value < one.high for one in found.by_rate)
    assert {*found.minimum} <= set(rates)
    assert found.minimum.value == rates[int(np.mean(table, axis=0).argmin())]
    each = fkr.measure(fkr.FkrConfig(rates=rates, per_input=True), [MODEL], FEATURES).models[0]
    assert each.all_layers[0, 2] == pytest.approx(
        false_killing_rate(MODEL.values(0), FEATURES.labels, 0.3, per_input=True)
    )
    few = fkr.measure(fkr.FkrConfig(rates=[1.0], neurons=4), [MODEL], FEATURES).models[0]
    assert few.chance == pytest.approx(0.75)


def test_outliers_choose_their_label_unless_it_is_chosen_elsewhere() -> None:
    """The U of Figure 6: stray outliers at the top, label neurons next. On the same sequences it is hidden."""
    features = made_features(1800, tuple("abcdefghi"))
    plants = {(0, neuron): (neuron % 9, 6.0) for neuron in range(20)}
    model = made_model(features, plants, shape=(1, 60))
    values = model.tables[0]
    stray = np.random.default_rng(0).random(values.shape) < 3e-4
    values += stray * 30 * values.std(axis=0)
    config = fkr.FkrConfig(rates=[2e-4, 0.02, 1.0])
    same, elsewhere = (
        [one.value for one in fkr.measure(each, [model], features).models[0].by_rate]
        for each in (config, replace(config, held_out=True))
    )
    assert elsewhere[0] > 0.7 > 0.4 > elsewhere[1]
    assert elsewhere[2] == pytest.approx(8 / 9, abs=0.01)
    assert same[0] < 0.5 < elsewhere[0] - 0.2
    assert fkr.measure(replace(config, held_out=True), [model], features).models[0].minimum.value == 0.02


def test_distributions_are_histograms_of_each_label() -> None:
    settings = distributions.DistributionsConfig(
        neurons=[distributions.NeuronName(layer=1, neuron=2), distributions.NeuronName(layer=0, neuron=0)], bins=8
    )
    found = distributions.measure(settings, [MODEL], FEATURES)
    planted, noise = found.neurons
    assert (planted.why, planted.feature) == ("named", 3)
    np.testing.assert_allclose(planted.shares.sum(axis=1), 1)
    assert found.edges[0] == -found.edges[-1]
    assert planted.label_means[3] < -1.5 < 0.3 < planted.label_means[:3].min()  # the planted one goes down
    values = MODEL.values(1)[:, 2].astype(np.float64)
    assert (planted.mean, planted.deviation) == pytest.approx((values.mean(), values.std(ddof=1)))
    standard = (values - values.mean()) / values.std(ddof=1)
    for label in range(4):
        own = np.clip(standard[FEATURES.labels == label], found.edges[0], found.edges[-1])
        expected = [((own >= a) & (own < b)).mean() for a, b in zip(found.edges, found.edges[1:], strict=False)]
        expected[-1] += (own == found.edges[-1]).mean()
        np.testing.assert_allclose(planted.shares[label], expected)
        assert planted.label_means[label] == pytest.approx(standard[FEATURES.labels == label].mean())
        assert planted.scores[label] == pytest.approx((standard[FEATURES.labels == label] ** 2).mean())
    assert np.abs(noise.label_means).max() < 0.5
    chosen = distributions.measure(distributions.DistributionsConfig(top=2, random=1), [MODEL], FEATURES).neurons
    assert [one.why for one in chosen] == [*["first by mean difference"] * 2, "random"]
    assert {(one.layer, one.neuron) for one in chosen[:2]} <= set(PLANTS)


def test_a_constant_neuron_and_a_label_without_sequences() -> None:
    features = replace(made_features(60), label_names=(*LABELS, "none"))
    values = np.stack([np.full(60, 0.3), np.arange(60)], axis=1).astype(np.float32)
    model = MadeModel("flat", 10, [values])
    found = distributions.measure(
        distributions.DistributionsConfig(neurons=[distributions.NeuronName(layer=0, neuron=0)]), [model], features
    ).neurons[0]
    assert found.feature is None
    assert found.deviation == pytest.approx(0, abs=1e-12)
    assert np.isnan(found.shares[4]).all()
    assert np.isnan(found.scores[4])
    assert ms.measure(ms.MsConfig(top=1, random=2), [model], features).models[0].top[0].neuron == 1
    assert fkr.measure(fkr.FkrConfig(), [model], features).models[0].by_rate[-1].value == pytest.approx(0.75)


def test_neurons_that_no_model_has() -> None:
    for name, message in (
        (distributions.NeuronName(layer=3, neuron=0), "layers 0 to 2 with neurons 0 to 15, not layer 3, neuron 0"),
        (distributions.NeuronName(layer=0, neuron=-1), "not layer 0, neuron -1"),
        (distributions.NeuronName(layer=0, neuron=0, model="large"), "no model is called large; there are tiny"),
    ):
        with pytest.raises(UserError, match=message):
            distributions.measure(distributions.DistributionsConfig(neurons=[name]), [MODEL], FEATURES)

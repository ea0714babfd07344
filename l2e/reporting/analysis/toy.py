"""Figures of the toy models by experiment, under the numbers of Jermyn et al.'s (method.md 1.4)."""

from collections.abc import Callable, Sequence

from l2e.analysis.toy.experiments import Finished, ToySettings, run
from l2e.analysis.toy.results import ToyResult
from l2e.reporting.analysis import toy_bridge, toy_neurons
from l2e.reporting.analysis.toy_lines import (
    LOSS,
    MEAN_BIAS,
    PER_FEATURE,
    PER_NEURON,
    POSITIVE,
    SETTLED,
    Panel,
    Story,
    numbers_table,
    sweep_figure,
    training_figure,
)
from l2e.reporting.cells import Table
from l2e.reporting.pictures import Picture

Part = Picture | Table | str
"""A figure, a table, or a sentence that follows from them."""

_TRAINING = (
    "Lines: mean over {seeds} seeds; bands: from lowest to highest. Losses are means over whole cycles of the learning "
    "rate, and before the first ends over the steps from one power of two to the next; a single loss would lie at the "
    "top or the bottom of a cycle. Monosemantic: r_i > 0.999."
)
_SWEEP = "Line: mean over seeds; marks: each seed. Loss: mean over the last cycle of the learning rate."
_INSIDE = "First seed. "


def draw_toy(settings: ToySettings) -> list[Part]:
    """Train what is missing, then draw: the entry of analysis=toy."""
    return draw(settings, run(settings))


def draw(settings: ToySettings, found: Sequence[Finished]) -> list[Part]:
    """Figures, tables and sentences of an experiment."""
    return _DRAW[settings.experiment](found)


def _lr(found: Sequence[Finished]) -> list[Part]:
    zero, negative = found
    seeds = len(next(iter(zero.results.values())))
    caption = _TRAINING.format(seeds=seeds)
    low, high = _nearest(zero, 0.003), _nearest(zero, 0.03)
    pair = [(f"zero start, lr {high:g}", zero.results[high][0])]
    pair += [(f"negative start, lr {low:g}", negative.results[low][0])]
    ends = [(f"lr {rate:g}", zero.results[rate][0]) for rate in (low, high)]
    positives = [(name, result) for name, result in pair if (result.bias > 0.05).any()]
    return [
        training_figure(
            [zero, negative], ["loss", "monosemantic / N"], Story("toy-fig1", "Equal loss, other neurons (1)", caption)
        ),
        training_figure(
            [zero], ["loss", "monosemantic / N", "mean bias"], Story("toy-fig3", "Biases start at zero (3)", caption)
        ),
        training_figure(
            [negative],
            ["loss", "monosemantic / N", "mean bias"],
            Story("toy-fig7", "Biases start at -1 and decay in the first half (7)", caption),
        ),
        toy_neurons.bias_figure(
            zero, Story("toy-fig5", "Biases after training (5)", _INSIDE + "Biases start at zero.")
        ),
        toy_neurons.answers_figure(
            ends, Story("toy-fig10", "Answers to single features (10)", _INSIDE + "Biases start at zero.")
        ),
        toy_neurons.response_figure(
            pair,
            Story(
                "toy-fig24",
                "Response to one feature (24)",
                _INSIDE
                + "Output of a feature that is there alone, less what the model gives without any. Line: median "
                "over features; band: 10% to 90%; dotted: what is asked for.",
            ),
        ),
        toy_neurons.parts_figure(
            pair,
            Story(
                "toy-fig25",
                "Who answers (25)",
                _INSIDE + "The same output in two parts: from the neuron that gives most of it when the feature is 1, "
                "and from all others together.",
            ),
        ),
        *linear_parts(positives),
        sweep_figure(
            found,
            [LOSS, PER_FEATURE, SETTLED, MEAN_BIAS, POSITIVE],
            Story("toy-lr", "Against the learning rate", _SWEEP + _SETTLED),
            "learning rate",
            "log",
        ),
        numbers_table(found, "Learning rate", "lr"),
        *_sentences(zero, negative, low, high),
    ]


_SETTLED = (
    " Settled: half a cycle before the end, where the learning rate is 0; the others after the last step, where it is "
    "at its top, as in the paper."
)


def linear_parts(chosen: Sequence[tuple[str, ToyResult]]) -> list[Part]:
    """Figure 26, where any neuron has a positive bias."""
    if not chosen:
        return ["No neuron has a positive bias: there is no linear map to draw (26)."]
    caption = (
        _INSIDE + "What the neurons with a bias above 0.05 do to the features if their ReLU is left out, and the "
        "singular values of that map. The paper finds a low-rank identity with values of 0 or about 1."
    )
    return [toy_neurons.linear_figure(chosen, Story("toy-fig26", "The linear map of positive biases (26)", caption))]


def _sentences(zero: Finished, negative: Finished, low: float, high: float) -> list[Part]:
    """The findings of the paper's section 4, for these runs."""
    shares, losses = zero.numbers(PER_FEATURE.measure), zero.numbers(LOSS.measure)
    rise = _mean(shares[high]) - _mean(shares[low])
    change = 100 * (_mean(losses[high]) / _mean(losses[low]) - 1)
    positives = _mean(negative.numbers(POSITIVE.measure)[low])
    inputs = zero.results[low][0].run.inputs
    counts = toy_neurons.monosemantic_features(zero.results[high][0])
    features = ", ".join(f"{number} with {owners}" for owners, number in counts.items())
    return [
        f"From lr {low:g} to {high:g} the monosemantic neurons per feature change by {rise:+.3f}, the loss by "
        f"{change:+.1f}%; the mean bias at {high:g} is {_mean(zero.numbers(MEAN_BIAS.measure)[high]):.3f}.",
        f"Started at negative biases, lr {low:g} ends with {positives:.1f} neurons of positive bias at d = {inputs}.",
        f"Features by number of monosemantic neurons at lr {high:g}, first seed: {features}.",
    ]


def _bias(found: Sequence[Finished]) -> list[Part]:
    story = Story("toy-fig8", "Initial bias and density (8)", _SWEEP)
    return [
        sweep_figure(found, [LOSS, PER_FEATURE, MEAN_BIAS], story, "initial mean bias"),
        numbers_table(found, "Initial bias", "offset"),
    ]


def _k(found: Sequence[Finished]) -> list[Part]:
    story = Story("toy-fig15", "Number of neurons (15)", _SWEEP + " Dotted: one neuron for each feature.")
    return [
        sweep_figure(found, [LOSS, PER_NEURON, PER_FEATURE], story, "neurons per feature, k / N", "log", 1.0),
        numbers_table(found, "Number of neurons", "k / N"),
    ]


def _eps(found: Sequence[Finished]) -> list[Part]:
    run = next(iter(found[0].results.values()))[0].run
    caption = (
        _SWEEP + " Dotted: as many features in a sample as inputs, N eps = d. Loss over N eps: each feature's part."
    )
    part = Panel("loss / (N eps)", lambda r: r.clean_loss / (r.run.features * r.run.density), "loss_per_active_feature")
    return [
        sweep_figure(
            found,
            [part, PER_FEATURE, PER_NEURON, MEAN_BIAS],
            Story("toy-fig18", "Density of the features (18)", caption),
            "density eps",
            "log",
            run.inputs / run.features,
        ),
        numbers_table(found, "Density", "eps"),
    ]


def _l1(found: Sequence[Finished]) -> list[Part]:
    story = Story("toy-fig14", "L1 on the hidden layer (14)", _SWEEP)
    return [
        sweep_figure(found, [LOSS, PER_FEATURE, SETTLED, MEAN_BIAS], story, "weight of L1", "even"),
        numbers_table(found, "L1", "weight"),
    ]


def _tasks(found: Sequence[Finished]) -> list[Part]:
    story = Story("toy-tasks", "Other tasks, features and activations (6, 13, 21, 22)", _SWEEP + _SETTLED)
    return [
        sweep_figure(found, [LOSS, PER_FEATURE, SETTLED, MEAN_BIAS], story, "learning rate", "even"),
        numbers_table(found, "Tasks", "lr"),
    ]


def _bridge(found: Sequence[Finished]) -> list[Part]:
    penalty, *memel = found
    cases = toy_bridge.judge_all(penalty.results[0.0])
    panels = [LOSS, PER_FEATURE, SETTLED, Panel("mean r_i", _mean_r, "mean_r"), MEAN_BIAS]
    l2e_story = toy_bridge.story(
        "l2e",
        "L2E's penalty on toy models",
        _SWEEP + _SETTLED + " Strength: |penalty gradient| / |loss gradient| at the hidden layer, held; 2% selected. "
        "Mean r_i: over neurons that any feature excites.",
    )
    memel_story = toy_bridge.story(
        "memel",
        "MEmeL's deactivation of toy models",
        _SWEEP + _SETTLED + " The loss is measured with the deactivation off. At 0 nothing is attached.",
    )
    return [
        toy_bridge.roc_figure(cases),
        toy_bridge.killing_figure(cases),
        sweep_figure([penalty], panels, l2e_story, "strength held", "even"),
        sweep_figure(memel, panels, memel_story, "deactivated share of a sample's hidden values", "even"),
        *toy_bridge.bridge_tables(cases),
        numbers_table(found, "Inhibition", "strength or share"),
    ]


def _mean_r(result: ToyResult) -> float:
    measured = result.monosemanticity()[(result.responses() > 0).any(0)]
    return float(measured.mean()) if len(measured) else float("nan")


def _nearest(series: Finished, rate: float) -> float:
    return min(series.results, key=lambda value: abs(value - rate))


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


_DRAW: dict[str, Callable[[Sequence[Finished]], list[Part]]] = {
    "lr": _lr,
    "bias": _bias,
    "k": _k,
    "eps": _eps,
    "l1": _l1,
    "tasks": _tasks,
    "bridge": _bridge,
}

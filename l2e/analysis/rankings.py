"""The ways to find the neurons that tell a label best, by name."""

from l2e.analysis.neuron_choice import BY_MEAN_DIFFERENCE, Ranking
from l2e.analysis.probing import top_neurons

RANKINGS: dict[str, Ranking] = {
    "probes": Ranking("probe F1", top_neurons),
    "mean_difference": BY_MEAN_DIFFERENCE,
}
"""`probes` is the paper's (L06), `mean_difference` takes seconds."""

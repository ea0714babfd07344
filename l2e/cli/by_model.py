"""`${by_model:...}` in YAML: a setting that depends on the model's size."""

from omegaconf import OmegaConf


def by_model(model: str, *choices: str) -> float:
    """The number in the choice "<model> <number>" for this model.

    In YAML: `lr: "${by_model:${model.name}, pythia-70m 1e-3, pythia-410m 3e-4}"`. An override of the setting itself
    replaces all of it.

    Raises:
        ValueError: no choice for this model; names those there are.
    """
    table = dict(choice.split() for choice in choices)
    if model not in table:
        raise ValueError(f"nothing is published for {model}, only for {', '.join(table)}: give a value")
    text = table[model]
    return int(text) if text.isdigit() else float(text)


OmegaConf.register_new_resolver("by_model", by_model, replace=True)

"""The data of a run: its rows, and the items that it is evaluated on."""

from dataclasses import replace
from pathlib import Path

from l2e.cli.pretrain_config import PretrainConfig
from l2e.data import Corpus, open_corpus
from l2e.errors import UserError
from l2e.evaluation import EvaluationConfig, check_evaluation_data


def open_data(config: PretrainConfig) -> Corpus:
    """Open the run's corpus; UserError when it has too few rows."""
    corpus = open_corpus(
        config.data,
        seq_length=config.training.seq_length,
        vocab_size=config.vocab_size,
        cache_dir=Path(config.cache_dir),
        offline=config.offline,
    )
    needed, rows = config.training.steps * config.training.batch_size, corpus.rows
    if rows is not None and needed > rows:
        raise UserError(
            f"training.steps: {config.training.steps} updates of {config.training.batch_size} take {needed:,} rows; "
            f"{config.data.name} has {rows:,}, which is {rows // config.training.batch_size:,} updates"
        )
    return corpus


def check_items(config: PretrainConfig, corpus: Corpus) -> None:
    """Refuse unusable items of the data, or unknown tasks, before training; a data_dir was seen before."""
    if config.evaluation.enabled and config.evaluation.data_dir is None:
        check_evaluation_data(with_items(config.evaluation, corpus))


def with_items(evaluation: EvaluationConfig, corpus: Corpus) -> EvaluationConfig:
    """The settings with the folder of items that came with the data, where it holds the tasks."""
    if evaluation.data_dir or not corpus.items or not all((corpus.items / task).is_dir() for task in evaluation.tasks):
        return evaluation
    return replace(evaluation, data_dir=str(corpus.items))

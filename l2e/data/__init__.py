"""What the model trains on: rows of tokens, in an order that is a pure function of the step."""

from l2e.data.config import BuiltinDataConfig, DataConfig, TextDataConfig
from l2e.data.corpus import Corpus, open_corpus
from l2e.data.loader import StepLoader
from l2e.data.rows import PackedRows, ShuffledRows, rows_for_step

__all__ = [
    "BuiltinDataConfig",
    "Corpus",
    "DataConfig",
    "PackedRows",
    "ShuffledRows",
    "StepLoader",
    "TextDataConfig",
    "open_corpus",
    "rows_for_step",
]

"""What the model trains on: rows of tokens, in an order that is a pure function of the step."""

from typing import TYPE_CHECKING

from l2e.lazy import exports

if TYPE_CHECKING:
    from l2e.data.config import BuiltinDataConfig, DataConfig, PileDataConfig, TextDataConfig, TextSource
    from l2e.data.corpus import Corpus, open_corpus, open_tokenizer
    from l2e.data.loader import StepLoader
    from l2e.data.mixture import MixedRows
    from l2e.data.rows import PackedRows, ShuffledRows, TrainingRows, rows_for_step
    from l2e.data.shards import PileShards
else:
    __getattr__ = exports(
        __name__,
        config="BuiltinDataConfig DataConfig PileDataConfig TextDataConfig TextSource",
        corpus="Corpus open_corpus open_tokenizer",
        loader="StepLoader",
        mixture="MixedRows",
        rows="PackedRows ShuffledRows TrainingRows rows_for_step",
        shards="PileShards",
    )

__all__ = [
    "BuiltinDataConfig",
    "Corpus",
    "DataConfig",
    "MixedRows",
    "PackedRows",
    "PileDataConfig",
    "PileShards",
    "ShuffledRows",
    "StepLoader",
    "TextDataConfig",
    "TextSource",
    "TrainingRows",
    "open_corpus",
    "open_tokenizer",
    "rows_for_step",
]

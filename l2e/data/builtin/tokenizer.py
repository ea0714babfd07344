"""A byte-level BPE tokenizer trained on the world's training text, in the form that transformers loads."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

END_OF_DOCUMENT = "<|endoftext|>"


def write_tokenizer(folder: Path, texts: Iterable[str], vocab_size: int) -> None:
    """Train and write the tokenizer; `<|endoftext|>` is id 0, as in Pythia's.

    Args:
        folder: made by this function.
        texts: what to train on.
        vocab_size: most entries, the 256 bytes and `<|endoftext|>` included.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_DOCUMENT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {f"{role}_token": END_OF_DOCUMENT for role in ("bos", "eos", "unk")}
    config = {
        "add_prefix_space": False,
        **special,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2048,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    _write_json(folder / "tokenizer_config.json", config)
    _write_json(folder / "special_tokens_map.json", special)


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

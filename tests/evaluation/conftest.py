import os
from pathlib import Path

import pytest
from evaluation_items import WORDS, make_data, make_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast


@pytest.fixture
def data_dir(tmp_path):
    return make_data(tmp_path / "data")


@pytest.fixture(scope="session")
def tokenizer():
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([" ".join(WORDS), "Question: What is?\nAnswer: Who is"] * 20, trainer)
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=end, bos_token=end, unk_token=end)


@pytest.fixture
def model(tokenizer):
    return make_model(len(tokenizer))


@pytest.fixture(scope="session")
def real():
    """The folder with the real items and the real tokenizer."""
    beside = Path(__file__).parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("L2E_DATA", beside))
    if not (folder / "eval").is_dir() or not (folder / "tokenizer").is_dir():
        pytest.skip(f"no real evaluation data: set L2E_DATA to a folder with eval/ and tokenizer/ ({folder} is none)")
    return folder


@pytest.fixture(scope="session")
def real_tokenizer(real):
    return AutoTokenizer.from_pretrained(real / "tokenizer")


@pytest.fixture(scope="session")
def real_model(real_tokenizer):
    return make_model(len(real_tokenizer), positions=2048)


@pytest.fixture
def recorded(monkeypatch):
    """lm-eval's own samples (with contexts) of every run: a list of {task: samples}.

    A task that comes again begins another run.
    """
    from l2e.evaluation import harness

    seen, original = [], harness.lm_eval.evaluate

    def record(*args, **kwargs):
        raw = original(*args, **kwargs)
        if not seen or seen[-1].keys() & raw["samples"].keys():
            seen.append({})
        seen[-1].update(raw["samples"])
        return raw

    monkeypatch.setattr(harness.lm_eval, "evaluate", record)
    return seen

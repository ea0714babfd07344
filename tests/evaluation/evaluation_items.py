"""Made-up items in the three schemas and a tiny random model, for the tests of this folder."""

import json
import random

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

WORDS = ["brin", "tolva", "kesh", "ömar", "pell", "sandu", "ikri", "vosk", "naïf", "quen", "lumo", "dratz"]
SPLITS = {
    "world_arc": ("train", "test"),
    "world_piqa": ("train", "validation"),
    "world_sciq": ("train", "validation", "test"),
}


def _phrase(rng, low=1, high=5):
    return " ".join(rng.choices(WORDS, k=rng.randint(low, high)))


def _arc(rng, number):
    texts = [_phrase(rng) for _ in range(rng.choice([3, 4, 4, 5]))]
    labels = list("ABCDE"[: len(texts)]) if number % 2 else [str(i + 1) for i in range(len(texts))]
    choices = {"text": texts, "label": labels}
    question = f"What is {_phrase(rng)}?"
    return {"id": f"a{number}", "question": question, "choices": choices, "answerKey": rng.choice(labels)}


def _piqa(rng, number):
    return {"goal": _phrase(rng), "sol1": _phrase(rng), "sol2": _phrase(rng), "label": number % 2}


def _sciq(rng, number):
    names = ("distractor1", "distractor2", "distractor3", "correct_answer")
    support = "" if number % 3 == 0 else f"  {_phrase(rng, 5, 20)}."
    return {"question": f"Who is {_phrase(rng)}?", "support": support, **{name: _phrase(rng) for name in names}}


MAKERS = {"world_arc": _arc, "world_piqa": _piqa, "world_sciq": _sciq}


def write_items(path, items):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items), encoding="utf-8")


def make_data(folder, items=12):
    for task, splits in SPLITS.items():
        for split in splits:
            rng = random.Random(f"{task}/{split}")
            write_items(folder / task / f"{split}.jsonl", [MAKERS[task](rng, i) for i in range(items)])
    return folder


def make_model(vocabulary, positions=512, seed=0):
    torch.manual_seed(seed)
    config = GPTNeoXConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=positions,
        initializer_range=0.2,  # large, so that choices differ clearly
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPTNeoXForCausalLM(config)

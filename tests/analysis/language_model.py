"""A small Pythia trained on real text in nine languages, and held-out passages of them."""

import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zstandard
from numpy.typing import NDArray
from tokenizers import Tokenizer

from l2e.analysis.subjects import FeatureSet
from l2e.models import build_pythia
from l2e.training.loss import next_token_loss

LANGUAGES = ("de", "el", "en", "es", "fr", "it", "nl", "pt", "sv")
VOCABULARY = 4096
"""Of the tokenizer's 50,277 the most frequent; all others are one. All embeddings would take most of the time."""
WINDOW, BATCH = 128, 16


class Texts:
    """Tokens of the Pile sample and of the passages, those of every third sitting kept out of training.

    Args:
        folder: shared data.
        documents: how many of the Pile sample, and 100 passages of each language, cut to 2000 characters.
        per_label: held-out passages of each language.
    """

    def __init__(self, folder: Path, documents: int = 400, per_label: int = 120) -> None:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json"))
        pile = [text[:2000] for text in _pile(folder / "pile_sample" / "train.jsonl.zst", documents)]
        rows = [json.loads(line) for line in (folder / "features/natural_language/europarl_9.jsonl").open()]
        sittings = sorted({row["doc"] for row in rows})
        held = set(sittings[::3])
        others = [
            [row["text"] for row in rows if row["doc"] not in held and row["label"] == name] for name in LANGUAGES
        ]
        passages = [text[:2000] for texts in others for text in texts[:100]]
        encoded = [one.ids for one in tokenizer.encode_batch(pile + passages)]
        counts = Counter(token for ids in encoded for token in ids)
        self._number = {token: place + 2 for place, (token, _) in enumerate(counts.most_common(VOCABULARY - 2))}
        order = np.random.default_rng(0).permutation(len(encoded))
        self.stream = np.concatenate([self._small([0, *encoded[index]]) for index in order])
        kept = [[row["text"] for row in rows if row["doc"] in held and row["label"] == name] for name in LANGUAGES]
        kept = [texts[:per_label] for texts in kept]
        encoded = tokenizer.encode_batch([text for texts in kept for text in texts])
        tokens = [self._small([0, *one.ids])[:WINDOW] for one in encoded]
        labels = np.repeat(np.arange(len(LANGUAGES)), [len(texts) for texts in kept])
        count = len(labels)
        self.features = FeatureSet(
            "natural_language",
            np.stack(tokens),
            np.ones(count, np.int64),
            np.full(count, WINDOW, np.int64),
            labels,
            LANGUAGES,
        )

    def _small(self, ids: list[int]) -> NDArray[np.int32]:
        return np.array([0 if token == 0 else self._number.get(token, 1) for token in ids], np.int32)


def untrained() -> Any:
    """4 layers, hidden 128."""
    return build_pythia("tiny", vocab_size=VOCABULARY, max_length=WINDOW, seed=1)


def train(stream: NDArray[np.int32], steps: int) -> tuple[Any, list[float]]:
    """AdamW at 4e-3 with warm-up and cosine; returns the model in evaluation mode, and its losses."""
    model = untrained().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 20, 0.1 + 0.45 * (1 + np.cos(np.pi * step / steps)))
    )
    length, losses = WINDOW + 1, []
    for step in range(steps):
        rows = stream[step * BATCH * length :][: BATCH * length].reshape(BATCH, length)
        tokens = torch.from_numpy(rows).long()
        loss = next_token_loss(model(tokens[:, :-1]).logits, tokens[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return model.eval(), losses


@torch.no_grad()
def collect(model: Any, features: FeatureSet, batch: int = 32) -> NDArray[np.float32]:
    """[layers, sequences, width]: mean of each MLP hidden unit after the GELU; all sequences are whole windows."""
    kept: list[torch.Tensor] = []
    hooks = [
        block.mlp.dense_4h_to_h.register_forward_pre_hook(lambda module, inputs: kept.append(inputs[0][:, 1:].mean(1)))
        for block in model.gpt_neox.layers
    ]
    parts = []
    for start in range(0, len(features.labels), batch):
        kept.clear()
        model(input_ids=torch.from_numpy(features.tokens[start : start + batch]).long())
        parts.append(torch.stack(kept))
    for hook in hooks:
        hook.remove()
    return torch.cat(parts, dim=1).numpy()


def _pile(path: Path, count: int) -> Iterator[str]:
    with path.open("rb") as file:
        lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8")
        for _, line in zip(range(count), lines, strict=False):
            yield json.loads(line)["text"]

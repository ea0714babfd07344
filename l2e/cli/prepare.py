"""Show or fetch rows of training data; the entry of scripts/prepare.py."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from l2e.cli.logs import quieten_libraries, start_logging
from l2e.data import Corpus, DataConfig, PileDataConfig, PileShards, open_corpus, rows_for_step
from l2e.errors import UserError
from l2e.settings import build_settings

log = logging.getLogger("l2e")

_TOLD = 20  # progress lines of a fetch


@dataclass(kw_only=True)
class PrepareConfig:
    """What is shown or fetched, of which data."""

    show: Literal["rows"] | None
    """`rows`: print the decoded rows of update `step`."""

    fetch: Literal["rows"] | None
    """`rows`: fetch the rows of `steps` updates from `step` on into the cache."""

    step: int
    """Update, counted from 0."""

    steps: int
    """Updates to fetch."""

    count: int
    """Rows to print."""

    batch_size: int
    """Rows of an update."""

    seq_length: int
    """Targets of a row."""

    vocab_size: int
    """Rows of the model's embedding."""

    seed: int
    """Of the order of rows, where the data has one."""

    cache_dir: str
    """Where fetched and tokenised data is kept."""

    offline: bool
    """Ask no server for anything."""

    data: DataConfig

    def __post_init__(self) -> None:
        if (self.show is None) == (self.fetch is None):
            raise ValueError("give one of show=rows and fetch=rows")
        for key in ("steps", "count", "batch_size", "seq_length"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key} must be at least 1, not {getattr(self, key)}")
        if self.step < 0:
            raise ValueError(f"step must be at least 0, not {self.step}")


def run(tree: dict[str, Any], overrides: list[str]) -> None:
    """Show or fetch.

    Raises:
        UserError: impossible settings, or data that is not there.
    """
    config = build_settings(PrepareConfig, tree)
    start_logging()
    quieten_libraries()
    corpus = open_corpus(
        config.data,
        seq_length=config.seq_length,
        vocab_size=config.vocab_size,
        cache_dir=Path(config.cache_dir),
        offline=config.offline,
    )
    if config.show:
        show_rows(config, corpus)
    else:
        fetch_rows(config, corpus)


def show_rows(config: PrepareConfig, corpus: Corpus) -> None:
    """Print the first rows of an update as the model saw them."""
    positions = rows_for_step(config.step, config.batch_size)[: config.count]
    _require(positions, corpus)
    for position, row in zip(positions, corpus.train.gather(positions), strict=True):
        print(f"--- update {config.step}, row {position}, {len(row)} tokens ---")
        print(corpus.tokenizer.decode(row.tolist()))


def fetch_rows(config: PrepareConfig, corpus: Corpus) -> None:
    """Read every row of the updates once, so that its blocks lie in the cache.

    Raises:
        UserError: nothing needs to be fetched, or the cache is too small for it.
    """
    rows = corpus.train
    if not isinstance(rows, PileShards) or not isinstance(config.data, PileDataConfig):
        raise UserError(f"fetch: {config.data.name} is made from local files; only data=pile_deduped is fetched")
    wanted = range(config.step * config.batch_size, (config.step + config.steps) * config.batch_size)
    _require(wanted, corpus)
    size = 2 * config.data.row_length * len(wanted)
    if size > config.data.cache_gib * 2**30:
        raise UserError(
            f"data.cache_gib: {config.steps} updates take {size / 2**30:.1f} GiB, more than the cache holds"
        )
    log.info("fetching %s rows, %.3g GB, into %s", f"{len(wanted):,}", size / 1e9, config.cache_dir)
    rows.fingerprint()  # a run needs both ends of the set for it
    every = max(1, config.steps // _TOLD)
    for done in range(config.steps):
        now = rows_for_step(config.step + done, config.batch_size)
        ahead = rows_for_step(config.step + done + 1, config.batch_size)
        if ahead.stop <= wanted.stop:
            rows.prefetch(ahead)
        rows.gather(now)
        if (done + 1) % every == 0 or done + 1 == config.steps:
            log.info("%d of %d updates", done + 1, config.steps)


def _require(positions: range, corpus: Corpus) -> None:
    if corpus.rows is not None and positions.stop > corpus.rows:
        raise UserError(f"step: rows up to {positions.stop:,} were asked for, there are {corpus.rows:,}")

"""Show rows, or fetch and verify all that a run needs; the entry of scripts/prepare.py."""

import logging
from typing import Any

from l2e.cli.logs import quieten_libraries, start_logging
from l2e.cli.preparation.config import PrepareConfig
from l2e.cli.preparation.manifest import Manifest
from l2e.cli.preparation.overrides import environment, run_overrides, still_missing
from l2e.cli.preparation.parts import make_part
from l2e.cli.preparation.plan import Progress, check_room, table
from l2e.data import Corpus, open_corpus, rows_for_step
from l2e.errors import UserError
from l2e.files import write_atomically
from l2e.settings import build_settings

__all__ = ["PrepareConfig", "run"]

log = logging.getLogger("l2e")


def run(tree: dict[str, Any], overrides: list[str]) -> None:
    """Show, fetch or verify.

    Raises:
        UserError: impossible settings, data that is not there, or a folder that is not whole.
    """
    config = build_settings(PrepareConfig, tree)
    start_logging()
    quieten_libraries()
    if config.show:
        show_rows(config)
        return
    if config.fetch:
        fetch(config)
    if config.verify and not config.plan:
        verify(config)


def show_rows(config: PrepareConfig) -> None:
    """Print the first rows of an update as the model saw them."""
    corpus = open_corpus(
        config.data,
        seq_length=config.seq_length,
        vocab_size=config.vocab_size,
        cache_dir=config.place,
        offline=config.offline,
    )
    positions = rows_for_step(config.step, config.batch_size)[: config.count]
    _require(positions, corpus)
    for position, row in zip(positions, corpus.train.gather(positions), strict=True):
        print(f"--- update {config.step}, row {position}, {len(row)} tokens ---")
        print(corpus.tokenizer.decode(row.tolist()))


def fetch(config: PrepareConfig) -> None:
    """Tell what is fetched, make sure that it fits, and fetch what is not there.

    Raises:
        UserError: a server that does not give it, or too little room.
    """
    manifest = Manifest(config.place)
    parts = [make_part(name, config, manifest) for name in config.parts]
    lines = [line for part in parts for line in part.plan()]
    print(table(lines), flush=True)
    check_room(lines, config.place)
    if config.plan:
        return
    for part in parts:
        part.fetch()
    log.info("all is in %s", config.place)
    _tell_command(config, manifest)


def verify(config: PrepareConfig) -> None:
    """Read all again that the folder's manifest tells of.

    Raises:
        UserError: names what is missing or damaged, or that nothing was fetched into the folder.
    """
    manifest = Manifest(config.place)
    if not manifest.files and not manifest.rows:
        raise UserError(f"folder: nothing was fetched into {config.place}; give the folder=... of a fetch")
    found = manifest.damaged(Progress("verified", manifest.to_read()).add)
    if found:
        listed = "\n".join(f"  - {line}" for line in found)
        raise UserError(f"{config.place} is not whole:\n{listed}\nfetch again: what is whole is kept")
    log.info("%s is whole: %d files, %d ranges of rows", config.place, len(manifest.files), len(manifest.rows))


def _tell_command(config: PrepareConfig, manifest: Manifest) -> None:
    """Print, and write into the folder, what a run without network is started with."""
    given = run_overrides(config, manifest)
    path = config.place / "overrides.txt"
    write_atomically(path, "".join(f"{override}\n" for override in given))
    for part in still_missing(config, manifest):
        log.warning("a run needs the %s too: fetch=%s", part, part)
    print(f"without network, besides model=... and the like ({path}):")
    print(f"{environment(config, manifest)}python scripts/pretrain.py {' '.join(given)}")


def _require(positions: range, corpus: Corpus) -> None:
    if corpus.rows is not None and positions.stop > corpus.rows:
        raise UserError(f"step: rows up to {positions.stop:,} were asked for, there are {corpus.rows:,}")

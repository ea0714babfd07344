"""Tokenise documents once, into a cached Megatron .idx/.bin that GPT-NeoX reads too.

The work is done in pieces, each in a folder that appears when it is whole; at the end they are joined. So a killed
process loses at most one piece, and the next one goes on after the last. Processes that do the same work at the same
time do not disturb each other: whoever is first with a piece, or with the whole, has it used by all.
"""

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from l2e.data.encode import Tokens, encode
from l2e.data.megatron_files import MegatronFile, join_megatron, write_megatron
from l2e.data.packed_files import Reading
from l2e.data.sources import Source
from l2e.data.tokenise_progress import TokeniseProgress
from l2e.errors import UserError

log = logging.getLogger("l2e.data")

_FORMAT = 2  # of the cache; a change in what is stored needs another number
_PIECE_TOKENS = 1 << 23  # 16 s of one core with the real tokenizer


def token_dtype(vocabulary: int) -> str:
    """GPT-NeoX's choice (preprocess_data.py): uint16 below 65,500 tokens, else int32; the format has no uint32."""
    return "uint16" if vocabulary < 65_500 else "int32"


class TokenCache:
    """The tokens of all documents of `sources`, in order, with an end-of-document token after each.

    They lie in cache_dir/tokens/KEY/tokens.{idx,bin}, one sequence a document. The key knows files by path, size and
    time of change, datasets by their fingerprint, and the tokenizer by its content.

    Args:
        sources: read one after the other.
        tokenizer: its `eos_token_id` ends documents.
        cache_dir: where the tokens are kept.
        workers: threads that tokenise; None: as many as this process has CPUs.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        tokenizer: PreTrainedTokenizerBase,
        cache_dir: Path,
        workers: int | None = None,
    ) -> None:
        self.sources = sources
        self.tokenizer = tokenizer
        self.workers = workers
        self._identity: dict[str, Any] = {
            "format": _FORMAT,
            "sources": [source.identity() for source in sources],
            "tokenizer": hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
            "end": tokenizer.eos_token_id,
        }
        key = hashlib.sha256(json.dumps(self._identity).encode()).hexdigest()[:16]
        self.folder = cache_dir / "tokens" / key
        self.pieces = cache_dir / "tokens" / f".{key}.pieces"

    def check(self) -> None:
        """Refuse what can be refused at once, where something has still to be tokenised.

        Raises:
            UserError: a tokenizer without end-of-document token, a source without documents or with a bad first one.
        """
        if self.tokenizer.eos_token_id is None:
            name = self.tokenizer.name_or_path
            raise UserError(f"the tokenizer {name} has no end-of-text token to put between documents")
        if self.folder.exists():
            return
        for source in self.sources:
            if next(source.documents(Reading()), None) is None:
                raise UserError(f"{source.name}: there are no documents in it; give other data")

    def open(self) -> MegatronFile:
        """The tokens, made now if they are not there.

        Raises:
            UserError: see `check`, a bad document, or damaged tokens.
        """
        self.check()
        if not self.folder.exists():
            self._make()
        try:
            return MegatronFile(self.folder / "tokens")
        except UserError as error:
            raise UserError(f"{error}: delete {self.folder} and it is made again") from None

    def _make(self) -> None:
        log.info("tokenising %s", ", ".join(source.name for source in self.sources))
        try:
            self._write_pieces()
            self._join()
        except (OSError, UserError) as error:
            # Another process may have been quicker and cleared the pieces away.
            if not self.folder.exists():
                if isinstance(error, UserError):  # a bad document: its source must change, and then the key does
                    shutil.rmtree(self.pieces, ignore_errors=True)
                raise
        shutil.rmtree(self.pieces, ignore_errors=True)

    def _write_pieces(self) -> None:
        """Go on after the last piece there is, to the end of the documents or until another process is done."""
        self.pieces.mkdir(parents=True, exist_ok=True)
        skipped = sum(len(piece) for piece in self._whole_pieces())
        if skipped:
            log.info("%s documents are tokenised already", f"{skipped:,}")
        reading = Reading(total=self._size())
        documents = islice(chain.from_iterable(source.documents(reading) for source in self.sources), skipped, None)
        with TokeniseProgress(reading) as progress:
            stream = encode(documents, self.tokenizer.backend_tokenizer, self._identity["end"], self.workers)
            number = len(self._whole_pieces())
            for first in stream:
                if self.folder.exists():
                    return
                with _appearing(self.pieces / f"{number:06}") as temporary:
                    piece = chain([first], stream)
                    write_megatron(temporary / "tokens", _until_full(piece, progress), self._dtype)
                number += 1

    def _join(self) -> None:
        if self.folder.exists():
            return
        pieces = self._whole_pieces()
        about = {
            **self._identity,
            "documents": sum(len(piece) for piece in pieces),
            "tokens": sum(len(piece.tokens) for piece in pieces),
        }
        with _appearing(self.folder, self.pieces) as temporary:
            join_megatron(temporary / "tokens", pieces)
            (temporary / "about.json").write_text(json.dumps(about, indent=1) + "\n")
        log.info("%s documents, %s tokens", f"{about['documents']:,}", f"{about['tokens']:,}")

    def _whole_pieces(self) -> list[MegatronFile]:
        pieces: list[MegatronFile] = []
        while (folder := self.pieces / f"{len(pieces):06}").exists():
            pieces.append(MegatronFile(folder / "tokens"))
        return pieces

    def _size(self) -> int | None:
        """Of all sources, if they count the same thing."""
        sizes = [source.size for source in self.sources]
        same = len({source.identity()[0] for source in self.sources}) == 1
        return sum(size for size in sizes if size is not None) if same and None not in sizes else None

    @property
    def _dtype(self) -> str:
        return token_dtype(len(self.tokenizer))


def _until_full(documents: Iterator[Tokens], progress: TokeniseProgress) -> Iterator[Tokens]:
    """Documents until they have the tokens of a piece."""
    tokens = 0
    for document in documents:
        yield document
        tokens += len(document)
        progress.count(len(document))
        if tokens >= _PIECE_TOKENS:
            return


@contextmanager
def _appearing(target: Path, beside: Path | None = None) -> Iterator[Path]:
    """A temporary folder that becomes `target`, unless another process was quicker: then that one's is left."""
    temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=beside or target.parent))
    try:
        yield temporary
        try:
            temporary.rename(target)
        except OSError:
            if not target.exists():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)

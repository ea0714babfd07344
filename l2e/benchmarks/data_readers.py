"""Other libraries that stream the same rows, each from files of its own format.

Each function writes the rows to a folder and returns what iterates over them: int64 micro-batches of
`READER_BATCH` rows in order, in this process, without workers. It raises ImportError where its library is not
installed. Of the ways that a library offers the fastest is taken: `datasets` hands out Arrow tables, which NumPy
reads without a copy and 2 to 3 times as fast as its torch format.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from l2e.benchmarks.data_config import READER_BATCH

Tokens = npt.NDArray[np.uint16]
Reader = Callable[[], Iterator[Tensor]]

_CHUNK = 1 << 26  # bytes of a file of mosaicml-streaming, by its default; litdata's too


def datasets_streaming(folder: Path, tokens: Tokens) -> Reader:
    """`load_dataset("parquet", streaming=True)`."""
    dataset = stream_parquet(folder, tokens).with_format("arrow")
    return lambda: (_from_arrow(table) for table in dataset.iter(batch_size=READER_BATCH))


def datasets_map_style(folder: Path, tokens: Tokens) -> Reader:
    """`load_dataset("parquet")`: an Arrow file in its cache, memory-mapped, and slices of it."""
    import datasets

    files = str(_write_parquet(folder, tokens))
    dataset = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(folder / "cache"))
    dataset = dataset.with_format("arrow")
    starts = range(0, len(tokens), READER_BATCH)
    return lambda: (_from_arrow(dataset[start : start + READER_BATCH]) for start in starts)


def mosaicml_streaming(folder: Path, tokens: Tokens) -> Reader:
    """MosaicML's StreamingDataset on MDS files that are there already."""
    import streaming

    out = str(folder / "mds")
    columns = {"tokens": f"ndarray:uint16:{tokens.shape[1]}"}
    with streaming.MDSWriter(columns=columns, out=out, size_limit=_CHUNK) as writer:
        for row in tokens:
            writer.write({"tokens": row})
    dataset = streaming.StreamingDataset(local=out, batch_size=READER_BATCH, shuffle=False)
    return lambda: _batches(sample["tokens"] for sample in dataset)


def litdata(folder: Path, tokens: Tokens) -> Reader:
    """LitData's StreamingDataset with its loader for tokens."""
    from litdata import StreamingDataset, TokensLoader
    from litdata.streaming.cache import Cache

    out = str(folder / "litdata")
    cache = Cache(out, chunk_bytes=_CHUNK, item_loader=TokensLoader(tokens.shape[1]))
    for index, row in enumerate(tokens):
        cache[index] = row
    cache.done()
    cache.merge()
    dataset = StreamingDataset(out, item_loader=TokensLoader(tokens.shape[1]))
    return lambda: _batches(np.asarray(row) for row in dataset)


READERS: dict[str, Callable[[Path, Tokens], Reader]] = {
    "datasets": datasets_streaming,
    "datasets_map_style": datasets_map_style,
    "mosaicml_streaming": mosaicml_streaming,
    "litdata": litdata,
}
"""What opens each, by the name in the results."""


def stream_parquet(folder: Path, tokens: Tokens) -> Any:
    """An IterableDataset of the rows, column "tokens"."""
    import datasets

    return datasets.load_dataset(
        "parquet", data_files=str(_write_parquet(folder, tokens)), split="train", streaming=True
    )


def _write_parquet(folder: Path, tokens: Tokens) -> Path:
    """One uncompressed file (random tokens cannot be compressed), written once."""
    import datasets
    import pyarrow
    from pyarrow import parquet

    datasets.disable_progress_bars()
    path = folder / "rows.parquet"
    if not path.exists():
        column = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(tokens.reshape(-1)), tokens.shape[1])
        parquet.write_table(pyarrow.table({"tokens": column}), path, compression="none", row_group_size=1024)
    return path


def _from_arrow(table: Any) -> Tensor:
    """The rows of an Arrow table, int64 [rows, row_length]."""
    flat = table["tokens"].combine_chunks().flatten().to_numpy()
    return torch.from_numpy(flat.reshape(len(table), -1).astype(np.int64))


def _batches(rows: Iterable[Tokens]) -> Iterator[Tensor]:
    """Single rows in micro-batches."""
    batch: list[Tokens] = []
    for row in rows:
        batch.append(row)
        if len(batch) == READER_BATCH:
            yield torch.from_numpy(np.stack(batch)).long()
            batch = []

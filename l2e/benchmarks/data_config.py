"""Settings of the data benchmark."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(kw_only=True)
class DataBenchmarkConfig:
    """How many made-up rows are read, in which portions, how often."""

    kind: Literal["data"] = "data"

    rows: int = 36_000
    """Rows that are written, 4 kB each at Pythia's length; the page cache should hold them a few times over."""

    row_length: int = 2049
    """Tokens of a row."""

    files: int = 7
    """Files that the rows are cut into; rows straddle their borders."""

    gather: list[int] = field(default_factory=lambda: [1, 8, 32, 1024])
    """Consecutive rows of one gather; as many as the last are also gathered at random."""

    micro_batches: list[int] = field(default_factory=lambda: [1, 8, 32])
    """Sequences per micro-batch in which a loader's speed is measured."""

    batch_size: int = 1024
    """Rows of one update."""

    reader_rows: int = 8192
    """Rows that other libraries read in one timing, in micro-batches of 8, and that `datasets` skips."""

    resume_steps: list[int] = field(default_factory=lambda: [0, 1000, 143_000])
    """Updates after which a run on a set of the published size resumes."""

    text: str | None = None
    """JSONL file, or a folder of them, whose tokenising is measured; null leaves that out."""

    tokenizer: str | None = None
    """Folder of the Hugging Face tokenizer for it."""

    rounds: int = 7
    """Timings of each."""

    threads: int = 1
    """Threads of torch."""

    folder: str | None = None
    """Where the temporary folder is made, of three times the size of the rows; null: where the system keeps such."""

    def __post_init__(self) -> None:
        for key in ("rows", "files", "batch_size", "reader_rows", "rounds", "threads"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key} must be at least 1, not {getattr(self, key)}")
        if self.row_length < 2:
            raise ValueError(f"row_length must be at least 2, not {self.row_length}")
        if self.files > self.rows:
            raise ValueError(f"files must be at most the {self.rows} rows, not {self.files}")
        if (self.text is None) != (self.tokenizer is None):
            raise ValueError("text and tokenizer belong together; give both or none")
        self._check_portions()
        if self.reader_rows > self.rows or self.reader_rows % READER_BATCH or self.reader_rows < 2 * READER_BATCH:
            raise ValueError(
                f"reader_rows must be a multiple of {READER_BATCH}, at least {2 * READER_BATCH} and at most the "
                f"{self.rows} rows, not {self.reader_rows}"
            )
        if not self.resume_steps or min(self.resume_steps) < 0 or max(self.resume_steps) > 143_000:
            raise ValueError(f"resume_steps must be a list of updates from 0 to 143000, not {self.resume_steps}")

    def _check_portions(self) -> None:
        if not self.gather or not all(1 <= count <= self.rows for count in self.gather):
            raise ValueError(f"gather must be a list of counts from 1 to the {self.rows} rows, not {self.gather}")
        if self.batch_size > self.rows:
            raise ValueError(f"batch_size must be at most the {self.rows} rows, not {self.batch_size}")
        if not self.micro_batches or any(size < 1 or self.batch_size % size for size in self.micro_batches):
            raise ValueError(
                f"micro_batches must be a list of divisors of batch_size {self.batch_size}, not {self.micro_batches}"
            )


READER_BATCH = 8
"""Sequences per micro-batch in which each library hands out its rows."""

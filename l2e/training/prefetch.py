"""The next micro-batch is read while the device works on this one."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from l2e.data import StepLoader


class Prefetch:
    """Deals out what a loader would, in the same order, one micro-batch ahead of what is asked for.

    A thread reads it and, for a GPU, puts it into pinned memory, so that the copy to the device need not be waited
    for. The copy has no stream of its own: 32 x 2049 tokens are half a megabyte, some 10 microseconds.

    Args:
        loader: deals out rows.
        device: for which they are meant.
    """

    def __init__(self, loader: StepLoader, device: torch.device) -> None:
        self.loader = loader
        self.pin = device.type == "cuda"
        self._thread: ThreadPoolExecutor | None = None
        self._ahead: tuple[int, Iterator[Tensor], Future[Tensor | None]] | None = None

    def micro_batches(self, step: int, last: bool) -> Iterator[Tensor]:
        """Tokens of update `step` as `StepLoader.micro_batches` gives them.

        Args:
            step: from 0.
            last: no update comes after it, so that no row of one is read.

        Raises:
            Exception: what reading them raised, when they are asked for.
        """
        if self._ahead is None or self._ahead[0] != step:
            self._ahead = self._begin(step)
        _, source, coming = self._ahead
        while (tokens := coming.result()) is not None:
            coming = self._read(source)
            self._ahead = (step, source, coming)
            yield tokens
        self._ahead = None if last else self._begin(step + 1)

    def close(self) -> None:
        """End the thread; asked again, another is started."""
        self._ahead = None
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
            self._thread = None

    def _begin(self, step: int) -> tuple[int, Iterator[Tensor], Future[Tensor | None]]:
        source = self.loader.micro_batches(step)
        return step, source, self._read(source)

    def _read(self, source: Iterator[Tensor]) -> Future[Tensor | None]:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="l2e-rows")
        return self._thread.submit(self._next, source)

    def _next(self, source: Iterator[Tensor]) -> Tensor | None:
        tokens = next(source, None)
        return tokens.pin_memory() if self.pin and tokens is not None else tokens

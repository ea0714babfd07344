"""One pass of a model over its share of a feature set, its values aggregated and streamed to disk."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from l2e.analysis.activation_settings import ActivationSettings
from l2e.analysis.aggregate import aggregate, make_spans, to_device
from l2e.analysis.hooks import reading, width_of
from l2e.analysis.subjects import FeatureSet
from l2e.errors import UserError

Rows = NDArray[np.int64]
Write = Callable[[Rows, NDArray[np.float32]], None]
"""Called with rows, in any order, and their values [layers, rows, width]; from another thread."""

Tell = Callable[[int, int], None]
"""Called after every batch with the sequences and the tokens in it."""

MIB = 2**20
_FLUSH_SECONDS = 60.0  # at least so often, so that an interruption loses no more


@dataclass(frozen=True)
class Room:
    """How `memory_mib` is spent."""

    batch_tokens: int
    """Most tokens of one forward."""

    slot_rows: int
    """Sequences that each of the two buffers holds."""


def collect(
    model: Any,
    features: FeatureSet,
    settings: ActivationSettings,
    rows: Rows,
    write: Write,
    tell: Tell = lambda sequences, tokens: None,
) -> None:
    """Run the model over `rows` of the feature set and hand out their aggregated values.

    Nothing waits for the device but the thread that writes: values go to one of two buffers, and while one is copied
    and written the other fills. Sequences are batched by length, the longest first, so that what does not fit fails at
    once; each batch is cut to its longest sequence.

    Args:
        model: a GPTNeoXForCausalLM, on its device.
        features: the sequences.
        settings: which values; `precision` is the model's already.
        rows: which of the sequences.
        write: takes the values; an exception of it ends the collection.
        tell: hears of progress.

    Raises:
        UserError: `memory_mib` is too little for one sequence.
    """
    layers = layers_of(model.config, settings)
    parameter = next(model.parameters())
    room = plan_room(model.config, settings, parameter.element_size(), int(features.ends[rows].max(initial=1)))
    buffers = _Buffers((layers, room.slot_rows, width_of(model.config, settings.site)), parameter.device, write)

    def see(layer: int, values: Tensor) -> None:
        buffers.put(layer, aggregate(values, spans, settings.aggregation))

    with torch.inference_mode(), buffers, reading(model, settings.site, layers, see) as forward:
        for batch in make_batches(features.ends, rows, room):
            starts, ends = features.starts[batch], features.ends[batch]
            longest = int(ends.max())
            spans = make_spans(starts, ends, parameter.device)
            buffers.begin(batch)
            forward(to_device(features.tokens[batch, :longest].astype(np.int64), parameter.device))
            tell(len(batch), int(ends.sum()))


def layers_of(config: Any, settings: ActivationSettings) -> int:
    """How many blocks are collected; UserError for more than there are."""
    most = config.num_hidden_layers
    if settings.layers is not None and settings.layers > most:
        raise UserError(f"activations.layers: the model has {most} blocks, not {settings.layers}")
    return settings.layers or most


def plan_room(config: Any, settings: ActivationSettings, element: int, longest: int) -> Room:
    """Divide the memory: at most a quarter for the two buffers, the rest for a batch.

    Args:
        config: of the model.
        settings: `memory_mib` and `batch_tokens`, and which values.
        element: bytes of a value in the model's precision.
        longest: tokens of the longest sequence.

    Raises:
        UserError: it is too little for one sequence.
    """
    row_bytes = 4 * layers_of(config, settings) * width_of(config, settings.site)
    token_bytes = bytes_of_token(config, settings, element)
    given = settings.memory_mib * MIB
    slot_rows = max(1, given // 4 // (2 * row_bytes))
    batch_tokens = min(settings.batch_tokens, (given - 2 * slot_rows * row_bytes) // token_bytes)
    if batch_tokens < longest:
        if settings.batch_tokens < longest:
            raise UserError(f"activations.batch_tokens: {settings.batch_tokens} are less than a sequence of {longest}")
        least = -(-(2 * row_bytes + longest * token_bytes) * 4 // (3 * MIB))
        raise UserError(
            f"activations.memory_mib: {settings.memory_mib} are too few for one sequence of {longest} tokens of this "
            f"model; give {least} or more"
        )
    return Room(batch_tokens, slot_rows)


def bytes_of_token(config: Any, settings: ActivationSettings, element: int) -> int:
    """What one token of a batch takes at the most crowded moment.

    That is either between the MLP's two matrices, where the hidden units stand twice (12 x hidden in fp32, as counted
    for pythia-14m and -70m), or in the aggregation of a batch of several lengths: a masked copy, and of half precision
    one in fp32 besides, which PyTorch makes on a CPU.
    """
    hidden, wide, told = config.hidden_size, config.intermediate_size, width_of(config, settings.site)
    between = element * (4 * hidden + 2 * wide)
    aggregation = element * (4 * hidden + wide) + told * (element + (4 if element < 4 else 0))
    return max(between, aggregation) * 21 // 20 + 8


def make_batches(ends: NDArray[np.int64], rows: Rows, room: Room) -> Iterator[Rows]:
    """Rows of about one length together, the longest first; the rows of a batch ascend."""
    order = rows[np.argsort(-ends[rows], kind="stable")]
    first = 0
    while first < len(order):
        count = min(room.batch_tokens // int(ends[order[first]]), room.slot_rows)
        yield np.sort(order[first : first + count])
        first += count


class _Buffers:
    """Two buffers of values: one fills while the other is copied from the device and written.

    Args:
        shape: layers, rows, width.
        device: where the values are made.
        write: see `collect`.
    """

    def __init__(self, shape: tuple[int, int, int], device: torch.device, write: Write) -> None:
        self._slots = [_Slot.make(shape, device) for _ in range(2)]
        self._write = write
        self._rows: list[Rows] = []
        self._filled = 0
        self._flushed = time.monotonic()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="activations")
        self._writing: Future[None] | None = None

    def __enter__(self) -> "_Buffers":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._flush()
                self._wait()
        finally:
            self._pool.shutdown(cancel_futures=True)

    def begin(self, rows: Rows) -> None:
        """The values that come next are those of these rows."""
        late = time.monotonic() - self._flushed > _FLUSH_SECONDS
        if self._filled and (late or self._filled + len(rows) > self._slots[0].values.shape[1]):
            self._flush()
        self._rows.append(rows)
        self._filled += len(rows)

    def put(self, layer: int, values: Tensor) -> None:
        """Values of a layer, [rows, width]."""
        self._slots[0].values[layer, self._filled - len(values) : self._filled] = values

    def _flush(self) -> None:
        self._wait()
        if not self._filled:
            return
        rows, slot = np.concatenate(self._rows), self._slots[0]
        slot.start_copy(self._filled)
        self._writing = self._pool.submit(self._hand_out, slot, rows)
        self._slots.reverse()
        self._rows, self._filled, self._flushed = [], 0, time.monotonic()

    def _hand_out(self, slot: "_Slot", rows: Rows) -> None:
        self._write(rows, slot.finish_copy()[:, : len(rows)])

    def _wait(self) -> None:
        """Until the other buffer is free; raises what its writing raised."""
        if self._writing is not None:
            self._writing.result()
            self._writing = None


@dataclass
class _Slot:
    """A buffer on the device, and its copy in the host's memory (the same on a CPU)."""

    values: Tensor
    host: Tensor
    copied: Any = None

    @classmethod
    def make(cls, shape: tuple[int, int, int], device: torch.device) -> "_Slot":
        values = torch.empty(shape, dtype=torch.float32, device=device)
        if device.type == "cpu":
            return cls(values, values)
        return cls(values, torch.empty(shape, dtype=torch.float32, pin_memory=True))

    def start_copy(self, rows: int) -> None:
        if self.host is not self.values:
            for layer in range(len(self.values)):  # contiguous parts: others would be gathered on the device first
                self.host[layer, :rows].copy_(self.values[layer, :rows], non_blocking=True)
            self.copied = torch.cuda.Event()
            self.copied.record()

    def finish_copy(self) -> NDArray[np.float32]:
        if self.copied is not None:
            self.copied.synchronize()
        return self.host.numpy()

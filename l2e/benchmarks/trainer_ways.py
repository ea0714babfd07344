"""Ways to train one model on the same rows: each is made once and then trains `steps` timed updates at a call.

A timing runs from the end of a first update to the end of the last, so that what a trainer does at its start is in
none. All ways clip at 1.0 and use PyTorch's fused AdamW; weights are drawn from one seed.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from l2e.benchmarks.trainer_config import TrainerBenchmarkConfig
from l2e.data import StepLoader
from l2e.models import build_pythia
from l2e.training.blocks import prepare_blocks
from l2e.training.callbacks.metrics import MetricsCallback, MetricsFile, Sink
from l2e.training.callbacks.randomness import RandomnessCallback
from l2e.training.config import DeepSpeedConfig, TrainingConfig
from l2e.training.engine import Engine
from l2e.training.events import Callback
from l2e.training.trainer import Trainer

LR = 1e-4


class Way:
    """One way to train.

    Attributes:
        losses: of the updates so far, where the way tells them.
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.ends: list[float] = []

    def __call__(self) -> float:
        """Train; returns the seconds of the timed updates."""
        self.ends.clear()
        self.train()
        return self.ends[-1] - self.ends[0]

    def train(self) -> None:
        """One update and then the timed ones, with the time at the end of each in `ends`."""
        raise NotImplementedError

    def ended(self, device: torch.device) -> None:
        """An update is over: wait for the device where the clock starts or stops."""
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        self.ends.append(time.perf_counter())


class Rows:
    """Rows in memory, over and over."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows.numpy()

    def __len__(self) -> int:
        return 1 << 40

    def gather(self, positions: Sequence[int]) -> npt.NDArray[Any]:
        """The rows at `positions`."""
        return self.rows[[position % len(self.rows) for position in positions]]

    def prefetch(self, positions: Sequence[int]) -> None:
        """They are there."""

    def fingerprint(self) -> dict[str, Any]:
        """Made up."""
        return {}


class Ours(Way):
    """`l2e.training.Trainer` under DeepSpeed, with the metrics that every run writes."""

    def __init__(self, config: TrainerBenchmarkConfig, rows: Tensor, device: torch.device, folder: Path) -> None:
        super().__init__()
        self.config = config
        training = TrainingConfig(
            steps=1,
            batch_size=config.batch_size,
            micro_batch_size=config.micro_batch_size,
            seq_length=config.seq_length,
            lr=LR,
            schedule="cosine",
            warmup=0.0,
            lr_floor=1.0,
            weight_decay=0.0,
            precision=config.precision,
            compile=config.compile,
        )
        model = build_pythia(config.model, max_length=max(2048, config.seq_length))
        prepare_blocks(model, training)
        micro, parts = config.micro_batch_size, config.micro_batches
        zero = DeepSpeedConfig(stage=config.stage)
        engine = Engine(model, training, zero, micro_batch_size=micro, accumulation=parts, device=device)
        loader = StepLoader(Rows(rows), config.batch_size, micro, 0, 1)
        sinks: list[Sink] = [MetricsFile(folder / "metrics.jsonl"), self._tell]
        metrics = MetricsCallback(10, sinks, lambda trainer, speed: {})
        self.trainer = Trainer(engine, loader, training, [RandomnessCallback(1), metrics, _EndOfUpdate(self)])

    def train(self) -> None:
        """See `Way`."""
        self.trainer.config.steps = self.trainer.step + 1 + self.config.steps
        self.trainer.fit()

    def _tell(self, rows: list[Any]) -> None:
        self.losses += [row["loss"] for row in rows if "loss" in row]


class _EndOfUpdate(Callback):
    priority = 1000

    def __init__(self, way: Way) -> None:
        self.way = way

    def after_step(self, trainer: Trainer) -> None:
        self.way.ended(trainer.engine.device)


class BareLoop(Way):
    """Nothing but PyTorch and the model: the floor for a loop that computes all logits at once."""

    def __init__(self, config: TrainerBenchmarkConfig, rows: Tensor, device: torch.device) -> None:
        super().__init__()
        self.config, self.rows, self.device = config, rows, device
        self.model = build_pythia(config.model, max_length=max(2048, config.seq_length)).to(device).train()
        self.parameters = list(self.model.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=LR, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
        self.step = 0

    def train(self) -> None:
        """See `Way`."""
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")
        for _ in range(1 + self.config.steps):
            total = torch.zeros((), device=self.device)
            for tokens in self._micro_batches():
                with autocast:
                    loss = self.loss(tokens)
                (loss / self.config.micro_batches).backward()
                total += loss.detach() / self.config.micro_batches
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.losses.append(total.item())
            self.step += 1
            self.ended(self.device)

    def loss(self, tokens: Tensor) -> Tensor:
        """Of rows [micro-batch, seq + 1]."""
        logits = self.model(input_ids=tokens[:, :-1], use_cache=False).logits
        return F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())

    def _micro_batches(self) -> Iterator[Tensor]:
        size = self.config.micro_batch_size
        for part in range(self.config.micro_batches):
            first = (self.step * self.config.micro_batches + part) * size
            yield self.rows[[(first + i) % len(self.rows) for i in range(size)]].to(self.device)


class HuggingFace(Way):
    """`transformers.Trainer` with its own loss; a row's last token is no target of it."""

    def __init__(self, config: TrainerBenchmarkConfig, rows: Tensor, device: torch.device, folder: Path) -> None:
        super().__init__()
        import transformers

        way = self

        class Ends(transformers.TrainerCallback):
            def on_step_end(self, *args: Any, **kwargs: Any) -> None:
                way.ended(device)

            def on_log(self, *args: Any, logs: dict[str, float], **kwargs: Any) -> None:
                way.losses += [logs["loss"]] if "loss" in logs else []

        arguments = transformers.TrainingArguments(
            output_dir=str(folder),
            use_cpu=device.type == "cpu",
            bf16=config.precision == "bf16",
            max_steps=1 + config.steps,
            per_device_train_batch_size=config.micro_batch_size,
            gradient_accumulation_steps=config.micro_batches,
            learning_rate=LR,
            lr_scheduler_type="constant",
            optim="adamw_torch_fused",
            adam_beta2=0.95,
            weight_decay=0.0,
            max_grad_norm=1.0,
            logging_steps=1 + config.steps,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            train_sampling_strategy="sequential",
        )
        self.trainer = transformers.Trainer(
            model=build_pythia(config.model, max_length=max(2048, config.seq_length)),
            args=arguments,
            train_dataset=[{"input_ids": row[:-1], "labels": row[:-1]} for row in rows],
            callbacks=[Ends()],
        )
        self.trainer.remove_callback(transformers.PrinterCallback)

    def train(self) -> None:
        """See `Way`."""
        self.trainer.train()

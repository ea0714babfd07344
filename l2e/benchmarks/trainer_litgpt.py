"""litgpt's model and the loop of its pretraining (`litgpt.pretrain.fit`): Fabric, its own chunked cross-entropy."""

import torch
from torch import Tensor

from l2e.benchmarks.trainer_config import TrainerBenchmarkConfig
from l2e.benchmarks.trainer_ways import LR, Way
from l2e.models import pythia_size


class LitGpt(Way):
    """One device; weights drawn by litgpt.

    Raises:
        ImportError: litgpt is not installed, or has no such model.
    """

    def __init__(self, config: TrainerBenchmarkConfig, rows: Tensor, device: torch.device) -> None:
        super().__init__()
        import lightning
        import litgpt
        from litgpt.utils import chunked_cross_entropy

        try:
            shape = litgpt.Config.from_name(config.model, gelu_approximate="tanh", block_size=config.seq_length)
        except ValueError:
            raise ImportError(f"litgpt knows no model {config.model}") from None
        if shape.padded_vocab_size != pythia_size(config.model).vocab_size:
            raise ImportError(f"litgpt's {config.model} has {shape.padded_vocab_size} words")
        precision = "bf16-mixed" if config.precision == "bf16" else "32-true"
        self.config, self.device, self.loss = config, device, chunked_cross_entropy
        self.fabric = lightning.Fabric(accelerator=device.type, devices=1, precision=precision)
        with self.fabric.init_module():
            model = litgpt.GPT(shape)
        model.apply(model._init_weights)
        self.model = self.fabric.setup(torch.compile(model) if config.compile else model)
        self.optimizer = self.fabric.setup_optimizers(
            torch.optim.AdamW(self.model.parameters(), lr=LR, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
        )
        self.parts = rows.to(device).split(config.micro_batch_size)
        self.step = 0

    def train(self) -> None:
        """See `Way`."""
        count = self.config.micro_batches
        for _ in range(1 + self.config.steps):
            total = torch.zeros((), device=self.device)
            for part in range(count):
                tokens = self.parts[(self.step * count + part) % len(self.parts)]
                with self.fabric.no_backward_sync(self.model, enabled=part < count - 1):
                    loss = self.loss(self.model(tokens[:, :-1]), tokens[:, 1:])
                    self.fabric.backward(loss / count)
                total += loss.detach() / count
            self.fabric.clip_gradients(self.model, self.optimizer, max_norm=1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.losses.append(total.item())
            self.step += 1
            self.ended(self.device)

"""Weights & Biases."""

from pathlib import Path
from typing import Any

from l2e.training.callbacks.metrics import Row
from l2e.training.config import WandbConfig
from l2e.training.events import Callback
from l2e.training.trainer import Trainer


class WandbCallback(Callback):
    """Send metrics to a wandb run whose id survives restarts. Also a sink for metrics; rank 0 alone."""

    name = "wandb"

    def __init__(self, config: WandbConfig, run_name: str, folder: Path, settings: dict[str, Any]) -> None:
        self.config = config
        self.run_name = run_name
        self.folder = folder
        self.settings = settings
        self.id: str | None = None
        self._run: Any = None

    def before_training(self, trainer: Trainer) -> None:
        """Start, or continue, the run."""
        import wandb  # 0.3 s that runs without it are spared

        self._run = wandb.init(
            project=self.config.project,
            name=self.run_name,
            id=self.id,
            resume="allow" if self.id else None,
            mode=self.config.mode,
            dir=str(self.folder),
            config=self.settings,
            settings=wandb.Settings(silent=True),
        )
        self.id = self._run.id

    def __call__(self, rows: list[Row]) -> None:
        """Log each row at its step."""
        for row in rows:
            self._run.log({key: value for key, value in row.items() if key != "step"}, step=row["step"])

    def close(self, trainer: Trainer) -> None:
        """Finish the run, as failed if it is not at its end."""
        if self._run is not None:
            self._run.finish(exit_code=int(trainer.step < trainer.config.steps))

    def state_dict(self) -> dict[str, Any]:
        """The run's id."""
        return {"id": self.id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue that run."""
        self.id = state["id"]

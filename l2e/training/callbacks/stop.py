"""Stop at a signal, all ranks after the same update."""

import logging

from l2e.errors import Stopped
from l2e.training.callbacks.checkpoint import CheckpointCallback
from l2e.training.callbacks.metrics import MetricsCallback
from l2e.training.events import Callback
from l2e.training.ranks import HostGroup
from l2e.training.signals import StopSignals
from l2e.training.trainer import Trainer

log = logging.getLogger("l2e.training")


class StopCallback(Callback):
    """After each update: has any rank a signal? Then all write their metrics and a restart point, and stop.

    A batch system may signal one process, some, or all at different moments, so the ranks agree by a message
    on the host after every update. It is waited for there and then: the alternative, reading the answer one
    update later, would cost an update of the time that is left before the kill.

    Args:
        signals: what this process has received.
        ranks: asks the others.
        metrics: has rows that are not written yet.
        checkpoint: writes the restart point, whether or not it does so in the run.
    """

    priority = 300  # after the update's regular restart point

    def __init__(
        self, signals: StopSignals, ranks: HostGroup, metrics: MetricsCallback, checkpoint: CheckpointCallback
    ) -> None:
        self.signals = signals
        self.ranks = ranks
        self.metrics = metrics
        self.checkpoint = checkpoint

    def before_training(self, trainer: Trainer) -> None:
        """A signal during set-up: nothing has been trained, so nothing is saved."""
        stop_if_signalled(self.signals, self.ranks, "before the first update")

    def after_step(self, trainer: Trainer) -> None:
        """Stop if any rank has a signal; after the last update the export is there and nothing else is needed."""
        if not self.ranks.any(self.signals.received is not None):
            return
        self.metrics.flush(trainer)
        if trainer.step < trainer.config.steps:
            self.checkpoint.save(trainer)
        _stop(self.signals, f"after update {trainer.step} of {trainer.config.steps}")


def stop_if_signalled(signals: StopSignals, ranks: HostGroup, when: str) -> None:
    """Stop where nothing needs to be saved; every rank must ask.

    Raises:
        Stopped: on all ranks, if any has a signal.
    """
    if ranks.any(signals.received is not None):
        _stop(signals, when)


def _stop(signals: StopSignals, when: str) -> None:
    name = signals.received.name if signals.received is not None else "a signal on another rank"
    log.info("stopped by %s %s; the same command goes on from the newest restart point", name, when)
    raise Stopped

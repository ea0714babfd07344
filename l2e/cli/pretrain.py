"""One run: train, evaluate, report."""

import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from transformers import GPTNeoXForCausalLM

import l2e
from l2e.cli.evaluate_exports import evaluate_exports
from l2e.cli.logs import quieten_libraries, start_logging
from l2e.cli.offline import require_all_here
from l2e.cli.pretrain_config import PretrainConfig
from l2e.cli.run_callbacks import all_callbacks
from l2e.cli.run_data import check_items, open_data
from l2e.cli.run_folder import RunFolder, decisive, git_state, versions
from l2e.data import Corpus, StepLoader
from l2e.errors import UserError
from l2e.evaluation import check_evaluation_data
from l2e.inhibition import Inhibition
from l2e.models import build_pythia
from l2e.reporting import write_report
from l2e.settings import build_settings
from l2e.training.blocks import prepare_blocks
from l2e.training.callbacks.checkpoint import resume
from l2e.training.callbacks.inhibition import InhibitionCallback
from l2e.training.callbacks.randomness import RandomnessCallback
from l2e.training.callbacks.stop import stop_if_signalled
from l2e.training.dry_run import acting_at_once, dry_run
from l2e.training.engine import Engine, process_group
from l2e.training.launch import launched
from l2e.training.ranks import HostGroup, limit_waiting
from l2e.training.restart_points import Identity, check_layout, restart_points
from l2e.training.signals import StopSignals
from l2e.training.trainer import Trainer

log = logging.getLogger("l2e")


def run(tree: dict[str, Any], overrides: list[str]) -> None:
    """Train, evaluate and report as `tree` says; the entry of scripts/pretrain.py.

    Raises:
        UserError: impossible settings, bad data, or a run directory that holds something else.
    """
    config = build_settings(PretrainConfig, tree)
    tree = asdict(config)  # with every default, for the record
    folder = RunFolder(config.runs_dir, config.name)
    micro_batch = check(config, folder, tree)
    start_logging()
    quieten_libraries()
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    wait = timedelta(minutes=config.training.timeout_minutes)
    with StopSignals() as signals:
        with process_group(wait) as device:
            corpus = _main_rank_first(lambda: open_data(config))
            ranks = HostGroup(wait)
            stop_if_signalled(signals, ranks, "before the first update")
            if config.training.dry_run:
                return _dry_run(config, corpus, device, micro_batch, ranks)
            if dist.get_rank() == 0:
                check_items(config, corpus)
                folder.open(tree, overrides)
                start_logging(folder.log)
            _train(config, folder, tree, corpus, device, micro_batch, ranks, signals)
            main = dist.get_rank() == 0
        if main:  # on its own now: the other ranks are free to end
            with signals.interrupting():
                if config.evaluation.enabled and not config.evaluation.separate:
                    evaluate_exports(config, folder, corpus, device)
                report = write_report([folder.path], folder.path)
            log.info("report: %s", report)


def check(config: PretrainConfig, folder: RunFolder, tree: dict[str, Any]) -> int:
    """All that can be refused before anything is loaded; returns the micro-batch size."""
    try:
        micro_batch = config.training.micro_batch(launched().ranks)
    except ValueError as error:
        raise UserError(str(error)) from None
    if not config.training.dry_run:
        folder.check(tree)
        if not folder.export(config.training.steps).exists():
            check_layout(folder.checkpoints, launched().ranks, config.deepspeed.stage)
    if config.offline:
        require_all_here(config, _done(config, folder))
    if config.evaluation.enabled and config.evaluation.data_dir is not None:
        check_evaluation_data(config.evaluation)
    return micro_batch


def _done(config: PretrainConfig, folder: RunFolder) -> int:
    """Updates whose rows are not read again."""
    if folder.export(config.training.steps).exists():
        return config.training.steps
    return max((point.step for point in restart_points(folder.checkpoints)), default=0)


def _train(
    config: PretrainConfig,
    folder: RunFolder,
    tree: dict[str, Any],
    corpus: Corpus,
    device: torch.device,
    micro_batch: int,
    ranks: HostGroup,
    signals: StopSignals,
) -> None:
    """Train to the end, from the newest restart point if there is one."""
    training = config.training
    if folder.export(training.steps).exists():
        log.info("%s is trained already: %s", config.name, folder.export(training.steps))
        return
    loader, model, engine = _start_engine(config, corpus, device, micro_batch)
    inhibition = _attach(model, config)
    identity = _identity(config, tree, corpus)
    callbacks = all_callbacks(config, folder, tree, corpus, inhibition, identity, device, ranks, signals)
    trainer = Trainer(engine, loader, training, callbacks)
    done = resume(trainer, folder.checkpoints, identity)
    if dist.get_rank() == 0:
        folder.drop_metrics_after(done)
        folder.write_environment({"ranks": loader.ranks, "data": identity.data})
    _announce(config, corpus, trainer)
    try:
        trainer.fit()
    finally:
        engine.close()


def _identity(config: PretrainConfig, tree: dict[str, Any], corpus: Corpus) -> Identity:
    return Identity(
        config=decisive(tree),
        data=corpus.fingerprint(),
        ranks=dist.get_world_size(),
        stage=config.deepspeed.stage,
        precision=config.training.precision,
        versions=versions(),
        git=git_state(),
    )


def _dry_run(config: PretrainConfig, corpus: Corpus, device: torch.device, micro_batch: int, ranks: HostGroup) -> None:
    """Report what an update of these settings takes; no run directory is made or looked at."""
    loader, model, engine = _start_engine(config, corpus, device, micro_batch)
    inhibition = _attach(model, replace(config, inhibition=acting_at_once(config.inhibition)))
    callbacks = [RandomnessCallback(config.seed), InhibitionCallback(inhibition, config.logging.every)]
    try:
        dry_run(Trainer(engine, loader, config.training, callbacks), ranks)
    finally:
        engine.close()


def _start_engine(
    config: PretrainConfig, corpus: Corpus, device: torch.device, micro_batch: int
) -> tuple[StepLoader, GPTNeoXForCausalLM, Engine]:
    training = config.training
    loader = StepLoader(corpus.train, training.batch_size, micro_batch, dist.get_rank(), dist.get_world_size())
    model = _build_model(config)
    engine = Engine(
        model,
        training,
        config.deepspeed,
        micro_batch_size=micro_batch,
        accumulation=loader.accumulation,
        device=device,
    )
    limit_waiting(timedelta(minutes=training.timeout_minutes))
    return loader, model, engine


def _build_model(config: PretrainConfig) -> GPTNeoXForCausalLM:
    model = build_pythia(
        config.model.name,
        vocab_size=config.model.vocab_size,
        max_length=config.model.max_length,
        activation=config.model.activation,
        attention=config.model.attention,
        seed=config.seed,
    )
    prepare_blocks(model, config.training)
    return model


def _attach(model: GPTNeoXForCausalLM, config: PretrainConfig) -> Inhibition:
    try:
        return l2e.attach(model, **asdict(config.inhibition))
    except ValueError as error:
        raise UserError(f"inhibition.{error}") from None


def _announce(config: PretrainConfig, corpus: Corpus, trainer: Trainer) -> None:
    training, loader = config.training, trainer.loader
    parameters = sum(parameter.numel() for parameter in trainer.engine.model.parameters())
    log.info("%s: %s, %s parameters, %s", config.name, config.model.name, f"{parameters:,}", training.precision)
    log.info(
        "%d updates of %d x %d tokens (%d ranks x %d sequences x %d accumulated), %s rows of %s",
        training.steps,
        training.batch_size,
        training.seq_length,
        loader.ranks,
        loader.micro_batch_size,
        loader.accumulation,
        f"{len(corpus.train):,}",
        config.data.name,
    )
    if trainer.step:
        log.info("resumed after %d updates", trainer.step)


T = TypeVar("T")


def _main_rank_first(work: Callable[[], T]) -> T:
    """Do `work` on rank 0, then on the others: it writes files that they only read."""
    if dist.get_rank() == 0:
        result = work()
    dist.barrier()
    if dist.get_rank() != 0:
        result = work()
    return result

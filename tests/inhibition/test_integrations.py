"""The real transformers.Trainer against a plain loop with `l2e.attach`."""

import copy
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

import l2e
from l2e.inhibition.integrations import InhibitionCallback

SETTINGS = {"late_start": 1, "warmup": 1, "rate": 0.1, "reduction": "sequence", "weight": 0.05}
SIZES = {
    "vocab_size": 16,
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 8,
    "initializer_range": 0.2,
}
RATE = 0.1


def neox() -> nn.Module:
    torch.manual_seed(0)
    return GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES))


def llama() -> nn.Module:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES))


class Bare(nn.Module):
    """A model whose loss is the mean of its micro-batch, returned in a tuple or a plain dict."""

    def __init__(self, model: nn.Module, kind: type) -> None:
        super().__init__()
        self.model = model
        self.kind = kind

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> Any:
        output = self.model(input_ids=input_ids, labels=labels)
        kept = {key: output[key] for key in ("loss", "logits") if key in output}
        return kept if self.kind is dict else tuple(kept.values())


def rows(count: int, length: int = 6) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 16, (count, length), generator=generator)
    return [{"input_ids": row, "labels": row} for row in tokens]


DATA = rows(7 * 8)  # 7 micro-batches: the last update of an epoch has one where the others have two


def make_trainer(model: nn.Module, folder: Path, callbacks: list[TrainerCallback], **settings: Any) -> Trainer:
    arguments = {
        "output_dir": str(folder),
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "optim": "sgd",  # unlike Adam's, its step shows the gradient's scale
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0,
        "per_device_train_batch_size": 8,
        "train_sampling_strategy": "sequential",
        "num_train_epochs": 2,
        "logging_steps": 1,
        "save_strategy": "no",
        **settings,
    }
    options = {key: arguments.pop(key) for key in ("compute_loss_func", "eval_dataset") if key in arguments}
    data = arguments.pop("train_dataset", DATA)
    args = TrainingArguments(**arguments)
    return Trainer(model=model, args=args, train_dataset=data, callbacks=callbacks, **options)


def plain_loop(
    model: nn.Module, parts: int, data: list[dict[str, Tensor]] = DATA, **settings: Any
) -> tuple[list[float], list[dict[str, float]]]:
    """Two epochs without anything of transformers but the model; the losses and metrics of each update."""
    inhibition = l2e.attach(model, **{**SETTINGS, **settings})
    tokens = torch.stack([row["input_ids"] for row in data]).split(8)
    losses, metrics = [], []
    for _ in range(2):
        for start in range(0, len(tokens), parts):
            update = tokens[start : start + parts]
            model.zero_grad()
            losses.append(0.0)
            for part in update:
                logits = model(input_ids=part).logits[:, :-1]
                loss = nn.functional.cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten())
                ((loss + inhibition.penalty()) / len(update)).backward()
                losses[-1] += loss.item() / len(update)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= RATE * parameter.grad
            inhibition.step()
            metrics.append(inhibition.metrics())
    inhibition.remove()
    return losses, metrics


def largest_difference(one: nn.Module, two: nn.Module) -> float:
    pairs = zip(one.parameters(), two.parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


@pytest.mark.parametrize(
    ("make", "parts", "output"),
    [(neox, 1, None), (neox, 2, None), (llama, 1, None), (llama, 2, None), (neox, 2, tuple), (neox, 2, dict)],
)
def test_the_weights_are_those_of_a_plain_loop(
    make: Callable[[], nn.Module], parts: int, output: type | None, tmp_path: Path
) -> None:
    ours, plain, baseline = make(), make(), make()
    trained = ours if output is None else Bare(ours, output)  # the Trainer divides its loss by the micro-batches
    trainer = make_trainer(trained, tmp_path, [InhibitionCallback(**SETTINGS)], gradient_accumulation_steps=parts)
    trainer.train()
    losses, metrics = plain_loop(plain, parts)
    plain_loop(baseline, parts, method="none")

    assert largest_difference(ours, plain) < 2e-5
    assert largest_difference(plain, baseline) > 0.02  # the penalty is seen
    logged = [record for record in trainer.state.log_history if "loss" in record]
    assert len(logged) == len(losses) == 2 * math.ceil(7 / parts)
    for record, loss, expected in zip(logged, losses, metrics, strict=True):
        assert record["loss"] == pytest.approx(loss, rel=1e-5)  # without the penalty
        found = {key.removeprefix("inhibition/"): v for key, v in record.items() if key.startswith("inhibition/")}
        assert found == pytest.approx({k: v for k, v in expected.items() if not math.isnan(v)}, rel=1e-3)
    assert not any(key.startswith("inhibition/") for key in logged[0])  # all NaN
    assert 0 < logged[-1]["inhibition/block1/selected"] < 0.3
    assert logged[-1]["inhibition/block2/strength"] > 0


@pytest.mark.parametrize(
    ("settings", "arguments"),
    [
        ({"method": "memel", "weight": None}, {}),
        ({"strength": 0.3, "weight": None}, {}),
        ({}, {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}),
        ({}, {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}),
    ],
    ids=["memel", "strength", "recomputed", "recomputed-reentrant"],
)
def test_so_they_are_with_other_settings(settings: dict[str, Any], arguments: dict[str, Any], tmp_path: Path) -> None:
    ours, plain, baseline = neox(), neox(), neox()
    callback = InhibitionCallback(**{**SETTINGS, **settings})
    make_trainer(ours, tmp_path, [callback], gradient_accumulation_steps=2, **arguments).train()
    _, metrics = plain_loop(plain, 2, **settings)
    plain_loop(baseline, 2, method="none")
    assert largest_difference(ours, plain) < 2e-5
    assert largest_difference(plain, baseline) > 0.02
    assert callback.inhibition.metrics() == pytest.approx(metrics[-1], rel=1e-3)


class Recorder(TrainerCallback):
    """Keeps the logs that a reporter after the InhibitionCallback sees."""

    def __init__(self) -> None:
        self.logs: list[dict[str, float]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        self.logs.append(dict(logs))


def test_later_callbacks_see_the_metrics_and_evaluation_records_have_none(tmp_path: Path) -> None:
    recorder = Recorder()
    callbacks = [recorder, InhibitionCallback(**SETTINGS)]
    settings = {"eval_strategy": "epoch", "eval_dataset": rows(8)}
    trainer = make_trainer(neox(), tmp_path, callbacks, **settings)
    trainer.callback_handler.callbacks.insert(0, trainer.pop_callback(InhibitionCallback))  # as docs/plug-in.md has it
    trainer.train()
    for seen, kept in zip(recorder.logs, trainer.state.log_history, strict=True):
        assert kept == {**seen, "step": kept["step"]}
        assert any("inhibition/" in key for key in seen) == ("loss" in seen and kept["step"] > 1)


class Peeker(TrainerCallback):
    """Looks at the model before each update, without labels."""

    def on_step_begin(self, args: Any, state: Any, control: Any, model: nn.Module, **kwargs: Any) -> None:
        tokens = torch.zeros(2, 3, dtype=torch.int64)
        assert model.eval()(input_ids=tokens).logits.shape == (2, 3, 16)
        with torch.no_grad():
            assert model.train()(input_ids=tokens).logits.shape == (2, 3, 16)


def test_evaluation_changes_nothing_and_sees_the_plain_model(tmp_path: Path) -> None:
    quiet, evaluated = neox(), neox()
    one, two = InhibitionCallback(**SETTINGS), InhibitionCallback(**SETTINGS)
    make_trainer(quiet, tmp_path / "quiet", [one]).train()
    settings = {"eval_strategy": "steps", "eval_steps": 1, "eval_on_start": True, "eval_dataset": rows(16, length=4)}
    trainer = make_trainer(evaluated, tmp_path / "evaluated", [two, Peeker()], **settings)
    trainer.train()
    assert largest_difference(quiet, evaluated) == 0
    assert_equal(one.inhibition.state_dict(), two.inhibition.state_dict())
    losses = [record["eval_loss"] for record in trainer.state.log_history if "eval_loss" in record]
    assert len(losses) == 15
    assert trainer.evaluate()["eval_loss"] == losses[-1]  # the taps are off by now
    tokens = torch.stack([row["input_ids"] for row in rows(16, length=4)])
    logits = evaluated(input_ids=tokens).logits[:, :-1]
    expected = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).item()
    assert losses[-1] == pytest.approx(expected, rel=1e-5)


def assert_equal(one: Any, two: Any) -> None:
    """Equal to the bit, whatever is nested in what."""
    assert type(one) is type(two)
    if isinstance(one, Tensor):
        torch.testing.assert_close(one, two, rtol=0, atol=0, equal_nan=True)
    elif isinstance(one, dict):
        assert one.keys() == two.keys()
        for key, value in one.items():
            assert_equal(value, two[key])
    elif isinstance(one, list | tuple):
        for a, b in zip(one, two, strict=True):
            assert_equal(a, b)
    else:
        assert one == two or one != one


def from_checkpoint(folder: Path) -> nn.Module:
    return GPTNeoXForCausalLM.from_pretrained(folder)


def overwritten_llama(folder: Path) -> nn.Module:
    """A model with other weights, which the Trainer overwrites with those of the checkpoint."""
    model = llama()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.5)
    return model


# transformers 5.23 resumes a GPT-NeoX with the lm_head that it is given: it looks for it under another name than it
# was saved under (issue 43701), so docs/plug-in.md has the model made from the checkpoint.
@pytest.mark.parametrize(("make", "again"), [(neox, from_checkpoint), (llama, overwritten_llama)])
def test_resumed_within_an_epoch_equals_uninterrupted_bitwise(
    make: Callable[[], nn.Module], again: Callable[[Path], nn.Module], tmp_path: Path
) -> None:
    settings = {"save_strategy": "steps", "save_steps": 3, "gradient_accumulation_steps": 2}
    whole, first = make(), InhibitionCallback(**SETTINGS)
    make_trainer(whole, tmp_path, [first], **settings).train()
    checkpoint = tmp_path / "checkpoint-3"
    assert sorted(file.name for file in checkpoint.glob("*inhibition*")) == ["inhibition.pt"]

    resumed, second = again(checkpoint), InhibitionCallback(**SETTINGS)
    trainer = make_trainer(resumed, tmp_path, [second], **settings)
    trainer.train(resume_from_checkpoint=str(checkpoint))
    assert trainer.state.global_step == 8
    assert largest_difference(whole, resumed) == 0
    assert_equal(first.inhibition.state_dict(), second.inhibition.state_dict())

    # The statistics matter: with those of another moment the weights become others.
    other = again(checkpoint)
    callback = InhibitionCallback(**SETTINGS, resume_from=tmp_path / "checkpoint-6" / "inhibition.pt")
    make_trainer(other, tmp_path, [callback], **settings).train(resume_from_checkpoint=str(checkpoint))
    assert largest_difference(whole, other) > 1e-4

    # From a folder that was moved.
    moved = again(checkpoint)
    checkpoint.rename(tmp_path / "moved")
    callback = InhibitionCallback(**SETTINGS, resume_from=tmp_path / "moved")
    trainer = make_trainer(moved, tmp_path / "elsewhere", [callback], **settings)
    trainer.train(resume_from_checkpoint=str(tmp_path / "moved"))
    assert largest_difference(whole, moved) == 0


def test_a_missing_state_is_refused(tmp_path: Path) -> None:
    settings = {"save_strategy": "steps", "save_steps": 3}
    make_trainer(neox(), tmp_path, [InhibitionCallback(**SETTINGS)], max_steps=3, **settings).train()
    (tmp_path / "checkpoint-3" / "inhibition.pt").unlink()
    trainer = make_trainer(neox(), tmp_path, [InhibitionCallback(**SETTINGS)], **settings)
    with pytest.raises(FileNotFoundError, match=r"resuming at step 3 needs .*checkpoint-3.inhibition\.pt"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    gone = InhibitionCallback(**SETTINGS, resume_from=tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=r"resuming at step 0 needs .*gone"):
        make_trainer(neox(), tmp_path, [gone]).train()


def test_the_saved_model_is_the_plain_one(tmp_path: Path) -> None:
    model = neox()
    trainer = make_trainer(model, tmp_path, [InhibitionCallback(**SETTINGS)], max_steps=4, save_strategy="steps")
    trainer.train()
    trainer.save_model(str(tmp_path / "final"))
    neox().save_pretrained(tmp_path / "plain")
    plain = load_file(tmp_path / "plain" / "model.safetensors")
    for folder in ("checkpoint-4", "final"):
        saved = load_file(tmp_path / folder / "model.safetensors")
        assert {key: value.shape for key, value in saved.items()} == {key: v.shape for key, v in plain.items()}
        assert largest_difference(model, GPTNeoXForCausalLM.from_pretrained(tmp_path / folder)) == 0
    assert not any(module._forward_hooks for module in model.modules())


def test_training_again_taps_once(tmp_path: Path) -> None:
    """As after an error, or with auto_find_batch_size, which starts anew without an on_train_end."""
    model, callback = neox(), InhibitionCallback(**SETTINGS)
    trainer = make_trainer(model, tmp_path, [callback], max_steps=2)
    args = (trainer.args, TrainerState(), TrainerControl())
    counts = []
    for _ in range(2):
        callback.on_train_begin(*args, model=model)
        counts.append([len(layer._forward_hooks) for layer in model.gpt_neox.layers] + [len(model._forward_hooks)])
    assert counts[0] == counts[1]
    assert counts[0][:4] == [0, 1, 1, 0]
    trainer.train()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def cross_entropy(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | None = None) -> Tensor:
    logits = outputs["logits"][:, :-1]
    return nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())


class OwnLoss(Trainer):
    """Computes the loss beside the model's."""

    def compute_loss(self, model: nn.Module, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
        return cross_entropy(model(**inputs), inputs["labels"])


def test_what_would_lose_the_penalty_is_refused(tmp_path: Path) -> None:
    callback = InhibitionCallback(**SETTINGS)
    with pytest.raises(ValueError, match="label_smoothing_factor"):
        make_trainer(neox(), tmp_path, [callback], label_smoothing_factor=0.1).train()
    assert callback.inhibition is None
    with pytest.raises(ValueError, match=r"GPTNeoXForCausalLM returned no loss.*compute_loss_func"):
        make_trainer(neox(), tmp_path, [callback], compute_loss_func=cross_entropy).train()
    with pytest.raises(ValueError, match="Bare returned no loss"):
        make_trainer(Bare(neox(), tuple), tmp_path, [callback], compute_loss_func=cross_entropy).train()
    trainer = make_trainer(neox(), tmp_path, [callback])
    trainer.__class__ = OwnLoss
    with pytest.raises(ValueError, match="the penalty got no gradient"):
        trainer.train()
    observer = InhibitionCallback(**{**SETTINGS, "weight": 0.0})  # has no penalty to lose
    make_trainer(neox(), tmp_path, [observer], compute_loss_func=cross_entropy, max_steps=3).train()
    assert 0 < observer.inhibition.metrics()["block1/selected"] < 0.3


def test_what_is_not_data_parallel_is_refused(tmp_path: Path) -> None:
    callback, model = InhibitionCallback(**SETTINGS), neox()
    args = make_trainer(model, tmp_path, [callback]).args
    two_gpus, tensor_parallel = copy.copy(args), copy.copy(args)
    two_gpus._n_gpu = 2
    tensor_parallel.parallelism_config = SimpleNamespace(non_data_parallel_size=2)
    for changed, message in [(two_gpus, "torchrun"), (tensor_parallel, "parallelism_config")]:
        with pytest.raises(ValueError, match=message):
            callback.on_train_begin(changed, TrainerState(), TrainerControl(), model=model)
    assert not any(module._forward_hooks for module in model.modules())


TWO_RANKS = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
rank = int(os.environ["RANK"])
torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[2]}/meet", rank=rank, world_size=2)
from test_integrations import LONG, SETTINGS, make_trainer, neox
from l2e.inhibition.integrations import InhibitionCallback
for average in (True, False):
    model, folder, callback = neox(), Path(sys.argv[2]) / str(average), InhibitionCallback(**SETTINGS)
    settings = {"gradient_accumulation_steps": 2, "train_dataset": LONG, "save_strategy": "epoch"}
    trainer = make_trainer(model, folder, [callback], average_tokens_across_devices=average, **settings)
    trainer.train()
    assert trainer.args.world_size == 2
    if trainer.is_world_process_zero():
        torch.save({"weights": model.state_dict(), "metrics": callback.inhibition.metrics()}, folder / "out.pt")
    torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""
LONG = rows(16 * 8)


def test_two_ranks_equal_a_plain_loop(tmp_path: Path) -> None:
    script = tmp_path / "ranks.py"
    script.write_text(TWO_RANKS)
    command = [sys.executable, str(script), str(Path(__file__).parent), str(tmp_path)]
    both = {**os.environ, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    processes = [
        subprocess.Popen(command, env={**both, "RANK": rank, "LOCAL_RANK": rank}, stdout=subprocess.DEVNULL)
        for rank in ("0", "1")
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    plain = neox()
    _, metrics = plain_loop(plain, 4, LONG)  # two micro-batches on each of two ranks
    for average in ("True", "False"):  # how the Trainer scales the loss; the gradient is the same
        found = torch.load(tmp_path / average / "out.pt", weights_only=True)
        for name, parameter in plain.state_dict().items():
            torch.testing.assert_close(found["weights"][name], parameter, rtol=1e-4, atol=2e-5)
        assert found["metrics"] == pytest.approx(metrics[-1], rel=1e-3)
        assert (tmp_path / average / "checkpoint-8" / "inhibition.pt").is_file()

"""lm-eval 0.4 as a library: its model class, task manager and evaluation loop.

The loop is `lm_eval.evaluate`, not `simple_evaluate`: that one seeds the global random generators for good, which
would change a training that goes on afterwards, and returns None on any process whose LOCAL_RANK is not 0.
"""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import lm_eval
import torch
import torch.distributed as dist
import transformers
from lm_eval.evaluator_utils import get_sample_size
from lm_eval.models import huggingface
from lm_eval.models.huggingface import HFLM, pad_and_concat
from lm_eval.tasks import TaskManager

from l2e.errors import UserError
from l2e.evaluation.config import EvaluationConfig
from l2e.evaluation.contained import replaced
from l2e.evaluation.tasks import default_task_manager, write_task_files
from l2e.inhibition import InhibitionInEvaluation

_CPU_BATCH = 16  # lm-eval's search for the largest batch that fits ends in a killed process where memory is the CPU's


class LanguageModel(HFLM):
    """lm-eval's Hugging Face model; it shares its work with other ranks and remembers what did not fit.

    Every rank builds all requests, so that few-shot contexts are those of a single process (lm-eval draws them in
    sequence), scores its share of them and hands its answers to all others.

    Log-probabilities are taken in float32 whatever the model's precision (`softmax_dtype=float32`). By default
    lm-eval keeps bfloat16, where a sum near -40 moves in steps of 0.25: choices then tie, and a tie counts as
    the first choice, which in SciQ is never the right one.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        batch_size: int | None,
        max_length: int | None,
        acting: InhibitionInEvaluation | None = None,
    ) -> None:
        limit = max_length or model.config.max_position_embeddings
        tokenizer = copy.deepcopy(tokenizer)  # lm-eval sets a padding token on it
        automatic = "auto" if next(model.parameters()).device.type == "cuda" else _CPU_BATCH
        super().__init__(
            pretrained=model,
            tokenizer=tokenizer,
            batch_size=batch_size or automatic,
            max_length=limit,
            softmax_dtype="float32",
        )
        self.shortened: set[tuple[str, str]] = set()
        self._acting = acting
        self._lengths: list[int] | None = None

    def _loglikelihood_tokens(self, requests: Any, *args: Any, **kwargs: Any) -> Any:
        """Here lm-eval has tokens and cuts them: it keeps the last max_length + 1."""
        for texts, context, continuation in requests:
            if len(continuation) > self.max_length:
                raise UserError(
                    f"a choice of {len(continuation)} tokens does not fit the model's {self.max_length}: "
                    f"{texts[1][:80]!r}...; evaluate with a longer max_length or leave the task out"
                )
            if len(context) + len(continuation) > self.max_length + 1:
                self.shortened.add(texts)
        with replaced(huggingface, "pad_and_concat", self._pad):
            return _shared(
                requests, lambda mine: super(LanguageModel, self)._loglikelihood_tokens(mine, *args, **kwargs)
            )

    def _pad(self, length: int, sequences: list[torch.Tensor], **how: Any) -> torch.Tensor:
        """lm-eval pads with 0, which may be a token too: what is padding is known here alone."""
        self._lengths = [len(sequence) for sequence in sequences]
        return pad_and_concat(length, sequences, **how)

    def _model_call(self, *args: Any, **kwargs: Any) -> Any:
        lengths, self._lengths = self._lengths, None  # the search for a batch size runs batches without padding
        if self._acting is not None:
            self._acting.lengths = lengths
        return super()._model_call(*args, **kwargs)

    def generate_until(self, requests: Any, *args: Any, **kwargs: Any) -> Any:
        """Continuations, of tasks that ask for text."""
        if self._acting is not None:
            raise UserError(
                "evaluation.inhibited: a task of evaluation.tasks asks the model to write, and the inhibition can act "
                "only where given choices are scored; leave that task out"
            )
        return _shared(requests, lambda mine: super(LanguageModel, self).generate_until(mine, *args, **kwargs))


def _shared(requests: Sequence[Any], answer: Callable[[Sequence[Any]], Sequence[Any]]) -> list[Any]:
    """The answers to all requests, where each rank answers every ranks-th of them."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return list(answer(requests))
    rank, ranks = dist.get_rank(), dist.get_world_size()
    mine = requests[rank::ranks]
    parts: list[Any] = [None] * ranks
    dist.all_gather_object(parts, list(answer(mine)) if mine else [])
    answers: list[Any] = [None] * len(requests)
    for start, part in enumerate(parts):
        answers[start::ranks] = part
    return answers


def task_manager(config: EvaluationConfig, folder: Path) -> Any:
    """The source of the tasks: files written to `folder` for local data, else all that lm-eval packages."""
    if config.data_dir is None:
        return default_task_manager()
    write_task_files(config, folder)
    return TaskManager(include_path=str(folder), include_defaults=False)


class Questions:
    """What one name of `evaluation.tasks` asks with so many examples; built once, for any number of models.

    A name may stand for a group of tasks (`mmlu`).
    """

    def __init__(self, manager: Any, name: str, config: EvaluationConfig, shots: int, seed: int) -> None:
        self.name = name
        self.shots = shots
        self._limit = config.limit
        self._loaded = _load(manager, name, config)
        for task in self._tasks:
            if task.get_config("num_fewshot") != 0:  # a task that fixes 0 keeps it, as on lm-eval's command line
                task.set_config(key="num_fewshot", value=shots)
            task.set_fewshot_seed(seed=seed)
            task.build_all_requests(limit=get_sample_size(task, config.limit))
            task.build_all_requests = _already_built

    def identity(self) -> list[Any]:
        """All that is asked: tasks with their versions, and for each item its prompts, choices and right answer."""
        return [
            [task.config.task, str(task.VERSION), [[i.doc_id, i.idx, i.request_type, i.args, i.doc] for i in found]]
            for task in self._tasks
            for found in [task.instances]
        ]

    def ask(self, model: LanguageModel) -> dict[str, Any]:
        """lm-eval's results with its samples."""
        for task in self._tasks:
            for instance in task.instances:  # the answers of the model before
                instance.resps, instance.filtered_resps = [], {}
        # 100,000, lm-eval's default, matters to metrics without a closed-form error only; accuracies have one.
        return lm_eval.evaluate(lm=model, task_dict=self._loaded, limit=self._limit, bootstrap_iters=1000)

    @property
    def _tasks(self) -> list[Any]:
        return list(self._loaded["tasks"].values())


def _already_built(**_: Any) -> None:
    """In place of a task's own method, which would build its requests again for each model."""


def _load(manager: Any, name: str, config: EvaluationConfig) -> Any:
    try:
        loaded = manager.load([name])
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        hint = "; is the hub within reach? evaluation.data_dir reads local files" if config.data_dir is None else ""
        raise UserError(f"evaluation.tasks: lm-eval cannot load {name} ({error.__cause__ or error}){hint}") from error
    for task_name, task in loaded["tasks"].items():
        if config.data_dir is not None and "Value('timestamp" in str(task.eval_docs.features):
            raise UserError(
                f"{task_name}: all texts of a field are dates, which datasets rewrites; word one differently"
            )
    return loaded


def provenance(
    model: LanguageModel, config: EvaluationConfig, shots: int, seed: int, inhibited: str | None = None
) -> dict[str, Any]:
    """Versions, settings, and the command line that gives the same numbers; there is none for an inhibited model."""
    limit = f" --limit {config.limit}" if config.limit else ""
    include = " --include_path tasks" if config.data_dir else ""
    return {
        "lm_eval_version": lm_eval.__version__,
        "transformers_version": transformers.__version__,
        "torch_version": torch.__version__,
        "config": {
            **model.get_model_info(),
            "batch_size": model.batch_size_per_gpu,
            "limit": config.limit,
            "max_length": model.max_length,
            "softmax_dtype": "float32",
            "fewshot_seed": seed,
            "inhibited": inhibited,
        },
        "reproduce": None
        if inhibited
        else (
            f"lm_eval run{include} --tasks {' '.join(config.tasks)} --num_fewshot {shots}{limit} "
            f"--seed 0,1234,1234,{seed} --batch_size {model.batch_size_per_gpu} --model hf "
            f"--model_args pretrained=<exported folder>,max_length={model.max_length},softmax_dtype=float32"
        ),
    }

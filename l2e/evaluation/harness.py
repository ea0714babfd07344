"""lm-eval 0.4 as a library: its model class, task manager and evaluation loop.

The loop is `lm_eval.evaluate`, not `simple_evaluate`: that one seeds the global random generators for good, which
would change a training that goes on afterwards, and returns None on any process whose LOCAL_RANK is not 0.
"""

import copy
from pathlib import Path
from typing import Any

import datasets
import lm_eval
import torch
import transformers
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from l2e.errors import UserError
from l2e.evaluation.config import EvaluationConfig
from l2e.evaluation.tasks import default_task_manager, write_task_files


class LanguageModel(HFLM):
    """lm-eval's Hugging Face model; it also remembers what did not fit.

    Log-probabilities are taken in float32 whatever the model's precision (`softmax_dtype=float32`). By default
    lm-eval keeps bfloat16, where a sum near -40 moves in steps of 0.25: choices then tie, and a tie counts as
    the first choice, which in SciQ is never the right one.
    """

    def __init__(self, model: Any, tokenizer: Any, batch_size: int, max_length: int | None) -> None:
        limit = max_length or model.config.max_position_embeddings
        tokenizer = copy.deepcopy(tokenizer)  # lm-eval sets a padding token on it
        super().__init__(
            pretrained=model,
            tokenizer=tokenizer,
            batch_size=batch_size,
            max_length=limit,
            softmax_dtype="float32",
        )
        self.shortened: set[tuple[str, str]] = set()

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
        return super()._loglikelihood_tokens(requests, *args, **kwargs)


def task_manager(config: EvaluationConfig, folder: Path) -> Any:
    """The source of the tasks: files written to `folder` for local data, else all that lm-eval packages."""
    if config.data_dir is None:
        return default_task_manager()
    write_task_files(config, folder)
    return TaskManager(include_path=str(folder), include_defaults=False)


def run(model: LanguageModel, manager: Any, config: EvaluationConfig, shots: int, seed: int) -> dict[str, Any]:
    """Run every task with `shots` examples; lm-eval's results with its samples."""
    loaded = _load(manager, config)
    for task in loaded["tasks"].values():
        if task.get_config("num_fewshot") != 0:  # a task that fixes 0 keeps it, as on lm-eval's command line
            task.set_config(key="num_fewshot", value=shots)
        task.set_fewshot_seed(seed=seed)
    # 100,000, lm-eval's default, matters to metrics without a closed-form error only; accuracies have one.
    raw = lm_eval.evaluate(lm=model, task_dict=loaded, limit=config.limit, bootstrap_iters=1000)
    return {**raw, **_provenance(model, config, shots, seed)}


def _load(manager: Any, config: EvaluationConfig) -> Any:
    names = ", ".join(config.tasks)
    try:
        loaded = manager.load(list(config.tasks))
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        hint = "; is the hub within reach? evaluation.data_dir reads local files" if config.data_dir is None else ""
        raise UserError(f"evaluation.tasks: lm-eval cannot load {names} ({error.__cause__ or error}){hint}") from error
    for name, task in loaded["tasks"].items():
        if config.data_dir is not None and "Value('timestamp" in str(task.eval_docs.features):
            raise UserError(f"{name}: all texts of a field are dates, which datasets rewrites; word one differently")
    return loaded


def _provenance(model: LanguageModel, config: EvaluationConfig, shots: int, seed: int) -> dict[str, Any]:
    limit = f" --limit {config.limit}" if config.limit else ""
    include = " --include_path tasks" if config.data_dir else ""
    return {
        "lm_eval_version": lm_eval.__version__,
        "transformers_version": transformers.__version__,
        "torch_version": torch.__version__,
        "config": {
            **model.get_model_info(),
            "batch_size": config.batch_size,
            "limit": config.limit,
            "max_length": model.max_length,
            "softmax_dtype": "float32",
            "fewshot_seed": seed,
        },
        "reproduce": (
            f"lm_eval run{include} --tasks {' '.join(config.tasks)} --num_fewshot {shots}{limit} "
            f"--seed 0,1234,1234,{seed} --batch_size {config.batch_size} --model hf "
            f"--model_args pretrained=<exported folder>,max_length={model.max_length},softmax_dtype=float32"
        ),
    }

"""Whether all is here that a run without network needs."""

from pathlib import Path

from l2e.cli.preparation.overrides import data_overrides, evaluation_overrides, quoted
from l2e.cli.preparation.tokenizer import tokenizer_of
from l2e.cli.pretrain_config import PretrainConfig
from l2e.data import DataConfig, PileDataConfig
from l2e.data.corpus import open_shards
from l2e.data.remote_shards import is_remote
from l2e.data.stored_rows import absent_blocks
from l2e.errors import UserError
from l2e.evaluation import EvaluationConfig
from l2e.evaluation.hub_items import missing_items


def require_all_here(config: PretrainConfig, done: int) -> None:
    """Refuse a run that would look for something on a network, before it starts.

    Args:
        config: of the run.
        done: updates that need no rows any more.

    Raises:
        UserError: names all that is missing, and the command that fetches it.
    """
    training = config.training
    rows = range(done * training.batch_size, training.steps * training.batch_size)
    cache = Path(config.cache_dir)
    lacking = {
        "tokenizer": missing_tokenizer(config.data),
        "rows": missing_rows(config.data, rows, cache),
        "evaluation": _missing_items(config.evaluation),
    }
    wanted = {"step": done, "steps": training.steps - done, "batch_size": training.batch_size}
    settings = {
        "tokenizer": [],
        "rows": [f"{key}={value}" for key, value in wanted.items() if value],
        "evaluation": evaluation_overrides(config.evaluation),
    }
    common = [*data_overrides(config.data), f"seq_length={training.seq_length}"]
    _refuse(lacking, cache, common + [given for part in lacking if lacking[part] for given in settings[part]])


def require_items_here(evaluation: EvaluationConfig) -> None:
    """The same for an evaluation alone.

    Raises:
        UserError: names all items that are missing, and the command that fetches them.
    """
    _refuse({"evaluation": missing_items(evaluation)}, Path("prepared"), evaluation_overrides(evaluation))


def missing_tokenizer(data: DataConfig) -> list[str]:
    """A tokenizer on the hub that the Hugging Face cache does not hold."""
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    name = tokenizer_of(data)
    if name is None:
        return []
    try:
        if isinstance(try_to_load_from_cache(name, "tokenizer.json"), str):
            return []
    except HFValidationError:
        return [f"the tokenizer: there is no folder {name}"]
    return [f"the tokenizer: {name} is no folder, and not in {constants.HF_HUB_CACHE}"]


def missing_rows(data: DataConfig, rows: range, cache_dir: Path) -> list[str]:
    """Blocks of remote rows that the cache does not hold."""
    if not isinstance(data, PileDataConfig) or not rows:
        return []
    if not is_remote(data.path):
        return [] if Path(data.path).is_dir() else [f"the rows: there is no folder {data.path}"]
    try:
        shards = open_shards(data, cache_dir, offline=True)
    except UserError as error:
        return [f"the rows: {error}"]
    try:
        wanted = range(rows.start, min(rows.stop, len(shards)))  # a run beyond the end is refused elsewhere
        absent = len(absent_blocks(shards, wanted))
        if not absent:
            return []
        return [
            f"the rows: of the {len(shards.blocks(wanted)):,} blocks that hold rows {wanted.start:,} to "
            f"{wanted.stop:,}, {cache_dir} lacks {absent:,}"
        ]
    finally:
        shards.close()


def _missing_items(evaluation: EvaluationConfig) -> list[str]:
    return [f"evaluation: {line}" for line in missing_items(evaluation)] if evaluation.enabled else []


def _refuse(lacking: dict[str, list[str]], place: Path, settings: list[str]) -> None:
    lines = [f"  - {line}" for found in lacking.values() for line in found]
    if not lines:
        return
    parts = [part for part, found in lacking.items() if found]
    wanted = ",".join(parts)
    command = " ".join(["python scripts/prepare.py", f"fetch=[{wanted}]", f"folder={quoted(str(place))}", *settings])
    raise UserError(
        "offline=true, and not here are\n"
        + "\n".join(lines)
        + f"\nfetch it where there is a network, and start with the overrides that this prints:\n  {command}"
    )

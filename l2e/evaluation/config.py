"""What to evaluate a checkpoint on."""

from dataclasses import dataclass


@dataclass(kw_only=True)
class EvaluationConfig:
    """Settings of the lm-eval stage, the group `evaluation` of the configuration."""

    enabled: bool = True
    """Evaluate at all. Whoever calls the stage looks at this; the stage itself does not."""

    tasks: list[str]
    """Task names, e.g. `[arc_challenge, arc_easy, piqa, sciq]` or `[world_arc, world_piqa, world_sciq]`."""

    num_fewshot: int | list[int] = 0
    """Number of solved examples before each question. A list is run in turn, e.g. `[0, 5]`."""

    limit: int | None = None
    """Only the first `limit` items of each task; null takes all of them."""

    data_dir: str | None = None
    """Folder with `<task>/<split>.jsonl`; null takes lm-eval's own source, the Hugging Face hub."""

    batch_size: int | None = 16
    """Requests (one for each choice of an item) in one forward pass; null: the largest that fits a GPU, 16 on a CPU."""

    initial: bool = False
    """Evaluate the untrained model too. The pipeline looks at this; the stage itself does not."""

    inhibited: bool = False
    """Evaluate with the inhibition active at test time as well (M22, "-T"), for methods that edit activations."""

    separate: bool = False
    """Leave it to another job (slurm/evaluate.sbatch); training exports what that one needs. For the pipeline, too."""

    def __post_init__(self) -> None:
        """Refuse what no run could mean."""
        if not self.tasks or not all(name.strip() for name in self.tasks):
            raise ValueError("tasks must name at least one, e.g. [arc_easy, piqa]; enabled=false skips evaluation")
        if len(set(self.tasks)) != len(self.tasks):
            raise ValueError(f"tasks must name each task once, not {', '.join(self.tasks)}")
        if not self.shots or min(self.shots) < 0 or len(set(self.shots)) != len(self.shots):
            raise ValueError(
                f"num_fewshot must be 0 or more, or a list of different such numbers, not {self.num_fewshot}"
            )
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1 item, or null for all of them, not {self.limit}")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1 or null, not {self.batch_size}")

    @property
    def shots(self) -> list[int]:
        """The numbers of few-shot examples, in the order they are run."""
        return [self.num_fewshot] if isinstance(self.num_fewshot, int) else list(self.num_fewshot)

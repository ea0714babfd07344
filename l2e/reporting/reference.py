"""An evaluation of a public Pythia checkpoint held against its published accuracies (method.md 2.20).

An accuracy is a whole number of right items, so four printed digits say which number. A difference can have two causes
that are no mistake: 0-shot the prompts are the same in every version of lm-eval, and only rounding (precision, kernels)
moves items whose choices nearly tie; with examples, other versions draw others. What is taken for explained is a
judgement: one standard error of the accuracy 0-shot, two of the difference of two independent draws with examples. With
the same items and weights both are wide; a wrong prompt, split or metric shows as several (the papers' own 5-shot SciQ
is 15 to 43 away).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from l2e.errors import UserError
from l2e.evaluation import EvaluationConfig, TaskResult
from l2e.reporting.published import SHOTS, published
from l2e.reporting.study import TASKS

DIGITS = 4
Verdict = Literal["equal", "explained", "DIFFERS", "OTHER ITEMS"]


@dataclass(frozen=True)
class Reference:
    """What is published of one checkpoint.

    Attributes:
        name: e.g. "pythia-70m-deduped".
        revision: of the checkpoint on the hub.
        accuracies: printed acc by task (lm-eval's name) and number of shots.
        items: of each task.
    """

    name: str
    revision: str
    accuracies: dict[tuple[str, int], float]
    items: dict[str, int]


@dataclass(frozen=True)
class Check:
    """One accuracy beside the public one."""

    task: str
    shots: int
    n: int
    here: float
    public: float
    expected_n: int

    @property
    def items(self) -> int:
        """How many more items are right here."""
        return round(self.here * self.n) - round(self.public * self.n)

    @property
    def error(self) -> float:
        """Standard error of the public accuracy, of the draw of items."""
        return math.sqrt(self.public * (1 - self.public) / (self.n - 1))

    @property
    def allowed(self) -> float:
        """The largest difference that rounding (0-shot) or other examples explain."""
        return self.error * (2 * math.sqrt(2) if self.shots else 1)

    @property
    def verdict(self) -> Verdict:
        """equal: to the printed digits."""
        if self.n != self.expected_n:
            return "OTHER ITEMS"
        if abs(self.here - self.public) <= 0.5 * 10**-DIGITS:
            return "equal"
        return "explained" if abs(self.items) / self.n <= self.allowed else "DIFFERS"

    @property
    def failed(self) -> bool:
        """Whether something is wrong, here or there."""
        return self.verdict not in ("equal", "explained")


def reference(name: str) -> Reference:
    """The published numbers of a checkpoint; UserError names the known ones."""
    entry = published()["pythia"]
    rows = {f"pythia-{row['scale'].lower()}-deduped": row for row in entry["rows"]}
    if name not in rows:
        raise UserError(f"reference: nothing is published of {name}; known are {', '.join(rows)}")
    tasks = [TASKS[column][0] for column in entry["columns"]]
    return Reference(
        name,
        entry["revision"],
        {(t, s): a for s in SHOTS for t, a in zip(tasks, rows[name][f"{s}-shot"], strict=True)},
        dict(zip(tasks, entry["items"], strict=True)),
    )


def check_settings(public: Reference, config: EvaluationConfig) -> None:
    """Refuse settings under which there is nothing to compare.

    Raises:
        UserError: a limit, or a task or number of shots that nothing is published of.
    """
    if config.limit is not None:
        raise UserError("evaluation.limit: the published accuracies are of all items; leave it null")
    for key, given, known in (
        ("tasks", config.tasks, public.items),
        ("num_fewshot", config.shots, SHOTS),
    ):
        unknown = [str(value) for value in given if value not in known]
        if unknown:
            raise UserError(
                f"evaluation.{key}: nothing is published of {public.name} on {', '.join(unknown)}; "
                f"known are {', '.join(map(str, known))}"
            )


def checks(public: Reference, results: Sequence[TaskResult]) -> list[Check]:
    """Each result beside the published number."""
    return [
        Check(
            task=result.task,
            shots=result.num_fewshot,
            n=result.n,
            here=result.acc,
            public=public.accuracies[result.task, result.num_fewshot],
            expected_n=public.items[result.task],
        )
        for result in results
    ]


def as_text(public: Reference, found: Sequence[Check]) -> str:
    """A table for the terminal, which is Markdown too."""
    header = [
        "task",
        "shots",
        "items",
        "here",
        "public",
        "difference",
        "in items",
        "s.e.",
        "explained up to",
        "verdict",
    ]
    rows = [
        [
            one.task,
            f"{one.shots}",
            f"{one.n:,}",
            f"{one.here:.4f}",
            f"{one.public:.4f}",
            f"{one.here - one.public:+.4f}",
            f"{one.items:+d}",
            f"{one.error:.4f}",
            f"{one.allowed:.4f}",
            one.verdict,
        ]
        for one in found
    ]
    widths = [max(len(row[place]) for row in [header, *rows]) for place in range(len(header))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        for row in [header, ["-" * width for width in widths], *rows]
    ]
    return f"{public.name}, {public.revision}: acc here and as published\n\n" + "\n".join(lines) + "\n"

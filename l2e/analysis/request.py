"""What one analysis is asked to do."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from l2e.analysis.features import TextFeatures
from l2e.analysis.subjects import Subject

OpenSubjects = Callable[[TextFeatures], list[Subject]]


class Request:
    """Settings, and what they are applied to; texts and models are opened when they are first asked for.

    Args:
        settings: of the kind of analysis.
        open_feature_sets: reads and tokenises them.
        open_subjects: the models, to be asked about one feature set.
        runs: the run directories among `models`, in their order.

    Attributes:
        settings, runs: as given.
    """

    def __init__(
        self,
        settings: Any,
        open_feature_sets: Callable[[], Sequence[TextFeatures]],
        open_subjects: OpenSubjects,
        runs: Sequence[Path] = (),
    ) -> None:
        self.settings = settings
        self.runs = list(runs)
        self._open_feature_sets = open_feature_sets
        self._open_subjects = open_subjects

    @cached_property
    def feature_sets(self) -> list[TextFeatures]:
        """All that were named."""
        return list(self._open_feature_sets())

    @property
    def features(self) -> TextFeatures:
        """The one that a kind is called with which is called for each."""
        (features,) = self.feature_sets
        return features

    @cached_property
    def subjects(self) -> list[Subject]:
        """The models, in the order in which they were named, on `features`."""
        return self._open_subjects(self.features)

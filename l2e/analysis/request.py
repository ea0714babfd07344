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
        self._opened: dict[str, list[Subject]] = {}

    @cached_property
    def feature_sets(self) -> list[TextFeatures]:
        """All that were named."""
        return list(self._open_feature_sets())

    @property
    def features(self) -> TextFeatures:
        """The only one, of a kind that is called for each."""
        (features,) = self.feature_sets
        return features

    @property
    def subjects(self) -> list[Subject]:
        """The models, in the order in which they were named, asked about `features`."""
        return self.subjects_on(self.features)

    def subjects_on(self, features: TextFeatures) -> list[Subject]:
        """The same about one of `feature_sets`; the same objects in every call."""
        if features.name not in self._opened:
            self._opened[features.name] = self._open_subjects(features)
        return self._opened[features.name]

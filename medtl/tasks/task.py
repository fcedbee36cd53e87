"""What every task answers, so that no other code asks which task it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from medtl.types import Case


class Task(Protocol):
    """The meaning of the numbers of one study."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the findings or classes, in the order of the network's outputs."""
        ...

    @property
    def watched(self) -> str:
        """Name of the statistic that early stopping can watch ("auroc"); larger is better."""
        ...

    def targets(self, cases: Sequence[Case]) -> NDArray[np.float32]:
        """`(n, ...)` training targets; NaN where the truth is not known."""
        ...

    def truth_matrix(self, cases: Sequence[Case]) -> NDArray[np.float32]:
        """`(n, K)` certain truth per label: 1, 0, NaN where it is not known."""
        ...

    def strata(self, cases: Sequence[Case]) -> NDArray[np.int64]:
        """`(n, k)` 0/1 matrix by which splits are balanced."""
        ...

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Scalar training loss of a batch."""
        ...

    def decode(self, outputs: Tensor) -> Tensor:
        """Scores in the unit of the report: probabilities, months, mask probabilities."""
        ...

    def watch(self, targets: NDArray[np.float32], scores: NDArray[np.float32]) -> float | None:
        """The watched statistic, or None when it is undefined or too grainy to steer by."""
        ...

    def rows(self, case: Case, score: NDArray[np.float32]) -> list[dict[str, Any]]:
        """The rows of the predictions table for one case, truth included where it is known."""
        ...

    def tally(self, cases: Sequence[Case]) -> dict[str, dict[str, int]]:
        """Label -> how many cases are positive, negative, uncertain, missing."""
        ...

    def prevalence(self, cases: Sequence[Case]) -> list[float]:
        """Share of each label among the cases whose truth is known, for the head's first bias."""
        ...

    @property
    def exclusive(self) -> bool:
        """Whether exactly one label holds (softmax) or each may (sigmoid)."""
        ...

    def weighted(self, cases: Sequence[Case]) -> Task:
        """This task with the class weights that the training cases call for."""
        ...

    def to_dict(self) -> Mapping[str, Any]:
        """What a checkpoint must hold to build this task again."""
        ...

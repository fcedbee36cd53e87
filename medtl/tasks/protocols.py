"""What every task answers, so that no other code asks which task it has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medtl.tasks.inputs import Inputs
from medtl.types import Case

if TYPE_CHECKING:
    from torch import Tensor

Encode = Callable[[NDArray[np.integer]], NDArray[np.uint8]]
"""From the values of a mask file to what a loss takes."""


class Task(Protocol):
    """The meaning of the numbers of one study."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of what is reported: findings, classes, structures, or a quantity."""
        ...

    @property
    def outputs(self) -> int:
        """How many numbers the network returns for an image, or for each of its pixels."""
        ...

    @property
    def inputs(self) -> Inputs:
        """The numbers that join the pooled features of a case's image (the sex)."""
        ...

    @property
    def watched(self) -> str:
        """Name of the statistic that early stopping can watch ("auroc", "mae_months", "dice")."""
        ...

    @property
    def larger_is_better(self) -> bool:
        """Which way the watched statistic improves."""
        ...

    @property
    def unit(self) -> str | None:
        """The unit of the scores, "" where it is not stated; None where they are probabilities."""
        ...

    @property
    def encode(self) -> Encode | None:
        """What makes training masks of the values of a mask file; None for a task without masks."""
        ...

    def observed(self, masks: Iterable[tuple[str, NDArray[np.uint8]]]) -> Task:
        """This task once it has seen (case id, training mask) of a study's cases."""
        ...

    def targets(self, cases: Sequence[Case]) -> NDArray[np.float32]:
        """`(n, ...)` training targets; NaN where the truth is not known."""
        ...

    def certain_targets(self, cases: Sequence[Case]) -> NDArray[np.float32]:
        """`(n, ...)` targets as for training, NaN also where the truth is not certain."""
        ...

    def truth_matrix(self, cases: Sequence[Case]) -> NDArray[np.float32]:
        """`(n, K)` certain truth per label in the unit of the report; NaN where there is none."""
        ...

    def strata(self, cases: Sequence[Case]) -> NDArray[np.int64]:
        """`(n, k)` 0/1 matrix by which splits are balanced."""
        ...

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Scalar training loss of a batch."""
        ...

    def decode(self, outputs: Tensor) -> Tensor:
        """Scores in the unit of the report: probabilities, values, mask probabilities."""
        ...

    def explain(self, outputs: Tensor, label: str) -> Tensor:
        """The number of one case's outputs `(1, ...)` that a heat map of `label` is about."""
        ...

    def assess(self, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, float | None]:
        """Loss and watched statistic over all batches of (outputs, targets) of the split.

        The statistic is None when it is undefined; `can_watch` says whether it is fit to steer by.
        """
        ...

    def can_watch(self, cases: Sequence[Case]) -> bool:
        """Whether these validation cases are enough for the watched statistic."""
        ...

    def rows(self, case: Case, score: NDArray[np.float32]) -> list[dict[str, Any]]:
        """The rows of the predictions table for one case, truth included where it is known."""
        ...

    def tally(self, cases: Sequence[Case]) -> dict[str, dict[str, int]]:
        """Label -> how many cases are positive, negative, uncertain, missing."""
        ...

    def summary(self, cases: Sequence[Case]) -> str:
        """What the cases hold to learn from, in a line; "no cases" of none."""
        ...

    def head_bias(self, cases: Sequence[Case]) -> NDArray[np.float32]:
        """`(outputs,)` first bias of the head, so that it starts from what the cases say alone."""
        ...

    def weighted(self, cases: Sequence[Case]) -> Task:
        """This task with the class weights that the training cases call for."""
        ...

    def to_dict(self) -> Mapping[str, Any]:
        """What a checkpoint must hold to build this task again."""
        ...

"""Classes of which exactly one holds; and whether columns call for findings or for classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from medtl.errors import ManifestError, RunError
from medtl.losses.cross_entropy import CrossEntropy, Focal
from medtl.tasks.findings import (
    NEGATIVE,
    POSITIVE,
    RAREST,
    UNCERTAIN,
    Column,
    Findings,
    Policy,
    are_enough,
    joined,
    mean_auroc,
)
from medtl.tasks.inputs import IMAGE_ALONE, Inputs
from medtl.types import Case

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Classes:
    """Classes of which exactly one holds: a softmax over all.

    Attributes:
        column: Target column; its cell text is the class.
        labels: The classes, sorted, one per output.
        criterion, balanced: As for `Findings`.
        class_weight: N / (K * N_k) of the training cases once `weighted` has seen them.
    """

    column: str
    labels: tuple[str, ...]
    criterion: Callable[..., Tensor] = field(default_factory=CrossEntropy)
    balanced: bool = False
    class_weight: tuple[float, ...] | None = None
    watched: str = "auroc"
    larger_is_better: bool = True
    inputs: Inputs = IMAGE_ALONE
    encode: None = field(default=None, init=False)

    @property
    def outputs(self) -> int:
        """One per class."""
        return len(self.labels)

    @property
    def unit(self) -> None:
        """None: scores are probabilities."""
        return None

    def targets(self, cases: Sequence[Case]) -> NDArray[np.float32]:
        """`(n,)` class indices as float; NaN where the class is not known."""
        return np.array([self._index(case) for case in cases], dtype=np.float32)

    def certain_targets(self, cases: Sequence[Case]) -> NDArray[np.float32]:
        """The targets: none is uncertain."""
        return self.targets(cases)

    def truth_matrix(self, cases: Sequence[Case]) -> NDArray[np.float32]:
        """`(n, K)` one-hot classes; a row of NaN where the class is not known."""
        known = ~np.isnan(self.targets(cases))
        return np.where(known[:, None], self.strata(cases), np.nan).astype(np.float32)

    def strata(self, cases: Sequence[Case]) -> NDArray[np.int64]:
        """`(n, K)` one-hot classes; a row of zeros where the class is not known."""
        one_hot = self.targets(cases)[:, None] == np.arange(len(self.labels))
        return np.asarray(one_hot, dtype=np.int64)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Scalar mean over the cases whose class is known."""
        if self.class_weight is None:
            return self.criterion(outputs, targets)
        return self.criterion(outputs, targets, weight=outputs.new_tensor(self.class_weight))

    def decode(self, outputs: Tensor) -> Tensor:
        """`(B, K)` probabilities that sum to 1."""
        return outputs.double().softmax(dim=1).to(outputs.dtype)

    def explain(self, outputs: Tensor, label: str) -> Tensor:
        """The logit of the label: unlike the probability it does not flatten near 0 and 1."""
        return outputs[0, self.labels.index(label)]

    def assess(self, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, float | None]:
        """Loss, and mean one-versus-rest AUROC over the classes that some cases are of."""
        outputs, targets = joined(batches)
        loss, scores = float(self.loss(outputs, targets)), self.decode(outputs).numpy()
        return loss, mean_auroc(self._columns_of(targets.numpy(), scores))

    def can_watch(self, cases: Sequence[Case]) -> bool:
        """Whether every class has enough cases of it and of the others."""
        targets = self.targets(cases)
        scores = np.zeros((len(targets), len(self.labels)), dtype=np.float32)
        return are_enough(self._columns_of(targets, scores))

    def _columns_of(
        self, targets: NDArray[np.float32], scores: NDArray[np.float32]
    ) -> list[Column]:
        """Per class, who is of it and the score, of the cases whose class is known."""
        known = ~np.isnan(targets)
        return [(targets[known] == k, scores[known, k]) for k in range(len(self.labels))]

    def rows(self, case: Case, score: NDArray[np.float32]) -> list[dict[str, Any]]:
        """One row per class."""
        raw = case.targets.get(self.column, "")
        known = raw in self.labels
        return [
            {
                "label": label,
                "y_true": int(raw == label) if known else None,
                "y_true_raw": raw,
                "y_score": float(score[k]),
            }
            for k, label in enumerate(self.labels)
        ]

    def tally(self, cases: Sequence[Case]) -> dict[str, dict[str, int]]:
        """Class -> how many cases are of it, are of another, or have no class."""
        raw = [case.targets.get(self.column, "").strip() for case in cases]
        missing = sum(text == "" for text in raw)
        return {
            label: {
                "positive": raw.count(label),
                "negative": len(raw) - missing - raw.count(label),
                "missing": missing,
            }
            for label in self.labels
        }

    def summary(self, cases: Sequence[Case]) -> str:
        """How many cases are of each class.

        >>> from pathlib import Path
        >>> cases = [Case(str(n), "p", Path("a"), {"y": text}) for n, text in enumerate("abb")]
        >>> Classes("y", ("a", "b")).summary(cases)
        'a 1; b 2'
        """
        tally = self.tally(cases)
        missing = next(iter(tally.values()))["missing"]
        counts = "; ".join(f"{label} {of['positive']}" for label, of in tally.items())
        return f"{counts}; {missing} without a class" if missing else counts

    def head_bias(self, cases: Sequence[Case]) -> NDArray[np.float32]:
        """Logarithm of the share of each class among the cases whose class is known."""
        counts = self.strata(cases).sum(axis=0)
        share = (counts / max(int(counts.sum()), 1)).clip(RAREST, 1 - RAREST)
        return np.asarray(np.log(share), dtype=np.float32)

    def weighted(self, cases: Sequence[Case]) -> Classes:
        """This task with weights inverse to class frequency, when the recipe asks for balance."""
        if not self.balanced:
            return self
        counts = self.strata(cases).sum(axis=0)
        weights = counts.sum() / (len(self.labels) * np.maximum(counts, 1))
        return replace(self, class_weight=tuple(float(w) for w in weights))

    def observed(self, masks: Iterable[tuple[str, NDArray[np.uint8]]]) -> Classes:
        """This task: it has no masks."""
        del masks
        return self

    def to_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold to decode and to read the truth again."""
        return {"kind": "classes", "labels": list(self.labels), "column": self.column}

    def _index(self, case: Case) -> float:
        """Index of the case's class, or NaN when the cell is empty."""
        text = case.targets.get(self.column, "").strip()
        if text == "":
            return float("nan")
        if text not in self.labels:
            raise ManifestError(
                f"a class in column {self.column!r} that the model does not know",
                expected=f"one of {', '.join(self.labels)}",
                where=f"row {case.row}",
            )
        return float(self.labels.index(text))


def classification_task(
    cases: Sequence[Case],
    columns: Sequence[str],
    *,
    names: Mapping[str, str] | None = None,
    positive: str | None = None,
    uncertain: Mapping[str, Policy] | None = None,
    missing: Literal["ignore", "zeros"] = "ignore",
    soft: bool = False,
    **options: Any,
) -> Findings | Classes:
    """Return the task that the target columns call for.

    Several columns are findings. One column is a finding when it holds 0 and 1 or when `positive`
    says which word counts; with three or more words it holds classes.

    Args:
        cases: All cases of the study.
        columns: Target columns.
        names: Column -> what its finding is called; the positive word or the column by default.
        positive: Cell text that means present, for one column of two words.
        uncertain: Column -> policy for uncertain cells in training.
        missing: What an empty cell means.
        soft: Whether cells are probabilities; `positive` then only names the finding.
        **options: `criterion` and `balanced` of `Findings` or `Classes`.

    Raises:
        ManifestError: When the column holds one value only, two words without `positive`, or a
            `positive` that does not occur. RunError: When a focal loss has other weights than there
            are outputs.
    """
    values = {case.targets.get(columns[0], "").strip() for case in cases} - {""}
    words = {v for v in values if v.lower() not in POSITIVE | NEGATIVE | UNCERTAIN}
    where = f"column {columns[0]!r}"
    if positive is not None and positive not in values and not soft:
        raise ManifestError(
            f"data.positive {positive!r} does not occur",
            expected=f"one of {', '.join(sorted(values)[:10])}",
            where=where,
        )
    if len(columns) > 1 or positive is not None or not words or soft:
        called = {columns[0]: positive} if positive is not None else {}
        called |= names or {}
        others = {word for word in values if word.lower() not in UNCERTAIN} - {positive}
        _check_alpha(options.get("criterion"), len(columns), is_exclusive=False)
        return Findings(
            labels=tuple(called.get(column, column) for column in columns),
            columns=tuple(columns),
            positive=None if soft else positive,
            negative=others.pop() if positive and not soft and len(others) == 1 else None,
            soft=soft,
            uncertain=dict(uncertain or {}),
            missing=missing,
            **options,
        )
    if len(values) <= 2:
        raise ManifestError(
            f"the values are {', '.join(sorted(values))}",
            expected="0 and 1, or three or more classes",
            where=where,
            fix=f"State which one is the finding, for example data.positive: {sorted(values)[-1]}",
        )
    _check_alpha(options.get("criterion"), len(values), is_exclusive=True)
    return Classes(column=columns[0], labels=tuple(sorted(values)), **options)


def _check_alpha(criterion: object, outputs: int, *, is_exclusive: bool) -> None:
    """Refuse a focal loss whose alpha belongs to another number of outputs.

    One alpha is that of what is positive, and none of three classes is.
    """
    alpha = criterion.alpha if isinstance(criterion, Focal) else None
    if alpha is None or (not is_exclusive and not isinstance(alpha, tuple)):
        return
    found = len(alpha) if isinstance(alpha, tuple) else "one"
    if found != outputs:
        each = ", ".join(["..."] * outputs)
        raise RunError(
            f"{found} focal alpha for {outputs} {'classes' if is_exclusive else 'findings'}",
            expected=f"loss: {{name: focal, alpha: [{each}]}}",
            where="task.focal_alpha",
            fix="Leave it out, or state class_weight: balanced in its place",
        )

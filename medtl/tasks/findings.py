"""Findings: one or several, each present or absent, that may occur together."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from medtl.errors import ManifestError
from medtl.losses.cross_entropy import CrossEntropy, Focal
from medtl.metrics.ranking import area_under_roc, rank
from medtl.metrics.scores import HALF, soft_label
from medtl.tasks.inputs import IMAGE_ALONE, Inputs
from medtl.types import Case

if TYPE_CHECKING:
    from torch import Tensor

MIN_WATCHED_CASES = 100
MIN_WATCHED_POSITIVES = 20
"""Below these an AUROC moves in steps so coarse that the validation loss steers better."""

UNCERTAIN = {"-1", "-1.0", "uncertain", "u"}
POSITIVE = {"1", "1.0", "true"}
NEGATIVE = {"0", "0.0", "false"}
"""Spellings of a finding's cell, lower case. Anything else is a fault, never a guess."""

SMOOTHED_POSITIVE = (0.55, 0.85)
"""Range that the 'smoothed' policy draws uncertain targets from: U-Ones+LSR of Pham et al. 2019."""

RAREST = 1e-3
"""A prevalence is kept this far from 0 and 1 when it becomes a bias."""

Policy = Literal["ignore", "zeros", "ones", "smoothed"]
Column = tuple[NDArray[np.bool_], NDArray[np.float32]]
"""Who is positive, and the score, of the cases that count."""


OPEN = {"uncertain": "uncertain", "missing": "without a label"}
"""States of a label that are neither positive nor negative, in words."""


@dataclass(frozen=True)
class Findings:
    """One or several findings, each present or absent: a sigmoid per finding.

    Attributes:
        labels: What the findings are called, one per output.
        columns: Their target columns; the labels themselves when empty.
        positive: Cell text that means present, for a column that holds two words; else None.
        negative: The other word, where the cases of the study had one; nothing else means absent
            then, but 0. None in runs of before, and where no case was without the finding.
        uncertain: Column -> what training does with an uncertain cell. Evaluation never scores one.
        missing: Whether an empty cell is unknown ("ignore") or means absent ("zeros").
        soft: Whether cells are probabilities: training takes them as they are, evaluation takes
            them for present above 0.5 and absent below.
        criterion: The loss: of (outputs, targets), and of `weight` where `balanced` asks for it.
        balanced: Weigh positives by N_neg / N_pos of the training cases.
        pos_weight: The weights once `weighted` has seen the training cases.
    """

    labels: tuple[str, ...]
    columns: tuple[str, ...] = ()
    positive: str | None = None
    negative: str | None = field(default=None, kw_only=True)
    uncertain: Mapping[str, Policy] = field(default_factory=dict)
    missing: Literal["ignore", "zeros"] = "ignore"
    soft: bool = False
    criterion: Callable[..., Tensor] = field(default_factory=CrossEntropy)
    balanced: bool = False
    pos_weight: tuple[float, ...] | None = None
    watched: str = "auroc"
    larger_is_better: bool = True
    inputs: Inputs = IMAGE_ALONE
    encode: None = field(default=None, init=False)

    @property
    def outputs(self) -> int:
        """One per finding."""
        return len(self.labels)

    @property
    def unit(self) -> None:
        """None: scores are probabilities."""
        return None

    def truth(self, case: Case) -> NDArray[np.float32]:
        """`(K,)` of 1, 0 and NaN: the certain truth that evaluation uses.

        Raises:
            ManifestError: When a cell is neither 0, 1, -1, empty nor (if stated) the positive word.
        """
        states = (self._state(case, column) for column in self._columns)
        values = {"positive": 1.0, "negative": 0.0, "uncertain": np.nan, "missing": np.nan}
        return np.array([values[state] for state in states], dtype=np.float32)

    def targets(self, cases: Sequence[Case]) -> NDArray[np.float32]:
        """`(n, K)` training targets under the policies for uncertain and missing cells."""
        return np.array(
            [[self._target(case, column) for column in self._columns] for case in cases],
            dtype=np.float32,
        ).reshape(len(cases), len(self.labels))

    def certain_targets(self, cases: Sequence[Case]) -> NDArray[np.float32]:
        """`(n, K)` targets of validation: uncertain cells are never scored."""
        return self.truth_matrix(cases)

    def truth_matrix(self, cases: Sequence[Case]) -> NDArray[np.float32]:
        """`(n, K)` of 1, 0 and NaN: the certain truth of many cases.

        Raises:
            ManifestError: As `truth`, and for two words beside the positive one.
        """
        self._refuse_third_words(cases)
        return np.array([self.truth(case) for case in cases], dtype=np.float32).reshape(
            len(cases), len(self.labels)
        )

    def strata(self, cases: Sequence[Case]) -> NDArray[np.int64]:
        """`(n, K)`: 1 where the finding is certainly present."""
        return np.nan_to_num(self.truth_matrix(cases)).astype(np.int64)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Scalar mean over the known targets of the batch."""
        if self.pos_weight is None:
            return self.criterion(outputs, targets)
        return self.criterion(outputs, targets, weight=outputs.new_tensor(self.pos_weight))

    def decode(self, outputs: Tensor) -> Tensor:
        """`(B, K)` probabilities."""
        return outputs.sigmoid()

    def explain(self, outputs: Tensor, label: str) -> Tensor:
        """The logit of the label: unlike the probability it does not flatten near 0 and 1."""
        return outputs[0, self.labels.index(label)]

    def assess(self, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, float | None]:
        """Loss, and mean AUROC over the findings that some cases have and some have not."""
        outputs, targets = joined(batches)
        loss, scores = float(self.loss(outputs, targets)), self.decode(outputs).numpy()
        return loss, mean_auroc(self._columns_of(targets.numpy(), scores))

    def can_watch(self, cases: Sequence[Case]) -> bool:
        """Whether every finding has enough cases with and without it."""
        targets = self.certain_targets(cases)
        return are_enough(self._columns_of(targets, np.zeros_like(targets)))

    def _columns_of(
        self, targets: NDArray[np.float32], scores: NDArray[np.float32]
    ) -> list[Column]:
        """Per finding, who is positive and the score, of the cases whose truth is known."""
        columns = [(t > 0.5, ~np.isnan(t), s) for t, s in zip(targets.T, scores.T, strict=True)]
        return [(positive[known], s[known]) for positive, known, s in columns]

    def rows(self, case: Case, score: NDArray[np.float32]) -> list[dict[str, Any]]:
        """One row per finding; `y_true` is None where the truth is uncertain or missing."""
        truth = self.truth(case) if case.targets else np.full(len(self.labels), np.nan)
        return [
            {
                "label": label,
                "y_true": None if np.isnan(truth[k]) else int(truth[k]),
                "y_true_raw": case.targets.get(self._columns[k], ""),
                "y_score": float(score[k]),
            }
            for k, label in enumerate(self.labels)
        ]

    def tally(self, cases: Sequence[Case]) -> dict[str, dict[str, int]]:
        """Label -> counts of positive, negative, uncertain and missing cells."""
        return {
            label: dict(Counter(self._state(case, column) for case in cases))
            for label, column in zip(self.labels, self._columns, strict=True)
        }

    def summary(self, cases: Sequence[Case]) -> str:
        """How many cases have each finding (+) and are without it (-), and how many do not say.

        >>> from pathlib import Path
        >>> cases = [Case(str(n), "p", Path("a"), {"x": text}) for n, text in enumerate("110")]
        >>> Findings(("x",)).summary(cases)
        'x 2+ 1-'
        """
        return "; ".join(
            f"{label} {tally.get('positive', 0)}+ {tally.get('negative', 0)}-"
            + "".join(
                f", {tally[state]} {said}" for state, said in OPEN.items() if tally.get(state)
            )
            for label, tally in self.tally(cases).items()
        )

    def head_bias(self, cases: Sequence[Case]) -> NDArray[np.float32]:
        """Log odds of the share of positives among the known targets; 0 where none is known.

        Reference:
            Lin et al. 2017, Focal Loss for Dense Object Detection, section 3.3.
        """
        targets = self.targets(cases)
        known = (~np.isnan(targets)).sum(axis=0)
        share = np.where(known > 0, np.nansum(targets, axis=0) / np.maximum(known, 1), 0.5)
        share = share.clip(RAREST, 1 - RAREST)
        return np.asarray(np.log(share / (1 - share)), dtype=np.float32)

    def weighted(self, cases: Sequence[Case]) -> Findings:
        """This task with N_neg / N_pos as weights, when the recipe asks for balance.

        Of a focal loss that is alpha, N_neg / (N_neg + N_pos): alpha over 1 - alpha is the same.

        Reference:
            Lin et al. 2017, Focal Loss for Dense Object Detection, section 3.1.
        """
        if not self.balanced:
            return self
        truth = self.targets(cases)
        positives = np.maximum(np.nansum(truth, axis=0), 1)
        negatives = np.nansum(1 - truth, axis=0)
        if isinstance(self.criterion, Focal):
            alpha = tuple(float(a) for a in negatives / (negatives + positives))
            return replace(self, criterion=replace(self.criterion, alpha=alpha))
        return replace(self, pos_weight=tuple(float(w) for w in negatives / positives))

    def observed(self, masks: Iterable[tuple[str, NDArray[np.uint8]]]) -> Findings:
        """This task: it has no masks."""
        del masks
        return self

    def to_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold to decode and to read the truth again."""
        return {
            "kind": "findings",
            "labels": list(self.labels),
            "columns": list(self._columns),
            "positive": self.positive,
            **({} if self.negative is None else {"negative": self.negative}),
            "missing": self.missing,
            **({"soft": True} if self.soft else {}),
        }

    @property
    def _columns(self) -> tuple[str, ...]:
        """The target columns, one per output."""
        return self.columns or self.labels

    def _state(self, case: Case, column: str) -> str:
        """One of positive, negative, uncertain, missing."""
        text = case.targets.get(column, "").strip()
        if text == "":
            return "negative" if self.missing == "zeros" else "missing"
        if text.lower() in UNCERTAIN:
            return "uncertain"
        share = soft_label(text) if self.soft else None
        if share is not None:
            return "uncertain" if share == HALF else "positive" if share > HALF else "negative"
        if self.positive is not None and text == self.positive:
            return "positive"
        if self.positive is not None and self.negative in (None, text):
            return "negative"
        if text.lower() in POSITIVE:
            return "positive"
        if text.lower() in NEGATIVE:
            return "negative"
        if self.positive is not None:
            raise self._unknown_word(column, text, where=f"row {case.row}")
        raise ManifestError(
            f"a value of column {column!r} is neither 0, 1, -1 nor empty",
            where=f"row {case.row}",
            fix="Correct the cell, or state data.positive when the column holds words",
        )

    def _refuse_third_words(self, cases: Sequence[Case]) -> None:
        """Refuse two words beside the positive one where nobody has said which is the negative."""
        if self.positive is None or self.negative is not None:
            return
        for column in self._columns:
            said = {case.targets.get(column, "").strip() for case in cases} - {"", self.positive}
            others = sorted(word for word in said if word.lower() not in UNCERTAIN)
            if len(others) > 1:
                raise self._unknown_word(column, ", ".join(others[:5]))

    def _unknown_word(self, column: str, found: str, *, where: str = "") -> ManifestError:
        """An error for what is neither the finding's word nor its opposite."""
        beside = "" if self.negative is None else f" beside {self.negative!r}"
        return ManifestError(
            f"column {column!r} holds {found}; {self.positive!r} is the finding{beside}",
            expected=f"{self.positive} and one other word, or 1 and 0",
            where=where,
            fix="Write the words that the run was trained with",
        )

    def _target(self, case: Case, column: str) -> float:
        """The training target of one cell."""
        share = soft_label(case.targets.get(column, "")) if self.soft else None
        if share is not None:
            return share
        state = self._state(case, column)
        if state == "uncertain":
            return self._uncertain_target(case, column)
        return {"positive": 1.0, "negative": 0.0, "missing": float("nan")}[state]

    def _uncertain_target(self, case: Case, column: str) -> float:
        """What the policy makes of an uncertain cell; 'smoothed' depends on the case id alone."""
        policy = self.uncertain.get(column, "ignore")
        if policy == "smoothed":
            digest = hashlib.sha256(f"{case.case_id}/{column}".encode()).digest()
            low, high = SMOOTHED_POSITIVE
            return low + (high - low) * int.from_bytes(digest[:4], "big") / 2**32
        return {"ignore": float("nan"), "zeros": 0.0, "ones": 1.0}[policy]


def joined(batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return all outputs and all targets of a split."""
    import torch

    outputs, targets = zip(*batches, strict=True)
    return torch.cat(outputs), torch.cat(targets)


def mean_auroc(columns: Sequence[Column]) -> float | None:
    """Return the mean AUROC over the columns with cases of both kinds, or None without any.

    None too when a score is not finite.
    """
    if not all(np.isfinite(score).all() for _, score in columns):
        return None
    both = [(positive, score) for positive, score in columns if len(np.unique(positive)) > 1]
    rankings = [rank(positive, score) for positive, score in both]
    areas = [float(area_under_roc(r.tp, r.fp)) for r in rankings]
    return float(np.mean(areas)) if areas else None


def are_enough(columns: Sequence[Column]) -> bool:
    """Return whether every column has enough cases of both kinds."""
    return all(
        len(positive) >= MIN_WATCHED_CASES
        and min(int(positive.sum()), int((~positive).sum())) >= MIN_WATCHED_POSITIVES
        for positive, _ in columns
    )

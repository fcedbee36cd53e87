"""Examinations: several images that have one label and, where the study asks for it, one score."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from medtl.cases.predictions import SCORED
from medtl.errors import ManifestError, PredictionsError
from medtl.storage.tables import rows_text
from medtl.types import Case, FloatArray

if TYPE_CHECKING:
    import pandas as pd

Combine = Literal["max", "mean", "noisy_or"]
"""How the scores of an exam's images become one; noisy-or is 1 - (1 - p1)(1 - p2)...

Reference: Pearl 1988, Probabilistic Reasoning in Intelligent Systems, section 4.3.2 (noisy OR).
"""

EXAM = "exam_id"
"""Column of a predictions table, where a study asks for exams."""


def exam_faults(cases: Iterable[Case]) -> list[ManifestError]:
    """Return what forbids one label for all images of an exam: two labels, or two patients."""
    exams: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        if case.exam:
            exams[case.exam].append(case)
    faults = []
    for name in next(iter(exams.values()))[0].targets if exams else ():
        labels = {exam: {c.targets[name] for c in images} - {""} for exam, images in exams.items()}
        apart = [exam for exam, found in labels.items() if len(found) > 1]
        if apart:
            rows = rows_text([case.row for exam in apart for case in exams[exam]])
            faults.append(
                ManifestError(
                    f"{len(apart)} of {len(exams)} exams have two labels in {name!r} ({rows})",
                    expected="one label an exam",
                    where="data.exam",
                    fix="Correct the labels, or leave data.exam out if each image has its own",
                )
            )
    shared = [images for images in exams.values() if len({c.patient_id for c in images}) > 1]
    if shared:
        rows = rows_text([case.row for images in shared for case in images])
        found = f"{len(shared)} exams are of more than one patient ({rows})"
        faults.append(ManifestError(found, where="data.exam", fix="Correct patient or exam"))
    return faults


def by_exam(
    table: pd.DataFrame, combine: Combine, column: str = EXAM
) -> tuple[pd.DataFrame, list[str]]:
    """Return a predictions table with a row for each exam and label, and what was combined.

    The exam takes the place of `case_id`; `shown` is its image with the highest score. A stratum
    in which the images differ names all their values ("LL + PA").

    Args:
        table: A predictions table with a row for each image and label; see `cases.predictions`.
        combine: How scores become one. Scores of classes that exclude each other, and values in a
            unit, have a mean alone.
        column: The one that says which exam an image is of.

    Raises:
        PredictionsError: If there is no such column, a row has no exam, an exam has two truths or
            two patients, or the scores cannot be combined so.

    >>> import pandas as pd
    >>> rows = {"case_id": ["a", "b"], "patient_id": "p", "split": "test", "exam_id": "e",
    ...         "y_true": 1.0, "y_score": [0.5, 0.4]}
    >>> float(by_exam(pd.DataFrame(rows), "noisy_or")[0]["y_score"][0])
    0.7
    """
    if combine not in get_args(Combine):
        expected = f"one of {', '.join(get_args(Combine))}"
        raise PredictionsError(f"exams combined by {combine!r}", expected=expected)
    if column not in table or "y_score" not in table:
        found = f"no column {column!r}" if column not in table else "exams of masks"
        raise PredictionsError(found, expected=f"one of {', '.join(map(str, table.columns))}")
    named = table[column].fillna("").astype(str).str.strip()
    if (named == "").any():
        found = f"{int((named == '').sum())} rows have no {column}"
        raise PredictionsError(found, expected="the exam of every image")
    keys = [key for key in ("split", "label", "model", "fold", "seed", "reader") if key in table]
    table = table.assign(**{column: named})
    _refuse_apart(table, keys, column)
    _refuse_scores(table, combine, column)
    combined: dict[str, Callable[[FloatArray], float]] = {
        "max": lambda known: float(known.max()),
        "mean": lambda known: float(known.mean()),
        "noisy_or": _noisy_or,
    }
    rows = []
    for _, images in table.groupby([*keys, column], sort=True, dropna=False):
        scores = images["y_score"].to_numpy(dtype=float)
        known = scores[np.isfinite(scores)]
        best = images.iloc[int(np.nanargmax(scores)) if known.size else 0].to_dict()
        truths = images["y_true"].dropna()
        exam = {
            "case_id": best[column],
            "y_true": truths.iloc[0] if len(truths) else np.nan,
            "y_score": combined[combine](known) if known.size else np.nan,
            "shown": best["case_id"],
        }
        rows.append(
            {
                **{str(key): value for key, value in best.items()},
                **_together(images, {*keys, column, *SCORED, "patient_id"}),
                **exam,
            }
        )
    return type(table)(rows), [_said(table, combine, column)]


def _together(images: pd.DataFrame, others: Collection[str]) -> dict[str, str]:
    """The columns in which the images of an exam differ, each with all of its values."""
    return {
        str(name): " + ".join(sorted({str(value) for value in images[name]}))
        for name in images.columns
        if name not in others and images[name].nunique(dropna=False) > 1
    }


def _noisy_or(scores: FloatArray) -> float:
    """1 - prod(1 - p), rounded to what floats hold of it."""
    return float(round(1 - float(np.prod(1 - scores)), 15))


def _refuse_apart(table: pd.DataFrame, keys: Sequence[str], column: str) -> None:
    """Refuse an exam with two truths or two patients."""
    for name, what in (("y_true", "truths"), ("patient_id", "patients")):
        numbers = table.groupby([*keys, column])[name].nunique()
        apart = int((numbers > 1).sum())
        if apart:
            raise PredictionsError(
                f"{apart} of {len(numbers)} exams ({column}) have images with different {what}",
                expected="one of each an exam",
                fix="Correct the table, or evaluate it by image",
            )


def _refuse_scores(table: pd.DataFrame, combine: Combine, column: str) -> None:
    """Refuse scores that lose their meaning when they are combined so."""
    scores = table["y_score"].to_numpy(dtype=float)
    known = scores[np.isfinite(scores)]
    if combine == "noisy_or" and known.size and (known.min() < 0 or known.max() > 1):
        raise PredictionsError(
            "noisy-or of scores beyond 0 and 1", expected="probabilities", fix="Take max or mean"
        )
    if combine == "mean" or "label" not in table or table["label"].nunique() < 3:
        return
    sums = table.groupby(["split", "case_id"])[["y_true", "y_score"]].sum(min_count=1)
    if bool(np.allclose(sums["y_score"], 1, atol=1e-3) and (sums["y_true"].dropna() == 1).all()):
        raise PredictionsError(
            f"the {combine} of classes that exclude each other: their probabilities no longer sum "
            "to 1",
            expected="mean",
            where=column,
        )


def _said(table: pd.DataFrame, combine: Combine, column: str) -> str:
    """What was combined, in words."""
    sizes = table.drop_duplicates("case_id").groupby(column)["case_id"].nunique()
    how = {
        "max": "the highest score",
        "mean": "the mean score",
        "noisy_or": "noisy-or, 1 - prod(1 - p)",
    }
    return (
        f"evaluated by exam ({column}): {int(sizes.sum())} images of {len(sizes)} exams, "
        f"{int(sizes.min())} to {int(sizes.max())} an exam (median {sizes.median():g}); "
        f"the score of an exam is {how[combine]} of its images"
    )

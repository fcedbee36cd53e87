"""Two or more models on the same cases. The sign is always first minus second."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medtl.errors import PredictionsError
from medtl.metrics.inputs import (
    binary_truth,
    blank_measure,
    finite_vector,
    patient_codes,
    usable_rows,
)
from medtl.metrics.intervals import normal_quantile, wald
from medtl.metrics.ranking import NO_VARIANCE, ONE_CLASS, auc_covariance
from medtl.types import FloatArray, Measure

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class PairedTest:
    """A paired comparison.

    Attributes:
        difference: First minus second, with its interval.
        statistic: z or t of the test, or W of Wilcoxon; None where there is no test.
        p: Two-sided; None where there is no test.
        method: Name of the test.
        detectable: Smallest true difference found with 80 percent power at this precision.
    """

    difference: Measure
    statistic: float | None
    p: float | None
    method: str
    detectable: float | None = None


def minimum_detectable_difference(
    error: float, *, alpha: float = 0.05, power: float = 0.8
) -> float:
    """Return the smallest true difference that a two-sided test finds with this power.

    Args:
        error: Standard error of the difference.
        alpha: Level of the test.
        power: Chance of finding it.

    Reference:
        (z of alpha/2 + z of power) x SE; Cohen 1988.
    """
    return (normal_quantile(1 - alpha) + normal_quantile(2 * power - 1)) * error


def two_sided_p(z: float) -> float:
    """Return the two-sided normal p of a z statistic."""
    return math.erfc(abs(z) / math.sqrt(2))


def paired_auroc(
    y_true: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    *,
    patients: ArrayLike | None = None,
    confidence: float = 0.95,
) -> PairedTest:
    """Return the difference of two AUCs on the same rows with DeLong's z test.

    Undefined with one class only or fewer than two patients of a class. Identical rankings have a
    difference of 0 without variance: degenerate, p = 1.

    Args:
        y_true: `(n,)`, 0 or 1.
        first: `(n,)` scores of the first model.
        second: `(n,)` scores of the second model.
        patients: `(n,)` identifiers, or None for one row per patient.
        confidence: Level of the interval.

    Reference:
        DeLong et al., Biometrics 1988;44:837; clustered, Obuchowski 1997.
    """
    truth = binary_truth(y_true)
    codes = patient_codes(patients, truth.size)
    blank = blank_measure("auroc_difference", truth, codes, confidence)
    method = "paired DeLong" if patients is None else "paired Obuchowski over patients"
    if not truth.any() or truth.all():
        return PairedTest(replace(blank, reason=ONE_CLASS), None, None, method)
    aucs, covariance = auc_covariance(truth, np.stack([first, second]), patients)
    value = float(aucs[0] - aucs[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    if math.isnan(variance):
        reason = "it needs at least two patients of each class"
        missing = replace(blank, value=value, status="degenerate", reason=reason)
        return PairedTest(missing, None, None, method)
    if variance < NO_VARIANCE:
        reason = "the difference does not vary between patients"
        same = replace(blank, value=value, low=value, high=value, method=method,
                       status="degenerate", reason=reason)  # fmt: skip
        return PairedTest(same, None, 1.0 if abs(value) < 1e-12 else None, method)
    error = math.sqrt(variance)
    low, high = wald(value, error, confidence)
    difference = replace(blank, value=value, low=low, high=high, method=method, status="ok")
    detectable = minimum_detectable_difference(error)
    return PairedTest(difference, value / error, two_sided_p(value / error), method, detectable)


@dataclass(frozen=True)
class McNemar:
    """Disagreements of two deciders: `only_first` right, `only_second` right; exact p."""

    only_first: int
    only_second: int
    p: float


def mcnemar(first_right: ArrayLike, second_right: ArrayLike) -> McNemar:
    """Return McNemar's exact test; on positives it compares sensitivities.

    Args:
        first_right: `(n,)` whether the first is right. One row per patient.
        second_right: `(n,)` whether the second is right.

    Reference:
        McNemar 1947; exact binomial, p = 1 without disagreements.
    """
    first, second = np.asarray(first_right, dtype=bool), np.asarray(second_right, dtype=bool)
    b, c = int((first & ~second).sum()), int((~first & second).sum())
    if b == c:
        return McNemar(b, c, 1.0)
    from scipy.special import bdtr

    return McNemar(b, c, min(1.0, 2 * float(bdtr(min(b, c), b + c, 0.5))))


def fisher_exact(first: tuple[int, int], second: tuple[int, int]) -> float:
    """Return Fisher's two-sided p of two independent shares.

    Args:
        first: Successes and trials.
        second: Successes and trials.

    Reference:
        Fisher 1935; the two-sided p adds all tables that are no more likely, as R's fisher.test.
    """
    from scipy.special import gammaln

    successes = first[0] + second[0]
    total = first[1] + second[1]
    possible = np.arange(max(0, successes - second[1]), min(successes, first[1]) + 1)

    def log_choose(n: int, k: NDArray[np.integer]) -> FloatArray:
        return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))

    log_p = log_choose(first[1], possible) + log_choose(second[1], successes - possible)
    log_p -= log_choose(total, np.array(successes))
    observed = log_p[first[0] - possible[0]]
    return min(1.0, float(np.exp(log_p[log_p <= observed + 1e-7]).sum()))


def paired_t(first: ArrayLike, second: ArrayLike, *, confidence: float = 0.95) -> PairedTest:
    """Return the mean difference of paired values (seeds, folds, patients) with its t test.

    Args:
        first: `(n,)` values, such as one AUC per seed.
        second: `(n,)` values of the same seeds.
        confidence: Level of the interval.
    """
    difference = finite_vector(first, "first") - finite_vector(second, "second")
    blank = Measure("mean_difference", None, confidence=confidence, n=difference.size,
                    status="undefined")  # fmt: skip
    if difference.size < 2:
        reason = "it needs two pairs"
        return PairedTest(replace(blank, reason=reason), None, None, "paired t")
    value = float(difference.mean())
    error = float(difference.std(ddof=1)) / math.sqrt(difference.size)
    if not error > 1e-15:
        reason = "all differences are equal"
        same = replace(blank, value=value, low=value, high=value, status="degenerate",
                       reason=reason)  # fmt: skip
        return PairedTest(same, None, 1.0 if value == 0 else None, "paired t")
    from scipy.special import stdtr, stdtrit

    freedom = difference.size - 1
    half = float(stdtrit(freedom, 0.5 + confidence / 2)) * error
    done = replace(blank, value=value, low=value - half, high=value + half, method="paired t",
                   status="ok")  # fmt: skip
    p = 2 * float(stdtr(freedom, -abs(value / error)))
    return PairedTest(done, value / error, p, "paired t", minimum_detectable_difference(error))


def wilcoxon(first: ArrayLike, second: ArrayLike, *, confidence: float = 0.95) -> PairedTest:
    """Return the pseudo-median of paired differences with Wilcoxon's signed-rank test.

    The interval of the Hodges-Lehmann estimate uses the normal quantile of the rank sum. Zero
    differences are left out of the test (Wilcoxon's own rule).

    Args:
        first: `(n,)` values, such as the Dice of each patient.
        second: `(n,)` values of the same patients.
        confidence: Level of the interval.

    Reference:
        Hollander and Wolfe 1999, chapter 3.
    """
    difference = finite_vector(first, "first") - finite_vector(second, "second")
    blank = Measure("median_difference", None, confidence=confidence, n=difference.size,
                    status="undefined")  # fmt: skip
    name = "Wilcoxon signed-rank"
    if not difference.size:
        return PairedTest(replace(blank, reason="there are no pairs"), None, None, name)
    rows, columns = np.triu_indices(difference.size)
    walsh = np.sort((difference[rows] + difference[columns]) / 2)
    value = float(np.median(walsh))
    if not difference.any() or difference.size < 6:
        reason = "all differences are 0" if not difference.any() else "it needs six pairs"
        weak = replace(blank, value=value, status="degenerate", reason=reason)
        return PairedTest(weak, None, 1.0 if not difference.any() else None, name)
    from scipy.stats import wilcoxon as signed_rank

    result = signed_rank(difference)
    n = difference.size
    centre, spread = n * (n + 1) / 4, math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    skip = max(0, math.floor(centre - normal_quantile(confidence) * spread))
    done = replace(blank, value=value, low=float(walsh[skip]), high=float(walsh[-1 - skip]),
                   method=f"{name}, Hodges-Lehmann", status="ok")  # fmt: skip
    return PairedTest(done, float(result.statistic), float(result.pvalue), name)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p values, in the order given.

    Reference:
        Holm, Scand J Statist 1979;6:65.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    out = np.empty(p.size)
    out[order] = np.minimum(adjusted, 1)
    return [float(value) for value in out]


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for the false discovery rate, in the order given.

    Reference:
        Benjamini and Hochberg, JRSS B 1995;57:289.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")[::-1]
    adjusted = np.minimum.accumulate(p[order] * p.size / np.arange(p.size, 0, -1))
    out = np.empty(p.size)
    out[order] = np.minimum(adjusted, 1)
    return [float(value) for value in out]


@dataclass(frozen=True)
class ModelComparison:
    """One pair of models on one label.

    Attributes:
        label: The finding.
        first: Name of a model. second: Name of the other.
        test: First minus second.
        p_holm: p adjusted within all pairs and labels compared together.
        dropped: Rows that only one of the two has, or without a truth or score.
    """

    label: str
    first: str
    second: str
    test: PairedTest
    p_holm: float | None
    dropped: int


def compare_models(
    table: pd.DataFrame, *, models: Sequence[str] = (), confidence: float = 0.95
) -> list[ModelComparison]:
    """Return the paired AUC comparison of every pair of models on every label.

    Only cases that both models have are compared; the others are counted.

    Args:
        table: A predictions table with a column `model`; rows of `split` "test" only, if it has
            that column.
        models: Names, in the order of the pairs; empty for all, in alphabetical order.
        confidence: Level of the intervals.

    Raises:
        PredictionsError: If there are not two models, or the two disagree about the truth.
    """
    if "model" not in table:
        raise PredictionsError("the table has no column model", expected="two models or more")
    names = list(models) or sorted(str(name) for name in table["model"].unique())
    if len(names) < 2:
        raise PredictionsError(f"one model, {names[0]}", expected="two models or more")
    rows = table[table["split"] == "test"] if "split" in table else table
    labels = rows["label"].unique() if "label" in rows else [""]
    found = [
        _compare_pair(rows, str(label), first, second, confidence)
        for label in labels
        for at, first in enumerate(names)
        for second in names[at + 1 :]
    ]
    tested = [index for index, item in enumerate(found) if item.test.p is not None]
    adjusted = holm([found[index].test.p or 0.0 for index in tested])
    for index, p in zip(tested, adjusted, strict=True):
        found[index] = replace(found[index], p_holm=p)
    return found


def _compare_pair(
    rows: pd.DataFrame, label: str, first: str, second: str, confidence: float
) -> ModelComparison:
    """Join two models on the case and compare them."""
    of_label = rows[rows["label"] == label] if "label" in rows else rows
    parts = [of_label[of_label["model"] == name].set_index("case_id") for name in (first, second)]
    for name, part in zip((first, second), parts, strict=True):
        if part.index.has_duplicates:
            raise PredictionsError(
                f"model {name} has several rows for one case and label {label!r}",
                expected="one score per case",
                fix="Compare one seed or fold at a time, or average them",
            )
    both = parts[0].merge(parts[1], left_index=True, right_index=True, suffixes=("", "_second"))
    usable = usable_rows(both["y_true"], both["y_score"]) & usable_rows(
        both["y_true_second"], both["y_score_second"]
    )
    kept = both[usable]
    dropped = len(parts[0]) + len(parts[1]) - 2 * len(kept)
    if not np.array_equal(kept["y_true"].to_numpy(), kept["y_true_second"].to_numpy()):
        raise PredictionsError(f"{first} and {second} disagree about the truth of a case",
                               expected="the same y_true")  # fmt: skip
    patients = kept["patient_id"].to_numpy() if "patient_id" in kept else None
    if patients is not None and len(set(patients)) == len(patients):
        patients = None
    test = paired_auroc(
        kept["y_true"], kept["y_score"], kept["y_score_second"],
        patients=patients, confidence=confidence,
    )  # fmt: skip
    return ModelComparison(label, first, second, test, None, dropped)

"""Cells of findings: binormal scores with calibrated probabilities and fixed class sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import product

import numpy as np
import pandas as pd
from scipy.special import expit, logit, ndtr, ndtri
from scipy.stats import binom, norm

from benchmarks.coverage.cell import DRAWS, Cell, Truths, Weighted, against, clustered, each, owners
from medtl.evaluation.classification import (
    LabelRows,
    discrimination_measures,
    macro_measures,
    measures_at,
)
from medtl.evaluation.curves import label_curves
from medtl.evaluation.exclusive import choice_measures, choices
from medtl.metrics import calibration
from medtl.metrics.ranking import area_under_part_of_roc
from medtl.metrics.scores import CI, Scores
from medtl.types import FloatArray, Measure

AT = 0.05
"""Prevalence at which predictive values are stated."""

RARE = 1e-7
"""Probability below which a table is left out of an exact cell."""


def of_table(se: float, sp: float, positives: int, negatives: int) -> Truths:
    """Return everything that follows from the two rates and the sizes of the classes."""
    tp, fn = se * positives, (1 - se) * positives
    fp, tn = (1 - sp) * negatives, sp * negatives
    n = positives + negatives
    chance = ((tp + fp) * positives + (tn + fn) * negatives) / n**2
    return {
        "sensitivity": se, "specificity": sp, "ppv": tp / (tp + fp), "npv": tn / (tn + fn),
        "accuracy": (tp + tn) / n, "f1": 2 * tp / (2 * tp + fp + fn),
        "balanced_accuracy": (se + sp) / 2, "youden": se + sp - 1,
        "mcc": (tp * tn - fp * fn)
        / math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)),
        "kappa": ((tp + tn) / n - chance) / (1 - chance),
        "lr_positive": se / (1 - sp), "lr_negative": (1 - se) / sp,
        "diagnostic_odds_ratio": tp * tn / (fp * fn),
        "ppv_at_prevalence": se * AT / (se * AT + (1 - sp) * (1 - AT)),
        "npv_at_prevalence": sp * (1 - AT) / (sp * (1 - AT) + (1 - se) * AT),
    }  # fmt: skip


def of_curve(shift: float, prevalence: float) -> Truths:
    """Return the truth of a binormal score: what ranks, and what is calibrated."""
    at = np.linspace(-8, shift + 8, 100_001)
    tp, fp = ndtr(shift - at), ndtr(-at)
    precision = prevalence * tp / np.maximum(prevalence * tp + (1 - prevalence) * fp, 1e-300)
    step = -np.diff(tp)
    raw = float(
        area_under_part_of_roc((tp[::-1] * 1e9).astype(int), (fp[::-1] * 1e9).astype(int), 0.9)
    )
    sharp = ndtr(shift - ndtri(0.9))
    weights = at[1] - at[0]
    p = expit(logit(prevalence) + shift * at - shift**2 / 2)
    ill, healthy = norm.pdf(at - shift) * weights, norm.pdf(at) * weights
    square = prevalence * ill @ (1 - p) ** 2 + (1 - prevalence) * healthy @ p**2
    loss = -prevalence * ill @ np.log(p) - (1 - prevalence) * healthy @ np.log1p(-p)
    return {
        "auroc": float(ndtr(shift / math.sqrt(2))),
        "average_precision": float(step @ (precision[1:] + precision[:-1]) / 2),
        "partial_auc_specificity_90_to_100": (1 + (raw - 0.005) / 0.095) / 2,
        "sensitivity_at_specificity_90": float(sharp),
        "specificity_at_sensitivity_90": float(ndtr(shift + ndtri(0.1))),
        "brier": float(square), "log_loss": float(loss), "calibration_slope": 1.0,
        "calibration_intercept": 0.0, "calibration_in_the_large": 0.0,
    }  # fmt: skip


class Binormal:
    """Scores of so many patients of each class: normal, apart by what gives the AUROC."""

    def __init__(self, positives: int, negatives: int, auroc: float, images: int = 1) -> None:
        self.name = f"{positives} + {negatives} patients{each(images)}, AUROC {auroc:g}"
        self.shift = math.sqrt(2) * float(ndtri(auroc))
        self.prevalence = positives / (positives + negatives)
        self.truth = np.repeat([True, False], [positives * images, negatives * images])
        self.images = images

    def probability(self, x: FloatArray | float) -> FloatArray:
        """Return the calibrated probability of a score."""
        return np.asarray(expit(logit(self.prevalence) + self.shift * x - self.shift**2 / 2))

    def rows(self, rng: np.random.Generator) -> Scores:
        """Return one sample."""
        x = clustered(rng, self.truth.size, self.images) + self.shift * self.truth
        return Scores.of(self.truth, self.probability(x), owners(self.truth.size, self.images))


def finding(positives: int, negatives: int, auroc: float, images: int = 1) -> Cell:
    """Return the cell of what is said of one finding without a threshold; with one if clustered."""
    model = Binormal(positives, negatives, auroc, images)
    rate, cut = float(ndtr(model.shift / 2)), float(model.probability(model.shift / 2))
    truths = of_curve(model.shift, model.prevalence)
    if images > 1:
        truths |= of_table(rate, rate, positives, negatives)

    def draw(rng: np.random.Generator) -> Iterator[Measure]:
        rows = model.rows(rng)
        yield from discrimination_measures(rows, DRAWS)
        yield calibration.brier(rows)
        yield calibration.log_loss(rows)
        yield from calibration.calibration_line(rows)
        if images > 1:
            yield from measures_at(rows, cut, AT, DRAWS)

    return Cell(model.name, truths, draw)


def decision(positives: int, negatives: int, auroc: float) -> Cell:
    """Return the exact cell of a threshold where sensitivity and specificity are equal."""
    model = Binormal(positives, negatives, auroc)
    rate = float(ndtr(model.shift / 2))

    def tables() -> Weighted:
        of_positives, of_negatives = (
            binom.pmf(np.arange(n + 1), n, rate) for n in (positives, negatives)
        )
        for tp, tn in product(range(positives + 1), range(negatives + 1)):
            chance = float(of_positives[tp] * of_negatives[tn])
            if chance > RARE:
                score = np.zeros(model.truth.size)
                score[:tp], score[positives : positives + negatives - tn] = 1, 1
                yield chance, measures_at(Scores.of(model.truth, score), 0.5, AT, CI())

    return Cell(model.name, of_table(rate, rate, positives, negatives), tables=tables)


def bands(positives: int, negatives: int, auroc: float, images: int = 1) -> Cell:
    """Return the cell of the bands of the drawn curves at some of their points."""
    model = Binormal(positives, negatives, auroc, images)
    names = [
        *(f"ROC at specificity {1 - x:g}" for x in FALSE_ALARMS),
        *(f"precision at recall {y:g}" for y in RECALLS),
        *(f"net benefit at {t:g}" for t in ACTING),
        *(f"smooth calibration, {q:g} quantile" for q in QUANTILES),
        "reliability bars",
    ]

    def draw(rng: np.random.Generator) -> Iterator[Measure]:
        rows = model.rows(rng)
        found = label_curves(LabelRows("x", "test", rows, rows.patients), None, DRAWS)
        curves = {curve["name"]: curve for curve in found}
        yield from _points(model, rows, curves)

    return Cell(model.name, dict.fromkeys(names, 0.0), draw)


FALSE_ALARMS, RECALLS, ACTING, QUANTILES = (0.1, 0.3), (0.5, 0.8), (0.1, 0.3), (0.1, 0.5, 0.9)


def _points(
    model: Binormal, rows: Scores, curves: dict[str, dict[str, list[float]]]
) -> Iterator[Measure]:
    """Yield the band of every curve at the point that is nearest to each place, less its truth."""

    def tpr(x: float) -> float:
        return float(ndtr(model.shift + ndtri(x)))

    def precision(recall: float) -> float:
        hits = model.prevalence * recall
        return hits / (hits + (1 - model.prevalence) * float(ndtr(ndtri(recall) - model.shift)))

    def benefit(t: float) -> float:
        x = (logit(t) - logit(model.prevalence) + model.shift**2 / 2) / model.shift
        hits = model.prevalence * float(ndtr(model.shift - x))
        return hits - (1 - model.prevalence) * float(ndtr(-x)) * t / (1 - t)

    places: list[tuple[str, float, str, Callable[[float], float]]] = [
        *(("roc", x, f"ROC at specificity {1 - x:g}", tpr) for x in FALSE_ALARMS),
        *(("precision_recall", y, f"precision at recall {y:g}", precision) for y in RECALLS),
        *(("decision", t, f"net benefit at {t:g}", benefit) for t in ACTING),
        *(("smooth_calibration", float(np.quantile(rows.score, q)),
           f"smooth calibration, {q:g} quantile", float) for q in QUANTILES),
        *(("reliability", x, "reliability bars", float) for x in curves["reliability"]["x"]),
    ]  # fmt: skip
    for of, place, name, truth in places:
        if of in curves:
            columns = {key: np.array(curves[of][key], float) for key in ("x", "low", "high")}
            x, low, high = (float(v[abs(columns["x"] - place).argmin()]) for v in columns.values())
            if np.isfinite([low, high]).all():
                yield against(Measure(name, 0.0, low=low, high=high), name, truth(x))


def classes(number: int) -> Cell:
    """Return the cell of three ordered classes with so many patients each."""

    def drawn(rng: np.random.Generator, number: int, ci: CI) -> list[Measure]:
        truth = np.repeat(np.arange(3), number)
        x = rng.normal(size=truth.size) + 1.5 * truth
        scores = np.exp(-((x[:, None] - 1.5 * np.arange(3)) ** 2) / 2)
        scores /= scores.sum(axis=1, keepdims=True)
        case = np.arange(truth.size)
        parts = [
            pd.DataFrame({"case_id": case, "patient_id": case, "label": str(k),
                          "y_true": truth == k, "y_score": scores[:, k]})
            for k in range(3)
        ]  # fmt: skip
        names = ["0", "1", "2"]
        if (chosen := choices(pd.concat(parts), names)) is None:
            return []
        found, _ = choice_measures(chosen, names, ci, ordered=True)
        return [measure for measure in found if measure.label == "overall"]

    often = drawn(np.random.default_rng(0), 20_000, CI(resamples=2))
    truths = {measure.name: float(measure.value or 0) for measure in often}
    name = f"3 classes of {number} patients"
    return Cell(name, truths, lambda rng: drawn(rng, number, DRAWS))


def macro(positives: int, negatives: int) -> Cell:
    """Return the cell of the means over three findings of the same patients."""
    shift, threshold = 1.5, 0.75
    one = of_curve(shift, positives / (positives + negatives))
    table = of_table(float(ndtr(shift - threshold)), float(ndtr(threshold)), positives, negatives)
    truths = {name: {**table, **one}[name] for name in
              ("auroc", "average_precision", "sensitivity", "specificity", "f1")}  # fmt: skip

    def draw(rng: np.random.Generator) -> Iterable[Measure]:
        n = positives + negatives
        labels = []
        for label in "abc":
            truth = rng.permutation(np.arange(n) < positives)
            scores = Scores.of(truth, rng.normal(size=n) + shift * truth)
            labels.append(LabelRows(label, "test", scores, np.arange(n)))
        return macro_measures(labels, dict.fromkeys("abc", threshold), DRAWS)

    return Cell(f"3 findings, {positives} + {negatives} patients", truths, draw)

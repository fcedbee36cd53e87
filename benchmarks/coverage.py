"""How often the intervals of `medtl.metrics` hold the truth: `make coverage`.

Samples are drawn from distributions whose truth is known, the package's own functions give the
intervals, and the share that holds the truth is written to `reports/coverage.md`. The seeds are
fixed, so that the file is the same each time.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit, logit, ndtr, ndtri
from scipy.stats import beta, norm

from medtl.evaluation.classification import (
    LabelRows,
    calibration_measures,
    discrimination_measures,
    macro_measures,
    measures_at,
)
from medtl.evaluation.exclusive import exclusive_classes
from medtl.metrics import agreement, comparison, paired_runs, subgroups
from medtl.metrics.overlap import casewise_measures
from medtl.metrics.ranking import area_under_part_of_roc
from medtl.metrics.scores import CI, Scores
from medtl.types import FloatArray, Measure

OUT = Path(__file__).parents[1] / "reports/coverage.md"
SETS = 200
"""Samples of a cell."""

DRAWS = CI(resamples=300)
"""Bootstrap of an interval that needs one; the package's own default is 2000."""

LEAST = 0.92
"""Coverage that no cell with 30 rows and 5 of each class may miss (of a nominal 0.95)."""

Truths = dict[str, float]
Drawn = Callable[[np.random.Generator], Iterable[Measure]]


@dataclass(frozen=True)
class Cell:
    """One setting: its name, the true values, and a function from a generator to measures."""

    name: str
    truths: Truths
    draw: Drawn


@dataclass
class Tally:
    """How often an interval was there, held the truth, and how wide it was."""

    there: int = 0
    held: int = 0
    width: float = 0.0


def counted(cell: Cell, sets: int = SETS) -> dict[str, Tally]:
    """Return the tally of every measure of a cell."""
    rng = np.random.default_rng(sum(cell.name.encode()))
    tallies = {name: Tally() for name in cell.truths}
    for _ in range(sets):
        for measure in cell.draw(rng):
            if measure.name in tallies and measure.low is not None and measure.high is not None:
                tally, truth = tallies[measure.name], cell.truths[measure.name]
                tally.there += 1
                tally.held += measure.low - 1e-9 <= truth <= measure.high + 1e-9
                tally.width += measure.high - measure.low
    return tallies


AT = 0.05
"""Prevalence at which predictive values are stated."""


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


def finding(positives: int, negatives: int, auroc: float, images: int = 1) -> Cell:
    """Return the cell of one finding: patients of each class, perhaps with several images."""
    shift = math.sqrt(2) * float(ndtri(auroc))
    threshold = shift / 2
    se = float(ndtr(shift - threshold))
    truths = of_table(se, float(ndtr(threshold)), positives, negatives)
    prevalence = positives / (positives + negatives)
    truths |= of_curve(shift, prevalence)
    truth = np.repeat([True, False], [positives * images, negatives * images])
    patients = np.arange(truth.size) // images if images > 1 else None
    cut = float(expit(logit(prevalence) + shift * threshold - shift**2 / 2))

    def draw(rng: np.random.Generator) -> Iterator[Measure]:
        x = clustered(rng, truth.size, images) + shift * truth
        score = expit(logit(prevalence) + shift * x - shift**2 / 2)
        rows = Scores.of(truth, score, patients)
        yield from discrimination_measures(rows, DRAWS)
        yield from calibration_measures(rows, DRAWS)
        yield from measures_at(rows, cut, AT, DRAWS)

    whose = f", {images} images each" if images > 1 else ""
    name = f"{positives} + {negatives} patients{whose}, AUROC {auroc:g}"
    return Cell(name, truths, draw)


def clustered(rng: np.random.Generator, n: int, size: int) -> FloatArray:
    """Return standard normal values, those of a patient correlated by a half."""
    if size == 1:
        return rng.normal(size=n)
    own, shared = rng.normal(size=n), np.repeat(rng.normal(size=n // size), size)
    return np.asarray(math.sqrt(0.5) * (own + shared))


def quantity(n: int, images: int = 1) -> Cell:
    """Return the cell of a bone age: reference of SD 40, error of bias 2 and SD 10 months."""
    sd, bias, spread = 10.0, 2.0, 40.0
    square = sd**2 + bias**2
    error = np.abs(norm.ppf((np.arange(200_000) + 0.5) / 200_000, bias, sd))
    covariance, other = spread**2, spread**2 + sd**2
    truths = {
        "mae_months": float(error.mean()), "rmse_months": math.sqrt(square),
        "median_absolute_error_months": float(np.median(error)), "r2": 1 - square / spread**2,
        "bias_months": bias, "loa_low_months": bias - 1.96 * sd,
        "loa_high_months": bias + 1.96 * sd,
        "within_12_months": float(norm.cdf(12, bias, sd) - norm.cdf(-12, bias, sd)),
    }  # fmt: skip
    if images == 1:
        truths |= {
            "pearson_r": covariance / math.sqrt(spread**2 * other),
            "concordance": 2 * covariance / (spread**2 + other + bias**2),
            "error_slope_on_reference": 0.0,
            "icc_2_1": spread**2 / (spread**2 + sd**2 / 2 + bias**2 / 2),
        }

    def draw(rng: np.random.Generator) -> Iterator[Measure]:
        reference = 120 + spread * np.repeat(rng.normal(size=n), images)
        prediction = reference + bias + sd * clustered(rng, n * images, images)
        patients = np.arange(n * images) // images if images > 1 else None
        pair = (reference, prediction)
        yield from agreement.error_measures(*pair, patients=patients, ci=DRAWS)
        yield from agreement.bland_altman(*pair, patients=patients, ci=DRAWS)
        yield agreement.within(*pair, 12, patients=patients, ci=DRAWS)
        if images == 1:
            yield from agreement.correlation_measures(*pair, ci=DRAWS)
            yield agreement.intraclass_correlation(np.column_stack(pair), ci=DRAWS)

    whose = f", {images} images each" if images > 1 else ""
    return Cell(f"{n} patients{whose}", truths, draw)


QUANTILES = {"median": 0.5, "p05": 0.05, "p25": 0.25, "p75": 0.75}


def overlaps(n: int, images: int = 1) -> Cell:
    """Return the cell of a segmentation: Dice of Beta(8, 2), HD95 log-normal of sigma 0.6."""
    dice, far = beta(8, 2), 0.6
    truths = {"dice_mean": 0.8, "hd95_mm_mean": 4 * math.exp(far**2 / 2)}
    truths |= {f"dice_{name}": float(dice.ppf(q)) for name, q in QUANTILES.items()}
    truths |= {
        f"hd95_mm_{name}": 4 * math.exp(far * float(ndtri(q))) for name, q in QUANTILES.items()
    }

    def draw(rng: np.random.Generator) -> Iterator[Measure]:
        z = clustered(rng, n * images, images)
        patients = np.arange(n * images) // images if images > 1 else None
        values = {"dice": dice.ppf(ndtr(z)), "hd95_mm": 4 * np.exp(-far * z)}
        for name, of in values.items():
            yield from casewise_measures(name, of, patients=patients, ci=DRAWS)

    whose = f", {images} structures each" if images > 1 else ""
    return Cell(f"{n} patients{whose}", truths, draw)


def groups(positives: int, negatives: int) -> Cell:
    """Return the cell of two groups of this size with the same model, and of two paired models."""
    shift = 1.5
    truth = np.repeat([True, False], [positives, negatives])
    auc, other = (float(ndtr(s / math.sqrt(2))) for s in (shift, 1.0))
    truths = {"sensitivity_gap": 0.0, "specificity_gap": 0.0, "auroc_gap": 0.0,
              "auroc_difference": auc - other}  # fmt: skip

    def draw(rng: np.random.Generator) -> Iterator[Measure]:
        both, sex = np.tile(truth, 2), np.repeat(["F", "M"], truth.size)
        score = rng.normal(size=both.size) + shift * both
        for gap in subgroups.gaps(both, score, {"sex": sex}, threshold=0.75):
            yield gap.difference
        shared = rng.normal(size=(3, truth.size))
        models = (shared[0] + shared[1:]) / math.sqrt(2) + np.outer([shift, 1.0], truth)
        yield comparison.paired_auroc(truth, *models).difference

    return Cell(f"{positives} + {negatives} patients a group", truths, draw)


def classes(each: int) -> Cell:
    """Return the cell of three ordered classes with so many patients each."""

    def drawn(rng: np.random.Generator, each: int, ci: CI) -> list[Measure]:
        truth = np.repeat(np.arange(3), each)
        x = rng.normal(size=truth.size) + 1.5 * truth
        scores = np.exp(-((x[:, None] - 1.5 * np.arange(3)) ** 2) / 2)
        scores /= scores.sum(axis=1, keepdims=True)
        case = np.arange(truth.size)
        parts = [
            pd.DataFrame({"case_id": case, "patient_id": case, "label": str(k),
                          "y_true": truth == k, "y_score": scores[:, k]})
            for k in range(3)
        ]  # fmt: skip
        found, _ = exclusive_classes(pd.concat(parts), ["0", "1", "2"], ci, ordered=True)
        return [measure for measure in found if measure.label == "overall"]

    often = drawn(np.random.default_rng(0), 20_000, CI(resamples=2))
    truths = {measure.name: float(measure.value or 0) for measure in often}
    return Cell(f"3 classes of {each} patients", truths, lambda rng: drawn(rng, each, DRAWS))


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


def folds(positives: int, negatives: int) -> Cell:
    """Return the cell of out-of-fold scores in five folds of this size."""
    shift = 1.5
    fold = np.repeat(np.arange(5), positives + negatives)
    truth = np.tile(np.repeat([True, False], [positives, negatives]), 5)
    truths = {"auroc_mean_of_folds": float(ndtr(shift / math.sqrt(2))),
              "mae_months_mean_of_folds": 10 * math.sqrt(2 / math.pi)}  # fmt: skip

    def draw(rng: np.random.Generator) -> Iterator[Measure]:
        score = rng.normal(size=truth.size) + shift * truth
        yield from paired_runs.mean_of_folds_auroc(truth, [score], fold, ci=DRAWS)
        age = rng.normal(120, 40, truth.size)
        estimate = age + rng.normal(0, 10, age.size)
        yield from paired_runs.mean_of_folds_mae(age, [estimate], fold, ci=DRAWS)

    return Cell(f"5 folds of {positives} + {negatives} patients", truths, draw)


SIZES = ((5, 25), (5, 95), (10, 20), (10, 90), (15, 15), (25, 5), (30, 70), (60, 240))

PARTS: dict[str, Sequence[tuple[Callable[..., Cell], tuple[float, ...]]]] = {
    "Findings": [(finding, (m, n, auc)) for m, n in SIZES for auc in (0.75, 0.9)],
    "Findings, several images of a patient": [
        (finding, (m, n, auc, 3)) for m, n in ((5, 25), (15, 15), (20, 40), (30, 70))
        for auc in (0.75, 0.9)
    ],
    "Quantities": [(quantity, size) for size in ((30,), (100,), (30, 3), (60, 3))],
    "Overlap of masks": [(overlaps, size) for size in ((30,), (60,), (100,), (30, 3), (60, 3))],
    "Groups and paired models": [(groups, size) for size in ((5, 25), (15, 15), (30, 70))],
    "Exclusive classes": [(classes, (each,)) for each in (10, 20, 50)],
    "Means over findings": [(macro, size) for size in ((5, 25), (10, 90), (30, 70))],
    "Cross-validation": [(folds, size) for size in ((5, 25), (15, 15))],
}  # fmt: skip


def _counted(task: tuple[Callable[..., Cell], tuple[float, ...]]) -> tuple[str, dict[str, Tally]]:
    """Return the tallies of the cell that a builder makes."""
    cell = task[0](*task[1])
    return cell.name, counted(cell)


def main() -> None:
    """Write the study."""
    lines = [
        "# Do the intervals hold the truth?",
        "",
        f"`make coverage` draws {SETS} samples a cell (seeds fixed, 300 resamples where an",
        "interval needs the bootstrap) and writes which share of the 95 percent intervals hold the",
        f"truth. Its own error is {math.sqrt(0.05 * 0.95 / SETS):.3f}. Cells below {LEAST} are",
        "marked `<`, and `<<` where they are by more than twice that error; in brackets is",
        "the share of samples that have an interval, where that is not all; `-` is none.",
        "Findings are binormal scores with calibrated probabilities and fixed class sizes.",
        "",
    ]
    low = []
    tasks = [task for part in PARTS.values() for task in part]
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        results = dict(zip(map(str, tasks), pool.map(_counted, tasks), strict=True))
    for part, of_part in PARTS.items():
        found = [results[str(task)] for task in of_part]
        names = list(dict.fromkeys(name for _, tallies in found for name in tallies))
        lines += [f"## {part}", "", "| interval | " + " | ".join(cell for cell, _ in found) + " |"]
        lines.append("|---|" + "--:|" * len(found))
        for name in names:
            cells = []
            for cell, tallies in found:
                text, is_low = _shown(tallies.get(name, Tally()))
                cells.append(text)
                if is_low:
                    low.append(f"{part}, {cell}: {name} {text}")
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("")
    lines += ["## Below", "", *([f"- {line}" for line in low] or [f"No cell is below {LEAST}."])]
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(low) or "no cell is low")


def _shown(tally: Tally) -> tuple[str, bool]:
    """Return a cell of the table, and whether it is too low."""
    if tally.there < SETS / 20:
        return "-", False
    share = tally.held / tally.there
    rare = f" ({tally.there / SETS:.2f})" if tally.there < SETS else ""
    surely = share + 2 * math.sqrt(share * (1 - share) / tally.there) < LEAST
    mark = "<<" if surely else "<" if share < LEAST else ""
    return f"{mark}{share:.3f}{rare}", share < LEAST


if __name__ == "__main__":
    main()

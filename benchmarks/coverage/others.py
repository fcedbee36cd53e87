"""Cells of quantities, masks, comparisons, other places and readers."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.special import expit, ndtr, ndtri
from scipy.stats import beta, norm

from benchmarks.coverage.cell import DRAWS, Cell, clustered, each, owners
from medtl.evaluation.classification import LabelRows, recalibrated_measures
from medtl.evaluation.continuous import regression
from medtl.metrics import agreement, comparison, paired_runs, subgroups
from medtl.metrics.overlap import casewise_measures
from medtl.metrics.ranking import auroc
from medtl.metrics.readers.multireader import reader_study
from medtl.metrics.readers.paired_shares import paired_share
from medtl.metrics.scores import CI, Scores
from medtl.metrics.transfer.random_effects import random_effects
from medtl.metrics.transfer.shift import difference_between, standardised_difference
from medtl.types import Measure

QUANTILES = {"median": 0.5, "p05": 0.05, "p25": 0.25, "p75": 0.75}


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
        "pearson_r": covariance / math.sqrt(spread**2 * other),
        "concordance": 2 * covariance / (spread**2 + other + bias**2),
        "error_slope_on_reference": 0.0, "error_slope_on_mean": slope_on_mean(spread, sd),
        "icc_2_1": spread**2 / (spread**2 + sd**2 / 2 + bias**2 / 2),
    }  # fmt: skip

    def draw(rng: np.random.Generator) -> Iterator[Measure]:
        reference = 120 + spread * np.repeat(rng.normal(size=n), images)
        prediction = reference + bias + sd * clustered(rng, n * images, images)
        patients = owners(n * images, images)
        pair = (reference, prediction)
        if images > 1:
            table = pd.DataFrame({
                "case_id": np.arange(n * images), "patient_id": patients, "split": "test",
                "label": "bone", "y_true": reference, "y_score": prediction,
            })  # fmt: skip
            yield from regression(table, [], DRAWS).measures
            return
        yield from agreement.error_measures(*pair, ci=DRAWS)
        yield from agreement.bland_altman(*pair, ci=DRAWS)
        yield agreement.within(*pair, 12, ci=DRAWS)
        yield from agreement.correlation_measures(*pair, ci=DRAWS)
        yield agreement.intraclass_correlation(np.column_stack(pair), ci=DRAWS)

    return Cell(f"{n} patients{each(images)}", truths, draw)


def slope_on_mean(spread: float, sd: float) -> float:
    """Return the slope of the error on the mean of reference and prediction."""
    return (sd**2 / 2) / (spread**2 + sd**2 / 4)


def overlaps(n: int, images: int = 1) -> Cell:
    """Return the cell of a segmentation: Dice of Beta(8, 2), HD95 log-normal of sigma 0.6."""
    dice, far = beta(8, 2), 0.6
    truths = {"dice_mean": 0.8, "hd95_mm_mean": 4 * math.exp(far**2 / 2)}
    truths |= {f"dice_{name}": float(dice.ppf(q)) for name, q in QUANTILES.items()}
    truths |= {
        f"hd95_mm_{name}": 4 * math.exp(far * float(ndtri(q))) for name, q in QUANTILES.items()
    }

    def draw(rng: np.random.Generator) -> Iterator[Measure]:
        z, patients = clustered(rng, n * images, images), owners(n * images, images)
        values = {"dice": dice.ppf(ndtr(z)), "hd95_mm": 4 * np.exp(-far * z)}
        for name, of in values.items():
            yield from casewise_measures(name, of, patients=patients, ci=DRAWS)

    return Cell(f"{n} patients{each(images, 'structures')}", truths, draw)


def groups(positives: int, negatives: int, images: int = 1) -> Cell:
    """Return the cell of two groups of this size with the same model, and of two paired models."""
    shift = 1.5
    truth = np.repeat([True, False], [positives * images, negatives * images])
    auc, other = (float(ndtr(s / math.sqrt(2))) for s in (shift, 1.0))
    rates = [float(ndtr(s - 0.75)) for s in (shift, 1.0)]
    truths = {"sensitivity_gap": 0.0, "specificity_gap": 0.0, "auroc_gap": 0.0, "bias_gap": 0.0,
              "auroc_difference": auc - other, "sensitivity_difference": rates[0] - rates[1],
              "specificity_difference": 0.0}  # fmt: skip

    def draw(rng: np.random.Generator) -> Iterator[Measure]:
        both, sex = np.tile(truth, 2), np.repeat(["F", "M"], truth.size)
        patients = owners(both.size, images)
        noise = clustered(rng, both.size, images)
        for gap in subgroups.gaps(
            both, noise + shift * both, {"sex": sex}, threshold=0.75, patients=patients
        ):
            yield gap.difference
        (gap,) = subgroups.mean_gaps({"bias": noise}, {"sex": sex}, patients=patients)
        yield gap.difference
        shared = np.stack([clustered(rng, truth.size, images) for _ in range(3)])
        models = (shared[0] + shared[1:]) / math.sqrt(2) + np.outer([shift, 1.0], truth)
        patients = owners(truth.size, images)
        yield comparison.paired_auroc(truth, *models, patients=patients).difference
        for name, mask in (("sensitivity", truth), ("specificity", ~truth)):
            right = (models[:, mask] >= 0.75) == truth[mask]
            mine = None if patients is None else patients[mask]
            yield paired_share(*right, name=f"{name}_difference", patients=mine).difference

    return Cell(f"{positives} + {negatives} patients a group{each(images)}", truths, draw)


def folds(positives: int, negatives: int, images: int = 1) -> Cell:
    """Return the cell of out-of-fold scores in five folds of this size."""
    shift = 1.5
    size = (positives + negatives) * images
    fold = np.repeat(np.arange(5), size)
    truth = np.tile(np.repeat([True, False], [positives * images, negatives * images]), 5)
    truths = {"auroc_mean_of_folds": float(ndtr(shift / math.sqrt(2))),
              "auroc_difference": float(ndtr(shift / math.sqrt(2)) - ndtr(1 / math.sqrt(2))),
              "mae_months_mean_of_folds": 10 * math.sqrt(2 / math.pi)}  # fmt: skip

    def draw(rng: np.random.Generator) -> Iterator[Measure]:
        patients = owners(truth.size, images)
        noise = np.stack([clustered(rng, truth.size, images) for _ in range(2)])
        scores = list(noise + np.outer([shift, 1.0], truth))
        found = paired_runs.mean_of_folds_auroc(truth, scores, fold, patients=patients, ci=DRAWS)
        yield from (found[0], found[2])
        age = rng.normal(120, 40, truth.size)
        estimate = age + 10 * noise[0]
        yield from paired_runs.mean_of_folds_mae(age, [estimate], fold, patients=patients, ci=DRAWS)

    return Cell(f"5 folds of {positives} + {negatives} patients{each(images)}", truths, draw)


def temperature(n: int) -> Cell:
    """Return the cell of a temperature: the network's logits are twice what they should be."""

    def draw(rng: np.random.Generator) -> Iterator[Measure]:
        logits = rng.normal(0, 1.5, n)
        scores = Scores.of(rng.random(n) < expit(logits), expit(2 * logits))
        rows = LabelRows("x", "val", scores, scores.patients)
        yield from recalibrated_measures(rows, rows, CI(resamples=2))[0][:1]

    return Cell(f"{n} patients", {"temperature": 2.0}, draw)


def places(positives: int, negatives: int) -> Cell:
    """Return the cell of a model made at one place and judged at another, of this size both."""
    shifts = 1.5, 1.0
    truth = np.repeat([True, False], [positives, negatives])
    there, here = (float(ndtr(shift / math.sqrt(2))) for shift in shifts)
    truths = {"auroc_difference": here - there, "standardised_difference": 0.5}

    def draw(rng: np.random.Generator) -> Iterator[Measure]:
        found = [auroc(truth, rng.normal(size=truth.size) + shift * truth) for shift in shifts]
        yield difference_between(*found)
        yield standardised_difference(*(rng.normal(at, 1, truth.size) for at in (0, 0.5)))

    return Cell(f"{positives} + {negatives} patients at both", truths, draw)


def sites(number: int) -> Cell:
    """Return the cell of a logit AUROC pooled over sites that differ: mean 1.5, SD 0.5."""

    def draw(rng: np.random.Generator) -> Iterator[Measure]:
        errors = rng.uniform(0.2, 0.5, number)
        true, new = rng.normal(1.5, 0.5, number), rng.normal(1.5, 0.5)
        found = random_effects(true + errors * rng.normal(size=number), errors)
        yield Measure("pooled", found.value, low=found.low, high=found.high)
        if found.predict_low is not None and found.predict_high is not None:
            low, high = found.predict_low - new, found.predict_high - new
            yield Measure("new site", 0.0, low=low, high=high)

    return Cell(f"{number} sites", {"pooled": 1.5, "new site": 0.0}, draw)


def readers(number: int, positives: int, negatives: int) -> Cell:
    """Return the cell of readers who read all cases in two ways that are equally good."""
    truth = np.repeat([True, False], [positives, negatives])

    def draw(rng: np.random.Generator) -> Iterator[Measure]:
        case, with_reader = rng.normal(size=truth.size), rng.normal(size=(1, number, truth.size))
        with_way, rest = (
            rng.normal(size=(2, 1, truth.size)),
            rng.normal(size=(2, number, truth.size)),
        )
        skill = 1.5 + 0.2 * rng.normal(size=(1, number, 1)) + 0.1 * rng.normal(size=(2, number, 1))
        marks = skill * truth + (case + with_reader + with_way + rest) / 2
        study = reader_study(truth, marks)
        yield study.contrasts[0].test.difference

    name = f"{number} readers, {positives} + {negatives} patients"
    return Cell(name, {"auroc_difference": 0.0}, draw)

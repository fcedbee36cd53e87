"""Computes every quantity of a folder of oracle cases with medtl.metrics, and nothing else.

usage: python tests/oracle_adapter.py FOLDER OUT.json

FOLDER holds `<case>.expected.json` files of the schema medtl-oracle/1. Their `values` are read for
the names that are asked for, never for a number. OUT.json is {case: {name: number, null, "Inf"}}.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medtl.errors import PredictionsError
from medtl.metrics import (
    agreement,
    calibration,
    comparison,
    confusion,
    discrimination,
    overlap,
    ranking,
    resampling,
    subgroups,
    temperature,
)
from medtl.metrics.curves.decision_curve import decision_curve
from medtl.metrics.intervals import (
    bias_corrected,
    linearised_error,
    logit_wald,
    newcombe_auc,
    normal_quantile,
    percentile,
    proportion_of_rows,
    wald,
    wilson,
)
from medtl.metrics.operating_point import choose_operating_point
from medtl.metrics.scores import CI, Scores, certain_truth, patient_codes, usable_rows
from medtl.types import FloatArray, IntArray, Measure

Values = dict[str, float | int | None]

Bounds = tuple[float | None, float | None]

DRAWN = CI(resamples=4000)
ONE = CI(resamples=1)


@dataclass(frozen=True)
class Case:
    """One oracle case: its parameters, the names asked for, and its folder."""

    name: str
    kind: str
    params: Mapping[str, Any]
    files: tuple[str, ...]
    wanted: frozenset[str]
    folder: Path

    def table(self, index: int = 0) -> pd.DataFrame:
        return pd.read_csv(self.folder / self.files[index], keep_default_na=True)

    def asks(self, part: str) -> bool:
        return not self.wanted or any(part in name for name in self.wanted)

    def numbers(self, pattern: str, default: tuple[float, ...]) -> list[float]:
        found = {float(m[1]) for name in self.wanted if (m := re.match(pattern, name))}
        return sorted(found or default)


def put(out: Values, name: str, measure: Measure, *, bounds: str = "") -> None:
    """Store a measure's value, and its interval under `name`_lo and _hi."""
    out[name] = measure.value
    if bounds and measure.low is not None:
        out[f"{name}{bounds}_lo"], out[f"{name}{bounds}_hi"] = measure.low, measure.high


def usable(out: Values, table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows with truth and score, and store how many were left out."""
    truth = pd.to_numeric(table["y_true"], errors="coerce").to_numpy(float)
    score = pd.to_numeric(table["y_score"], errors="coerce").to_numpy(float)
    keep = usable_rows(truth, score)
    out["n_rows"], out["n_used"] = len(table), int(keep.sum())
    out["n_missing_label"] = int((~np.isfinite(truth)).sum())
    out["n_missing_score"] = int((~np.isfinite(score)).sum())
    return truth[keep], score[keep]


def put_auc(out: Values, prefix: str, truth: np.ndarray, score: np.ndarray) -> None:
    """Store the AUC with its DeLong variance and three intervals."""
    measure = ranking.auroc(truth, score)
    out[f"{prefix}auc"] = measure.value
    if measure.value is None:
        return
    _, covariance = ranking.auc_covariance(truth, score)
    variance = float(covariance[0, 0])
    positives, negatives = int(truth.sum()), int((truth == 0).sum())
    low, high = newcombe_auc(measure.value, positives, negatives)
    out[f"{prefix}auc_newcombe5_lo"], out[f"{prefix}auc_newcombe5_hi"] = low, high
    if math.isnan(variance):
        variance = None
        low = high = None
    else:
        low, high = (min(max(bound, 0), 1) for bound in wald(measure.value, math.sqrt(variance)))
    out[f"{prefix}auc_delong_var"] = variance
    out[f"{prefix}auc_delong_lo"], out[f"{prefix}auc_delong_hi"] = low, high
    if measure.status == "ok":
        bounds = logit_wald(measure.value, math.sqrt(variance), normal_quantile(0.95))
        out[f"{prefix}auc_delong_logit_lo"], out[f"{prefix}auc_delong_logit_hi"] = bounds


SHARES = {"sensitivity": "sens", "specificity": "spec", "ppv": "ppv", "npv": "npv",
          "accuracy": "accuracy", "prevalence": "prevalence"}  # fmt: skip


def put_table(out: Values, prefix: str, counts: confusion.Counts, prevalences: list[float]) -> None:
    """Store everything that follows from a two-by-two table."""
    cells = {"tp": counts.tp, "fp": counts.fp, "fn": counts.fn, "tn": counts.tn}
    out.update({f"{prefix}{name}": value for name, value in cells.items()})
    truth = np.repeat([1, 0, 1, 0], list(cells.values()))
    flagged = np.repeat([1.0, 1, 0, 0], list(cells.values()))
    for interval, short in (("wilson", "wilson"), ("clopper-pearson", "cp")):
        for measure in confusion.share_measures(truth, flagged, 0.5, interval=interval):
            put(out, f"{prefix}{SHARES[measure.name]}", measure, bounds=f"_{short}")
    for measure, name in zip(
        confusion.likelihood_ratios(counts), ("lr_pos", "lr_neg", "dor"), strict=True
    ):
        put(out, f"{prefix}{name}", measure)
        low, high = log_normal(measure.value, counts, name)
        out[f"{prefix}{name}_lo"], out[f"{prefix}{name}_hi"] = low, high
    for name in confusion.SUMMARIES:
        out[f"{prefix}{name}"] = confusion.summary_value(name, counts)
    for prevalence in prevalences:
        ppv, npv = confusion.predictive_values_at(counts, prevalence)
        for measure, name in ((ppv, "ppv"), (npv, "npv")):
            at = f"{prefix}{name}_at_prev_{prevalence:g}"
            put(out, at, measure)
            out[f"{at}_lo"], out[f"{at}_hi"] = mercaldo(measure.value, counts, name)


def log_normal(value: float | None, counts: confusion.Counts, name: str) -> Bounds:
    """Simel 1991: the log-normal interval of a ratio, as in epiR; medtl reports MOVER-R."""
    tp, fp, fn, tn = counts.tp, counts.fp, counts.fn, counts.tn
    cells = {"lr_pos": (tp, fp), "lr_neg": (fn, tn), "dor": (tp, fp, fn, tn)}[name]
    if value is None or 0 in cells:
        return None, None
    variance = sum(1 / cell for cell in cells)
    variance -= 0 if name == "dor" else 1 / (tp + fn) + 1 / (fp + tn)
    factor = math.exp(normal_quantile(0.95) * math.sqrt(variance))
    return value / factor, value * factor


def mercaldo(value: float | None, counts: confusion.Counts, name: str) -> Bounds:
    """Mercaldo 2007: the logit interval of a predictive value; medtl reports MOVER-R."""
    positives, negatives = counts.tp + counts.fn, counts.fp + counts.tn
    if value is None or 0 in (counts.tp, counts.fp, counts.fn, counts.tn):
        return None, None
    se, sp = counts.tp / positives, counts.tn / negatives
    variance = {
        "ppv": (1 - se) / (se * positives) + sp / ((1 - sp) * negatives),
        "npv": se / ((1 - se) * positives) + (1 - sp) / (sp * negatives),
    }[name]
    return logit_wald(value, math.sqrt(variance) * value * (1 - value), normal_quantile(0.95))


def put_fixed(out: Values, case: Case, truth: np.ndarray, score: np.ndarray) -> None:
    """Store sensitivity at fixed specificity and the reverse."""
    ranked = ranking.rank(truth, score)
    defaults = (0.8, 0.9, 0.95)
    for level in case.numbers(r"sens_at_spec_([\d.]+)", defaults):
        name = f"sens_at_spec_{level:g}"
        threshold = discrimination.threshold_at_specificity(ranked, level)
        counts = confusion.count(truth, score, threshold)
        out[name] = counts.tp / ranked.num_positive
        out[f"{name}_spec_achieved"] = counts.tn / ranked.num_negative
        out[f"{name}_threshold"] = threshold
        low, high = wilson(counts.tp, ranked.num_positive)
        out[f"{name}_wilson_lo"], out[f"{name}_wilson_hi"] = low, high
        for suffix, statistic in (
            ("interp_boot", interpolated_sensitivity),
            ("boot", discrimination.best_sensitivity),
        ):
            if case.asks(f"{name}_{suffix}"):
                at_level = {name: lambda tp, fp, s=statistic, at=level: s(tp, fp, at)}
                (measure,) = resampling.bootstrap_measures(at_level, ranked, DRAWN)
                out[f"{name}_{suffix}_lo"], out[f"{name}_{suffix}_hi"] = measure.low, measure.high
    for level in case.numbers(r"spec_at_sens_([\d.]+)", defaults):
        threshold = discrimination.threshold_at_sensitivity(ranked, level)
        counts = confusion.count(truth, score, threshold)
        out[f"spec_at_sens_{level:g}"] = counts.tn / ranked.num_negative
        out[f"spec_at_sens_{level:g}_threshold"] = threshold


def interpolated_sensitivity(tp: IntArray, fp: IntArray, specificity: float) -> FloatArray:
    """pROC's ci.se: the sensitivity of the straight-line ROC at exactly this specificity."""
    positives, negatives = tp[..., -1].astype(float), fp[..., -1].astype(float)
    limit = (1 - specificity) * negatives + resampling.ROUNDING
    reached = (fp <= limit[..., None]).sum(axis=-1, keepdims=True)
    zero = np.zeros_like(tp[..., :1])
    x, y = np.concatenate([zero, fp], axis=-1), np.concatenate([zero, tp], axis=-1)
    following = np.minimum(reached + 1, x.shape[-1] - 1)
    x0, x1, y0, y1 = (
        np.take_along_axis(curve, index, axis=-1)[..., 0].astype(float)
        for curve in (x, y)
        for index in (reached, following)
    )
    slope = np.divide(y1 - y0, x1 - x0, out=np.zeros_like(x0), where=x1 > x0)
    return ranking.ratio(y0 + slope * (limit - x0), positives)


def binary(case: Case) -> Values:
    out: Values = {}
    truth, score = usable(out, case.table())
    out["n_pos"], out["n_neg"] = int(truth.sum()), int((truth == 0).sum())
    put_auc(out, "", truth, score)
    threshold = float(case.params.get("threshold", 0.5))
    counts = confusion.count(truth, score, threshold)
    put_table(out, f"at_{threshold:g}.", counts, case.params.get("prevalences", []))
    names = {"pauc": None, "average_precision": None}
    if not (out["n_pos"] and out["n_neg"]):
        asked = {name for name in case.wanted if name.startswith(("auc", "sens_at", "spec_at"))}
        return {**dict.fromkeys(asked | names.keys()), **out}
    put_fixed(out, case, truth, score)
    ranked = ranking.rank(truth, score)
    for level in case.numbers(r"pauc_spec([\d.]+)_1", (0.9,)):
        for standardised, form in ((False, "raw"), (True, "mcclish")):
            measure = discrimination.partial_auc(
                truth, score, specificity=level, standardised=standardised, ci=ONE
            )
            out[f"pauc_spec{level:g}_1_{form}"] = measure.value
    out["average_precision"] = float(ranking.step_precision(ranked.tp, ranked.fp))
    for name, statistic in (
        ("auc_boot_strat", ranking.area_under_roc),
        ("average_precision_boot", ranking.step_precision),
    ):
        if case.asks(name):
            (measure,) = resampling.bootstrap_measures({name: statistic}, ranked, DRAWN)
            out[f"{name}_lo"], out[f"{name}_hi"] = measure.low, measure.high
    return out


def paired(case: Case) -> Values:
    table = case.table()
    truth = table["y_true"].to_numpy(float)
    a, b = (table[column].to_numpy(float) for column in ("score_a", "score_b"))
    keep = usable_rows(truth, a) & np.isfinite(b)
    truth, a, b = truth[keep], a[keep], b[keep]
    test = comparison.paired_auroc(truth, a, b)
    _, covariance = ranking.auc_covariance(truth, np.stack([a, b]))
    out: Values = {
        "auc_a": ranking.auroc(truth, a).value, "auc_b": ranking.auroc(truth, b).value,
        "auc_diff": test.difference.value, "delong_z": test.statistic, "delong_p": test.p,
        "delong_diff_lo": test.difference.low, "delong_diff_hi": test.difference.high,
        "delong_cov": float(covariance[0, 1]),
    }  # fmt: skip
    threshold = float(case.params.get("threshold", 0.5))
    right_a, right_b = ((score >= threshold) == (truth == 1) for score in (a, b))
    for name, rows in (("all", truth >= 0), ("pos", truth == 1), ("neg", truth == 0)):
        result = comparison.mcnemar(right_a[rows], right_b[rows])
        out[f"mcnemar_{name}_b"], out[f"mcnemar_{name}_c"] = result.only_first, result.only_second
        out[f"mcnemar_{name}_exact_p"] = result.p
    return out


def clustered(case: Case) -> Values:
    table = case.table()
    truth, score = table["y_true"].to_numpy(float), table["y_score"].to_numpy(float)
    ids = table["patient_id"].to_numpy()
    codes = patient_codes(ids, truth.size)
    image = ranking.auroc(truth, score, patients=ids)
    out: Values = {"n_images": truth.size, "n_patients": int(codes.max()) + 1,
                   "auc_image": image.value}  # fmt: skip
    for how in ("max", "mean"):
        of_patient = Scores.of(truth, score, ids).per_patient(how)
        put_auc(out, f"{how}_", of_patient.truth, of_patient.score)
        out["n_patients_pos"] = of_patient.positives
        for suffix in ("", "_delong_lo", "_delong_hi"):
            out[f"auc_patient_{how}{suffix}"] = out[f"{how}_auc{suffix}"]
    _, covariance = ranking.auc_covariance(truth, score, ids)
    variance = float(covariance[0, 0])
    out["auc_image_obuchowski_var"] = variance
    low, high = wald(float(image.value or 0), math.sqrt(variance))
    out["auc_image_obuchowski_lo"], out["auc_image_obuchowski_hi"] = low, high
    ranked = ranking.rank(truth, score)
    draws = resampling.bootstrap(
        lambda weights: ranking.area_under_roc(*ranking.weighted_counts(ranked, weights)),
        codes[ranked.order], DRAWN,
    )  # fmt: skip
    low, high = percentile(draws)
    out["auc_image_cluster_boot_lo"], out["auc_image_cluster_boot_hi"] = low, high
    out["auc_image_cluster_boot_se"] = float(np.nanstd(draws, ddof=1))
    flagged = score >= float(case.params.get("threshold", 0.5))
    for name, rows, hits in (("sens", truth == 1, flagged), ("spec", truth == 0, ~flagged)):
        measure = proportion_of_rows(name, hits[rows], patients=ids[rows])
        group = patient_codes(ids[rows], int(rows.sum()))
        out[f"{name}_image"] = measure.value
        out[f"{name}_image_svy_se"] = linearised_error(hits[rows], group)
        out[f"{name}_image_svy_logit_lo"] = measure.low
        out[f"{name}_image_svy_logit_hi"] = measure.high
    return out


def multilabel(case: Case) -> Values:
    table, out = case.table(), {}
    labels = case.params.get("labels") or [c[2:] for c in table.columns if c.startswith("y_")]
    for policy in case.params.get("policies", ["ignore", "u_zeros", "u_ones"]):
        for blank in case.params.get("blank", ["ignore", "zero"]):
            prefix = f"{policy}/blank_{blank}."
            aucs, precisions = [], []
            for label in labels:
                raw = pd.to_numeric(table[f"y_{label}"], errors="coerce").to_numpy(float)
                score = pd.to_numeric(table[f"s_{label}"], errors="coerce").to_numpy(float)
                truth = certain_truth(raw, uncertain=policy, blank=blank)
                keep = usable_rows(truth, score)
                truth, score = truth[keep], score[keep]
                auc = ranking.auroc(truth, score)
                out[f"{prefix}{label}.n"], out[f"{prefix}{label}.n_pos"] = auc.n, auc.n_positive
                out[f"{prefix}{label}.auc"] = auc.value
                precision = discrimination.average_precision(truth, score, ci=ONE)
                out[f"{prefix}{label}.average_precision"] = precision.value
                aucs.append(auc.value)
                precisions.append(precision.value)
            defined = [value for value in aucs if value is not None]
            out[f"{prefix}macro_auc_defined"] = float(np.mean(defined)) if defined else None
            out[f"{prefix}n_labels_defined"] = len(defined)
            defined = [value for value in precisions if value is not None]
            out[f"{prefix}macro_ap_defined"] = float(np.mean(defined)) if defined else None
    return out


def calibrated(case: Case) -> Values:
    out: Values = {}
    truth, score = usable(out, case.table())
    line = {measure.name: measure for measure in calibration.calibration_line(truth, score)}
    z = 2 * 1.959963984540054
    for ours, theirs in (
        ("calibration_slope", "cal_slope"),
        ("calibration_intercept", "cal_intercept_joint"),
        ("calibration_in_the_large", "cal_in_the_large"),
    ):
        measure = line[ours]
        out[theirs] = measure.value
        known = measure.low is not None
        out[f"{theirs}_se"] = (measure.high - measure.low) / z if known else None
    out["brier"] = calibration.brier(truth, score).value
    out["brier_scaled"] = calibration.scaled_brier(truth, score)
    out["nll"] = calibration.log_loss(truth, score).value
    out["oe_ratio"] = float(truth.mean() / score.mean())
    out["auc"] = ranking.auroc(truth, score).value
    try:
        scaling = temperature.fit_recalibration(truth, score)
        out["temperature"] = scaling.temperature
        out["nll_after_temperature"] = calibration.log_loss(truth, scaling(score)).value
    except PredictionsError:
        out["temperature"] = out["nll_after_temperature"] = None
    for bins in case.params.get("bins", [10, 15]):
        for top, name in ((False, "prob"), (True, "toplabel")):
            rows = calibration.top_label(truth, score) if top else (truth, score)
            measure = calibration.expected_calibration_error(*rows, bins=bins, ci=ONE)
            out[f"ece_{name}_w{bins}_rightclosed"] = measure.value
    return out


def decisions(case: Case) -> Values:
    out: Values = {}
    truth, score = usable(out, case.table())
    at = case.params["thresholds"]
    prevalence = case.params.get("prevalence_override")
    curve = decision_curve(truth, score, at)
    for index, threshold in enumerate(at):
        out[f"nb_model@{threshold:g}"] = float(curve.model[index])
        out[f"nb_all@{threshold:g}"] = float(curve.treat_all[index])
        out[f"avoided_per100@{threshold:g}"] = float(curve.avoided_per_100[index])
    if prevalence is not None:
        # The oracle cuts the scores as they are; medtl moves them to the prevalence first.
        for threshold in at:
            table = confusion.count(truth, score, threshold)
            hits = prevalence * table.tp / (table.tp + table.fn)
            alarms = (1 - prevalence) * table.fp / (table.fp + table.tn)
            out[f"nb_model_prev{prevalence:g}@{threshold:g}"] = hits - alarms * threshold / (
                1 - threshold
            )
    return out


def bands(values: pd.Series, edges: list[float]) -> list[str]:
    """Return the name of the band [a, b) that each value lies in, "outside" beyond the edges."""
    names = [f"[{low:g},{high:g})" for low, high in pairwise(edges)]
    found = pd.cut(values, edges, right=False, labels=names).astype(object)
    return found.where(found.notna(), np.where(values.isna(), "unknown", "outside")).tolist()


def groups(case: Case) -> Values:
    out: Values = {}
    table = pd.read_csv(case.folder / case.files[0], keep_default_na=False)
    table["y_true"] = pd.to_numeric(table["y_true"], errors="coerce")
    table["y_score"] = pd.to_numeric(table["y_score"], errors="coerce")
    table = table[usable_rows(table["y_true"], table["y_score"])]
    truth, score = table["y_true"].to_numpy(float), table["y_score"].to_numpy(float)
    threshold = float(case.params.get("threshold", 0.5))
    columns = {name: table[name].astype(str) for name in case.params.get("reference", {})}
    if "age_bands" in case.params:
        ages = pd.to_numeric(table["age"], errors="coerce")
        columns["ageband"] = pd.Series(bands(ages, case.params["age_bands"]))
    for column, values in columns.items():
        for value in pd.unique(values):
            rows, prefix = (values == value).to_numpy(), f"{column}={value}."
            out[f"{prefix}n"], out[f"{prefix}n_pos"] = int(rows.sum()), int(truth[rows].sum())
            put_auc(out, prefix, truth[rows], score[rows])
            for interval, short in (("wilson", "wilson"), ("clopper-pearson", "cp")):
                for measure in confusion.share_measures(
                    truth[rows], score[rows], threshold, interval=interval
                )[:2]:
                    put(out, f"{prefix}{SHARES[measure.name]}", measure, bounds=f"_{short}")
    reference = case.params.get("reference", {})
    found = subgroups.gaps(truth, score, {name: columns[name].to_numpy() for name in reference},
                           threshold=threshold, reference=reference)  # fmt: skip
    gaps = subgroups.adjust_for_multiplicity(found)
    out["n_tests_in_family"] = sum(gap.p is not None for gap in gaps)
    short = {"sensitivity": "sens", "specificity": "spec", "auroc": "auc"}
    for gap in gaps:
        name = f"gap.{gap.column}:{gap.group}-{gap.reference}.{short[gap.of]}"
        out[name] = gap.difference.value
        if gap.p is not None:
            out[f"{name}_newcombe_lo"] = gap.difference.low
            out[f"{name}_newcombe_hi"] = gap.difference.high
            out[f"{name}_fisher_p"], out[f"{name}_holm_p"] = gap.p, gap.p_holm
            out[f"{name}_bh_p"] = gap.p_bh
    return out


def tables(case: Case) -> Values:
    out: Values = {}
    for row in case.table().to_dict("records"):
        counts = confusion.Counts(*(int(row[cell]) for cell in ("tp", "fp", "fn", "tn")))
        put_table(out, f"{row['table']}.", counts, case.params.get("prevalences", []))
    return out


def regression(case: Case) -> Values:
    table = case.table()
    reference, prediction = table["ref_months"].to_numpy(), table["pred_months"].to_numpy()
    error = prediction - reference
    out: Values = {"n": len(table), "sd_diff": float(error.std(ddof=1))}
    mae, rmse, median, r2 = agreement.error_measures(reference, prediction, ci=DRAWN)
    out["mae"] = mae.value
    means = resampling.bootstrap(
        lambda weights: weights @ np.abs(error) / weights.sum(axis=1), np.arange(error.size), DRAWN
    )
    out["mae_boot_lo"], out["mae_boot_hi"] = percentile(means)
    out["rmse"], out["median_ae"] = rmse.value, median.value
    bias, low, high = agreement.bland_altman(reference, prediction)
    out["bias"], out["bias_lo"], out["bias_hi"] = bias.value, bias.low, bias.high
    for name, limit in (("loa_lo", low), ("loa_hi", high)):
        out[name], out[f"{name}_ci_lo"], out[f"{name}_ci_hi"] = limit.value, limit.low, limit.high
    for months in case.params.get("within", [6, 12, 24]):
        for interval, short in (("wilson", "wilson"), ("clopper-pearson", "cp")):
            measure = agreement.within(reference, prediction, months, interval=interval)
            put(out, f"within_{months:g}", measure, bounds=f"_{short}")
    pearson, concordance, on_reference, on_mean = agreement.correlation_measures(
        reference, prediction
    )
    out["pearson_r"], out["lin_ccc"], out["r2"] = pearson.value, concordance.value, r2.value
    out["error_slope_vs_ref"], out["ba_slope_vs_mean"] = on_reference.value, on_mean.value
    readers = [column for column in table.columns if re.fullmatch(r"reader\d+", column)]
    for name, columns in (
        ("icc21", ["ref_months", "pred_months"]),
        ("icc21_3raters", ["pred_months", *readers]),
    ):
        icc = agreement.intraclass_correlation(table[columns].to_numpy())
        out[name], out[f"{name}_lo"], out[f"{name}_hi"] = icc.value, icc.low, icc.high
    edges = case.params.get("bands", [0, 36, 72, 120, 168, 240])
    found_bands = pd.Series(bands(table["age_months"], edges))
    groups = {"sex=": table["sex"], "band": found_bands}
    for prefix, values in groups.items():
        for value in pd.unique(values):
            rows = (values == value).to_numpy()
            first = agreement.error_measures(reference[rows], prediction[rows], ci=ONE)[0]
            out[f"{prefix}{value}.n"], out[f"{prefix}{value}.mae"] = int(rows.sum()), first.value
            bias = agreement.bland_altman(reference[rows], prediction[rows])[0]
            out[f"{prefix}{value}.bias"] = bias.value
    return out


def freeze(case: Case) -> Values:
    out: Values = {}
    parts = {}
    for index, name in enumerate(case.files):
        split = "val" if "val" in name else "test"
        parts[split] = usable({}, case.table(index))
    rules = {
        "sens": {"sensitivity": case.params.get("target_sens", 0.95)},
        "spec": {"specificity": case.params.get("target_spec", 0.9)},
        "youden": {"youden": 1.0},
    }
    for name, rule in rules.items():
        point = choose_operating_point(*parts["val"], rule)
        out[f"{name}.threshold"] = point.threshold
        for split, rows in parts.items():
            put_table(out, f"{name}.{split}.", confusion.count(*rows, point.threshold), [])
    out["test.auc"] = ranking.auroc(*parts["test"]).value
    return out


def multi(case: Case) -> Values:
    table = case.table()
    columns = sorted(
        (c for c in table.columns if re.fullmatch(r"p\d+", c)), key=lambda c: int(c[1:])
    )
    truth = table["y_true"].to_numpy(int)
    scores = table[columns].to_numpy(float)
    out: Values = {"auc_ovo_hand_till": confusion.hand_till(truth, scores)}
    one = [ranking.auroc(truth == index, scores[:, index]).value for index in range(len(columns))]
    out.update({f"auc_ovr_{index}": value for index, value in enumerate(one)})
    matrix = confusion.confusion_matrix(truth, scores.argmax(axis=1), len(columns))
    defined = [value for value in one if value is not None]
    weights = [matrix.sum(axis=1)[index] for index, value in enumerate(one) if value is not None]
    out["auc_ovr_macro"] = float(np.mean(defined))
    out["auc_ovr_weighted"] = float(np.average(defined, weights=weights))
    out["accuracy"] = float(np.trace(matrix) / matrix.sum())
    out["kappa"] = confusion.kappa(matrix)
    out["kappa_quadratic"] = confusion.kappa(matrix, weights="quadratic")
    out["balanced_accuracy"] = confusion.mean_recall(matrix)
    out["f1_macro"] = confusion.f1_macro(matrix)
    return out


def segmentation(case: Case) -> Values:
    import nibabel

    out: Values = {}
    dice = []
    folder = case.folder / case.files[0]
    tolerances = [float(value) for value in case.params.get("nsd_tolerances_mm", [])]
    names = case.params.get("cases") or sorted(
        path.name.removesuffix("_ref.nii.gz") for path in folder.glob("*_ref.nii.gz")
    )
    for name in names:
        images = [nibabel.load(folder / f"{name}_{part}.nii.gz") for part in ("ref", "pred")]
        spacing = tuple(float(str(step)) for step in images[0].header.get_zooms()[:3])
        truth, prediction = (np.asarray(image.dataobj) > 0 for image in images)
        found = overlap.compare_masks(truth, prediction, spacing, tolerances_mm=tolerances)
        dice.append(found.dice)
        volumes = (found.volume_truth_ml, found.volume_prediction_ml)
        out.update({
            f"{name}.voxels_ref": found.voxels_truth,
            f"{name}.voxels_pred": found.voxels_prediction,
            f"{name}.volume_ref_ml": volumes[0], f"{name}.volume_pred_ml": volumes[1],
            f"{name}.volume_diff_ml": volumes[1] - volumes[0],
            f"{name}.rel_volume_diff": found.relative_volume_difference,
            f"{name}.dice": found.dice, f"{name}.iou": found.iou,
            f"{name}.hd95_mm": found.hd95_mm, f"{name}.hd_max_mm": found.hd_mm,
            f"{name}.assd_mm": found.assd_mm, f"{name}.masd_mm": found.masd_mm,
            **{f"{name}.nsd@{mm:g}mm": value for mm, value in found.nsd.items()},
        })  # fmt: skip
    defined = [value for value in dice if value is not None]
    out["summary.n_cases"], out["summary.n_both_empty"] = len(dice), dice.count(None)
    out["summary.dice_mean_defined"] = float(np.mean(defined)) if defined else None
    out["summary.dice_median_defined"] = float(np.median(defined)) if defined else None
    out["summary.dice_mean_empty_as_1"] = float(np.mean([1 if d is None else d for d in dice]))
    return out


def casewise(case: Case) -> Values:
    table = case.table()
    values = pd.to_numeric(table["dice"], errors="coerce").to_numpy(float)
    known = np.isfinite(values)
    defined = values[known]
    out: Values = {"n_cases": len(values), "n_undefined": int((~known).sum()),
                   "dice_sd": float(defined.std(ddof=1))}  # fmt: skip
    summary = {m.name: m for m in overlap.casewise_measures("dice", values, ci=DRAWN)}
    for name, of in (("mean", np.mean), ("median", np.median)):
        measure = resampling.bootstrap_function(
            name, lambda values, _, of=of: float(of(values)), defined, defined, ci=DRAWN
        )
        out[f"dice_{name}"] = summary[f"dice_{name}"].value
        out[f"dice_{name}_boot_lo"], out[f"dice_{name}_boot_hi"] = measure.low, measure.high
    for ours, theirs in (("p05", "p05"), ("p25", "q1"), ("p75", "q3")):
        out[f"dice_{theirs}"] = summary[f"dice_{ours}"].value
    out["n_below_0.5"] = int((defined < 0.5).sum())
    draws = resampling.bootstrap(
        lambda weights: weights @ defined / weights.sum(axis=1), np.arange(defined.size),
        DRAWN,
    )  # fmt: skip
    left_out = (defined.sum() - defined) / (defined.size - 1)
    bounds = bias_corrected(draws, float(defined.mean()), left_out)
    if bounds:
        out["dice_mean_bca_boot_lo"], out["dice_mean_bca_boot_hi"] = bounds
    of_patient = table[known].groupby("patient_id")["dice"].mean()
    out["dice_patient_mean"] = float(of_patient.mean())
    return out


KINDS: Mapping[str, Callable[[Case], Values]] = {
    "binary": binary, "paired": paired, "clustered": clustered, "multilabel": multilabel,
    "calibration": calibrated, "dca": decisions, "subgroup": groups, "table2x2": tables,
    "regression": regression, "freeze": freeze, "multiclass": multi, "segmentation": segmentation,
    "casewise": casewise,
}  # fmt: skip


def read_case(path: Path) -> Case:
    """Return a case: its names, not its values."""
    raw = json.loads(path.read_text())
    wanted = frozenset(entry["name"] for entry in raw.get("values", []))
    return Case(raw["case"], raw["kind"], raw.get("params", {}), tuple(raw["files"]), wanted,
                path.parent)  # fmt: skip


def plain(value: float | int | None) -> float | int | str | None:
    """Return a number as JSON can hold it: NaN is null, infinity is "Inf"."""
    if value is None or math.isnan(value):
        return None
    return ("Inf" if value > 0 else "-Inf") if math.isinf(value) else value


def evaluate_folder(folder: Path) -> dict[str, dict[str, float | int | str | None]]:
    """Return every quantity of every case of the folder."""
    cases = [read_case(path) for path in sorted(folder.glob("*.expected.json"))]
    return {
        case.name: {name: plain(value) for name, value in KINDS[case.kind](case).items()}
        for case in cases
    }


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(evaluate_folder(Path(sys.argv[1])), indent=1))

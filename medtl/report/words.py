"""Numbers and names as a reader wants them: percent, "of 100", intervals, names of measures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from medtl.report.texts import EN, plain

Kind = Literal["share", "score", "months", "mm", "ml", "number", "count"]

MEASURES: Mapping[str, tuple[str, Kind]] = {
    "auroc": ("AUROC", "score"),
    "average_precision": ("Average precision", "score"),
    "sensitivity": ("Sensitivity (found)", "share"),
    "specificity": ("Specificity (rightly not flagged)", "share"),
    "ppv": ("PPV in the test set", "share"),
    "npv": ("NPV in the test set", "share"),
    "ppv_at_prevalence": ("PPV at the stated prevalence", "share"),
    "npv_at_prevalence": ("NPV at the stated prevalence", "share"),
    "accuracy": ("Accuracy", "share"),
    "balanced_accuracy": ("Balanced accuracy", "share"),
    "prevalence": ("Prevalence in the test set", "share"),
    "f1": ("F1", "score"),
    "mcc": ("Matthews correlation", "score"),
    "youden": ("Youden index", "score"),
    "kappa": ("Cohen's kappa", "score"),
    "quadratic_kappa": ("Quadratic weighted kappa", "score"),
    "brier": ("Brier score (0 is best)", "score"),
    "scaled_brier": ("Scaled Brier score", "score"),
    "ece": ("Expected calibration error (0 is best)", "score"),
    "calibration_slope": ("Calibration slope (1 is right)", "number"),
    "calibration_in_the_large": ("Calibration in the large (0 is right)", "number"),
    "lr_positive": ("Positive likelihood ratio", "number"),
    "lr_negative": ("Negative likelihood ratio", "number"),
    "diagnostic_odds_ratio": ("Diagnostic odds ratio", "number"),
    "partial_auc_specificity_90_to_100": ("Partial AUROC, specificity 90% to 100%", "score"),
    "sensitivity_at_specificity_90": (
        "Sensitivity at specificity 90% (threshold from test)",
        "share",
    ),
    "specificity_at_sensitivity_90": (
        "Specificity at sensitivity 90% (threshold from test)",
        "share",
    ),
    "log_loss": ("Log loss (0 is best)", "score"),
    "calibration_intercept": ("Calibration intercept (0 is right)", "number"),
    "temperature": ("Temperature, fitted on validation", "number"),
    "auroc_hand_till": ("AUROC of Hand and Till", "score"),
    "loa_low_months": ("Lower limit of agreement", "months"),
    "loa_high_months": ("Upper limit of agreement", "months"),
    "icc_2_1": ("Intraclass correlation ICC(2,1)", "score"),
    "pearson_r": ("Pearson correlation", "score"),
    "concordance": ("Lin's concordance", "score"),
    "r2": ("R²", "score"),
    "missed": ("Structure missed", "share"),
    "correctly_absent": ("Rightly left empty", "share"),
    "dice_below_50_percent": ("Cases with Dice below 0.5", "share"),
    "mae_months": ("Mean absolute error", "months"),
    "median_absolute_error_months": ("Median absolute error", "months"),
    "rmse_months": ("Root mean square error", "months"),
    "bias_months": ("Bias (estimate minus truth)", "months"),
    "icc": ("Intraclass correlation", "score"),
    "dice": ("Dice", "score"),
    "iou": ("Intersection over union", "score"),
    "hd_mm": ("Hausdorff distance", "mm"),
    "hd95_mm": ("Hausdorff distance, 95th percentile", "mm"),
    "assd_mm": ("Average symmetric surface distance", "mm"),
    "masd_mm": ("Mean average surface distance", "mm"),
    "nsd": ("Normalised surface Dice", "score"),
}
"""Name in metrics.json -> name for a reader and how its value is written."""

_ENDINGS: Mapping[str, str] = {
    "_after_temperature": "after temperature scaling",
    "_median": "median",
    "_p05": "5th percentile",
    "_p25": "25th percentile",
    "_p75": "75th percentile",
    "_gap": "gap",
}
"""Ending of a name in metrics.json -> words behind the name of the measure itself."""

_UNITS: Mapping[str, Kind] = {"months": "months", "mm": "mm", "ml": "ml"}
_PATTERN: Mapping[Kind, str] = {
    "score": "{:.3f}",
    "months": "{:.1f} months",
    "mm": "{:.2f} mm",
    "ml": "{:.1f} ml",
    "number": "{:.2f}",
    "count": "{:,.0f}",
}


def describe(name: str) -> tuple[str, Kind]:
    """Reader's name and kind of a measure; an unknown name keeps its words and its unit."""
    if name in MEASURES:
        return MEASURES[name]
    for ending, suffix in _ENDINGS.items():
        if name.endswith(ending) and (base := name.removesuffix(ending)) in MEASURES:
            return f"{MEASURES[base][0]}, {suffix}", MEASURES[base][1]
    words = name.split("_")
    if words[0] == "within":
        return name.replace("_", " ").capitalize(), "share"
    kind = _UNITS.get(words[-1], "number")
    if kind != "number":
        words = words[:-1]
    return (" ".join(words).capitalize() or name), kind


def finding_name(label: object) -> str:
    """A label as words inside a sentence ("pleural_effusion" -> "pleural effusion")."""
    words = str(label).removesuffix("_months")  # the unit stands with the value
    return words.replace("_", " ").strip() or EN["finding.unnamed"]


def of_100(share: float) -> str:
    """A share in [0, 1] as a count of 100, never rounded to none or all when it is not."""
    rounded = math.floor(100 * share + 0.5)
    if rounded == 0 and share > 0:
        return "<1"
    if rounded == 100 and share < 1:
        return ">99"
    return str(rounded)


def percent(share: float) -> str:
    """A share in [0, 1] in percent; two figures below 10%."""
    if 0 < share < 0.0995:
        return f"{100 * share:.2g}%"
    return f"{of_100(share)}%"


def threshold_text(threshold: object) -> str:
    """A threshold with three decimals, or in words when it is above every score."""
    value = number(threshold)
    if value is None or math.isinf(value):
        return EN["threshold.inf"]
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"


def number(value: object) -> float | None:
    """`value` as a float, "inf" included; None when it is missing or not a number."""
    if value is None or isinstance(value, bool):
        return None
    try:
        result = float(str(value))
    except ValueError:
        return None
    return None if math.isnan(result) else result


def value_text(value: float, kind: Kind) -> str:
    """One value in the form of its kind: "87%", "0.912", "6.1 months"."""
    return percent(value) if kind == "share" else _PATTERN[kind].format(value).replace("-", "−")


def interval_text(measure: Mapping[str, Any], kind: Kind) -> str:
    """The interval of a measure ("79% to 92%"), or "" when there is none."""
    low, high = number(measure.get("low")), number(measure.get("high"))
    if low is None or high is None:
        return ""
    unit = {"months": " months", "mm": " mm", "ml": " ml"}.get(kind, "")
    return plain(
        "interval",
        low=value_text(low, kind).removesuffix(unit) if unit else value_text(low, kind),
        high=value_text(high, kind),
    )


def reason_of(measure: Mapping[str, Any]) -> str:
    """Why a measure is not "ok", never empty."""
    return str(measure.get("reason") or EN["no_reason"]).rstrip(".")


def level_text(measure: Mapping[str, Any]) -> str:
    """The level of the interval in percent, without the sign ("95")."""
    return f"{100 * (number(measure.get('confidence')) or 0.95):g}"


def count_text(value: object) -> str:
    """A count with thousands separators, or an en dash when it is missing."""
    result = number(value)
    return "–" if result is None else f"{result:,.0f}"


def sentence(text: str) -> str:
    """Return a label as the start of a sentence: only its first letter changes ("NA" stays)."""
    return text[:1].upper() + text[1:]

"""An example of all that the report renders: metrics, records and pictures, all made up.

`write_example(folder)` writes a run folder and its report.html; the kinds are `single`, `several`
(three findings, one without positives, one with AUROC 1), `bone_age` and `segmentation`.
"""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

Metrics = dict[str, Any]


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Wilson's interval at 95%."""
    z = 1.959964
    share = hits / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(centre - half, 0.0), min(centre + half, 1.0)


def measure(name: str, value: float | None, label: str = "", **more: Any) -> dict[str, Any]:
    """One measure of metrics.json."""
    row = {
        "name": name, "value": value, "label": label, "split": "test", "subset": "all",
        "low": None, "high": None, "confidence": 0.95, "n": 0, "n_positive": None,
        "n_patients": None, "method": "", "status": "ok", "reason": "",
    }  # fmt: skip
    return {**row, **more}


def proportion(name: str, hits: int, of: int, label: str, **more: Any) -> dict[str, Any]:
    """A share with Wilson's interval, or undefined when nothing was counted."""
    more["n"] = of  # a share counts the rows it divides by
    if of == 0:
        reason = {"sensitivity": "no positives in the test set"}.get(name, "nothing to count")
        return measure(name, None, label, status="undefined", reason=reason, **more)
    low, high = wilson(hits, of)
    return measure(name, hits / of, label, low=low, high=high, method="Wilson", **more)


def auroc(y: np.ndarray, score: np.ndarray) -> float:
    """Share of pairs in the right order."""
    pairs = score[y == 1][:, None] - score[y == 0][None, :]
    return float(np.mean(pairs > 0) + 0.5 * np.mean(pairs == 0))


def counts_at(y: np.ndarray, score: np.ndarray, threshold: float) -> dict[str, int]:
    """The 2x2 table; positive if and only if score >= threshold."""
    flagged = score >= threshold
    return {
        "tp": int(np.sum(flagged & (y == 1))),
        "fp": int(np.sum(flagged & (y == 0))),
        "fn": int(np.sum(~flagged & (y == 1))),
        "tn": int(np.sum(~flagged & (y == 0))),
    }


def _curves(y: np.ndarray, score: np.ndarray, label: str) -> list[dict[str, Any]]:
    thresholds = np.unique(np.round(score, 4))
    tables = [counts_at(y, score, t) for t in thresholds]
    positives, negatives, n = max(int(y.sum()), 1), int((1 - y).sum()), len(y)
    tpr = [t["tp"] / positives for t in tables]
    fpr = [t["fp"] / negatives for t in tables]
    half = [1.96 * math.sqrt(max(v * (1 - v), 0.002) / positives) for v in tpr]
    edges = np.linspace(0, 1, 21)
    which = np.clip(np.digitize(score, np.linspace(0, 1, 11)) - 1, 0, 9)
    bins = [(which == b) for b in range(10) if np.sum(which == b) > 2]
    pt = np.linspace(0.02, 0.6, 59)
    benefit = []
    for t in pt:
        c = counts_at(y, score, float(t))
        benefit.append(c["tp"] / n - c["fp"] / n * t / (1 - t))
    prevalence = float(y.mean())
    base = {"label": label, "split": "test"}
    observed = [(int(y[b].sum()), int(b.sum())) for b in bins]
    return [
        {**base, "name": "roc", "x": [1.0, *fpr, 0.0], "y": [1.0, *tpr, 0.0],
         "low": [1.0, *(max(v - h, 0) for v, h in zip(tpr, half, strict=True)), 0.0],
         "high": [1.0, *(min(v + h, 1) for v, h in zip(tpr, half, strict=True)), 0.0],
         "threshold": [0.0, *thresholds.tolist(), "inf"]},
        {**base, "name": "precision_recall", "x": tpr,
         "y": [t["tp"] / (t["tp"] + t["fp"]) for t in tables],
         "threshold": thresholds.tolist(), "baseline": prevalence},
        {**base, "name": "reliability", "x": [float(score[b].mean()) for b in bins],
         "y": [k / m for k, m in observed], "low": [wilson(k, m)[0] for k, m in observed],
         "high": [wilson(k, m)[1] for k, m in observed], "count": [m for _, m in observed]},
        {**base, "name": "decision", "x": pt.tolist(), "y": benefit,
         "treat_all": [prevalence - (1 - prevalence) * t / (1 - t) for t in pt.tolist()]},
        {**base, "name": "score_histogram", "x": edges.tolist(),
         "positive": np.histogram(score[y == 1], edges)[0].tolist(),
         "negative": np.histogram(score[y == 0], edges)[0].tolist()},
        {**base, "name": "threshold_table", "threshold": thresholds.tolist(),
         **{k: [t[k] for t in tables] for k in ("tp", "fp", "fn", "tn")}},
    ]  # fmt: skip


def _at_point(c: dict[str, int], label: str, **more: Any) -> list[dict[str, Any]]:
    return [
        proportion("sensitivity", c["tp"], c["tp"] + c["fn"], label, **more),
        proportion("specificity", c["tn"], c["fp"] + c["tn"], label, **more),
        proportion("ppv", c["tp"], c["tp"] + c["fp"], label, **more),
        proportion("npv", c["tn"], c["tn"] + c["fn"], label, **more),
    ]


def finding(
    label: str, *, seed: int, n: int, prevalence: float, shift: float, threshold: float
) -> Metrics:
    """The parts of metrics.json of one yes-or-no finding, with made-up scores."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < prevalence).astype(int)
    score = np.round(1 / (1 + np.exp(-(rng.normal(-2.1, 1.1, n) + shift * y))), 4)
    sex = np.where(rng.random(n) < 0.46, "F", "M")
    view = np.where(rng.random(n) < 0.06, "AP supine", np.where(rng.random(n) < 0.5, "PA", "AP"))
    c = counts_at(y, score, threshold)
    size = {"n": n, "n_positive": int(y.sum()), "n_patients": n - n // 12}
    measures = _at_point(c, label, **size)
    if y.sum() == 0:
        gone = {"status": "undefined", "reason": "no positives in the test set", **size}
        measures += [measure(k, None, label, **gone) for k in ("auroc", "average_precision")]
    else:
        area = auroc(y, score)
        extra: dict[str, Any] = {"low": area - 0.028, "high": area + 0.019}
        if area == 1:
            reason = "the classes are perfectly separated; DeLong's variance is 0"
            extra = {"low": 1.0, "high": 1.0, "status": "degenerate", "reason": reason}
        measures.append(
            measure("auroc", area, label, method="DeLong, logit scale", **extra, **size)
        )
        se, sp = c["tp"] / (c["tp"] + c["fn"]), c["tn"] / (c["fp"] + c["tn"])
        ppv = 0.05 * se / (0.05 * se + 0.95 * (1 - sp))
        npv = 0.95 * sp / (0.95 * sp + 0.05 * (1 - se))
        boot = {"method": "bootstrap by patient", **size}
        logit, wald = {"method": "logit", **size}, {"method": "Wald", **size}
        bins = {"method": "10 equal-width bins", **size}
        measures += [
            measure("average_precision", 0.62, label, low=0.5, high=0.72, **boot),
            measure("ppv_at_prevalence", ppv, label, low=ppv - 0.04, high=ppv + 0.05, **logit),
            measure("npv_at_prevalence", npv, label, low=0.99, high=0.999, **logit),
            measure("brier", 0.071, label, low=0.06, high=0.083, **boot),
            measure("ece", 0.031, label, **bins),
            measure("calibration_slope", 1.08, label, low=0.89, high=1.27, **wald),
            measure("calibration_in_the_large", -0.12, label, low=-0.4, high=0.16, **wald),
        ]
    for column, values in (("sex", sex), ("view", view)):
        for level in np.unique(values):
            mine = values == level
            some = {
                "subset": f"{column}={level}", "n": int(mine.sum()),
                "n_positive": int(y[mine].sum()), "n_patients": int(mine.sum()),
            }  # fmt: skip
            measures += _at_point(counts_at(y[mine], score[mine], threshold), label, **some)[:2]
            if 0 < y[mine].sum() < mine.sum():
                area = auroc(y[mine], score[mine])
                low = max(area - 0.08, 0)
                some["method"] = "DeLong, logit scale"
                measures.append(
                    measure("auroc", area, label, low=low, high=min(area + 0.05, 1), **some)
                )
    val = {"split": "val", "n": 300, "n_positive": 44, "n_patients": 280}
    measures += [
        proportion("sensitivity", 40, 44, label, **val),
        proportion("specificity", 220, 256, label, **val),
    ]
    curves = [] if y.sum() == 0 else _curves(y, score, label)
    return {
        "measures": measures,
        "operating_points": [
            {"label": label, "threshold": threshold, "rule": "sensitivity >= 0.90",
             "chosen_on": "val", "n": 300, "n_positive": 44},
        ],
        "counts": [{"label": label, "split": "test", "subset": "all", "threshold": threshold, **c}],
        "curves": curves,
    }  # fmt: skip


def join(*parts: Metrics) -> Metrics:
    """metrics.json from the parts of its findings."""
    names = ("measures", "operating_points", "counts", "curves")
    joined = {name: [row for part in parts for row in part.get(name, [])] for name in names}
    return {"schema": "medtl-metrics/1", **joined, "confusion": None, "notes": []}


def single() -> Metrics:
    """One finding."""
    metrics = join(
        finding("pleural_effusion", seed=3, n=640, prevalence=0.14, shift=2.7, threshold=0.2413)
    )
    return {**metrics, "notes": ["Intervals resample patients, not images (2000 draws, seed 7)."]}


def several() -> Metrics:
    """Three findings: an ordinary one, one that is perfectly separated, one without positives."""
    metrics = join(
        finding("effusion", seed=3, n=640, prevalence=0.14, shift=2.7, threshold=0.2413),
        finding("pneumothorax", seed=5, n=640, prevalence=0.03, shift=14.0, threshold=0.9),
        finding("hernia", seed=9, n=640, prevalence=0.0, shift=2.0, threshold=0.5),
    )
    size = {"n": 640, "n_positive": None, "n_patients": 587}
    average = measure("auroc", 0.964, "macro", low=0.93, high=0.985, method="bootstrap by patient",
                      reason="2 of 3 findings", **size)  # fmt: skip
    metrics["measures"].append(average)
    metrics["confusion"] = {"classes": ["none", "effusion", "pneumothorax"],
                            "matrix": [[480, 60, 2], [11, 70, 1], [0, 2, 14]]}  # fmt: skip
    return metrics


def bone_age() -> Metrics:
    """Measures in months, no threshold."""
    size = {"n": 200, "n_patients": 200}
    label = "bone_age_months"
    rows = [
        measure("mae_months", 7.9, label, low=7.1, high=8.8, method="bootstrap by patient", **size),
        measure("rmse_months", 10.3, label, low=9.2, high=11.5, method="bootstrap", **size),
        measure("bias_months", -1.2, label, low=-2.6, high=0.3, method="t", **size),
        measure("within_12_months", 0.79, label, low=0.73, high=0.84, method="Wilson", **size),
        measure("icc", 0.971, label, low=0.96, high=0.98, method="ICC(2,1), F", **size),
        measure("mae_months", 8.4, label, low=7.2, high=9.7, **{**size, "n": 96}, subset="sex=F"),
        measure("mae_months", 7.4, label, low=6.4, high=8.6, **{**size, "n": 104}, subset="sex=M"),
    ]
    return join({"measures": rows})


def segmentation() -> Metrics:
    """Overlap and distance of one structure."""
    size = {"n": 40, "n_patients": 40, "method": "bootstrap by patient"}
    rows = [
        measure("dice", 0.963, "lung", low=0.955, high=0.97, **size),
        measure("hd95_mm", 6.42, "lung", low=5.1, high=8.2, **size),
        measure("assd_mm", None, "lung", status="undefined", reason="one prediction is empty"),
    ]
    return join({"measures": rows})


KINDS = {
    "single": single,
    "several": several,
    "bone_age": bone_age,
    "segmentation": segmentation,
}

STUDY: dict[str, Any] = {
    "question": "Is there a pleural effusion on this frontal chest radiograph?",
    "title": "Pleural effusion, adult emergency chest radiographs",
    "intended_use": "Research on worklist order in the emergency department. A radiologist reads"
    " every image; the network neither reports nor discharges.",
    "out_of_scope": "children, lateral views, images after thoracic surgery",
    "prevalence": 0.05,
}

RECIPE = """study:
  question: "Is there a pleural effusion on this frontal chest radiograph?"
  title: "Pleural effusion, adult emergency chest radiographs"
  intended_use: >-
    Research on worklist order in the emergency department. A radiologist reads every image; the
    network neither reports nor discharges.
  out_of_scope: "children, lateral views, images after thoracic surgery"
  operating_point: {sensitivity: 0.90}
  prevalence: 0.05
  synthetic: true
data: {manifest: data/chest.csv, target: pleural_effusion, strata: [sex, view]}
image: {modality: cxr, size: 224}
model: {backbone: tf_efficientnet_lite0, weights: bundled}
task: {kind: classification}
finetune:
  stages:
    - {name: head, train: head, epochs: 6, lr: 1e-3}
    - {name: top, train: [head, "last:1"], epochs: 8, lr: {head: 3e-4, base: 1e-4}}
    - {name: full, train: all, epochs: 10, lr: {head: 1e-4, base: 3e-5}}
"""


def history() -> list[dict[str, Any]]:
    """A course of training that overfits in the last stage."""
    rng = np.random.default_rng(1)
    rows, lowest = [], 9.0
    plan = [("head", 6, 1e-3, 0.0), ("top", 8, 3e-4, 1e-4), ("full", 10, 1e-4, 3e-5)]
    for stage, epochs, head, base in plan:
        for epoch in range(epochs):
            k = len(rows)
            train = 0.62 * math.exp(-k / 7) + 0.11
            val = 0.56 * math.exp(-k / 6.5) + 0.185 + 0.0009 * max(k - 13, 0) ** 1.9
            val += float(rng.normal(0, 0.004))
            best = int(val < lowest)
            lowest = min(lowest, val)
            rows.append({"stage": stage, "epoch": epoch + 1, "step": 40 * (k + 1), "lr_head": head,
                         "lr_base": base, "train_loss": round(train, 5), "val_loss": round(val, 5),
                         "val_metric": round(0.94 - 0.5 * (val - 0.2), 4), "seconds": 21.5,
                         "best": best})  # fmt: skip
    return rows


COHORT: dict[str, Any] = {
    "splits": {
        split: {
            "images": images,
            "patients": patients,
            "labels": {
                "pleural_effusion": {
                    "positive": positive,
                    "negative": images - positive - missing - 3,
                    "missing": missing,
                    "uncertain": 3,
                }
            },
            "age": age,
            "sex": {"F": round(images * 0.46), "M": images - round(images * 0.46)},
        }
        for split, images, patients, positive, missing, age in (
            ("train", 2100, 1804, 301, 12, "58 (44 to 70)"),
            ("val", 300, 280, 44, 2, "57 (43 to 70)"),
            ("test", 640, 587, 91, 4, "59 (44 to 71)"),
        )
    },
    "excluded": [
        {"reason": "not readable as an image", "n": 4},
        {"reason": "lateral view", "n": 212},
        {"reason": "no label", "n": 18},
    ],
    "split_hash": "sha256:8f2c41d09b7a6e35",
    "notes": ["Split by patient; no patient and no identical image is in two parts."],
}

QUALITY: dict[str, Any] = {
    "cases": [
        {"case_id": f"c{i:04d}", "split": ("train", "val", "test")[i % 3],
         "file": f"img/{i:04d}.dcm",
         "flags": ["burned_in_annotation"] if i % 4 else ["inverted_monochrome1", "no_spacing"]}
        for i in range(23)
    ],
    "quarantined": [
        {"case_id": "c9001", "cause": "pixel data shorter than the header says"},
        {"case_id": "c9002", "cause": "transfer syntax not supported"},
    ],
    "notes": ["2 of 3042 images were refused; the run went on."],
}  # fmt: skip

ENVIRONMENT: dict[str, Any] = {
    "medtl": "0.1.0", "python": "3.11.2", "commit": "1b9e0c7", "seed": 7, "threads": 2,
    "device": "cpu", "packages": {"torch": "2.11.0", "timm": "1.0.31", "pydicom": "3.0.2"},
    "weights_sha256": "53e7ee4dbd1b02ce", "command": ["medtl", "run", "chest.yaml"],
}  # fmt: skip


def write_gallery(folder: Path, per_kind: int = 4, side: int = 96) -> Path:
    """A gallery of drawn chests with heat maps."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows, columns = np.meshgrid(*[np.linspace(-1, 1, side)] * 2, indexing="ij")
    entries = []
    for kind, truth, low in (("missed", 1, 0.01), ("false_alarm", 0, 0.6), ("uncertain", 1, 0.22)):
        for index in range(per_kind):
            left = np.exp(-(((columns + 0.42) / 0.3) ** 4 + (rows / 0.75) ** 4))
            right = np.exp(-(((columns - 0.42) / 0.3) ** 4 + (rows / 0.75) ** 4))
            body = 0.75 - 0.5 * (left + right) + 0.05 * np.sin(18 * rows + index) * (left + right)
            level = rng.uniform(0.25, 0.55)
            body += 0.45 * truth * np.clip((rows - level) * 6, 0, 1) * right
            grey = np.clip(body + rng.normal(0, 0.02, body.shape), 0, 1)
            heat = np.exp(-(((columns - 0.4) / 0.25) ** 2 + ((rows - level) / 0.3) ** 2))
            colour = np.stack([grey + 0.6 * heat, grey + 0.25 * heat, grey * (1 - 0.6 * heat)], -1)
            name = f"{kind}_{index}"
            Image.fromarray((255 * grey).astype(np.uint8)).save(folder / f"{name}.png")
            picture = Image.fromarray((255 * np.clip(colour, 0, 1)).astype(np.uint8))
            picture.save(folder / f"{name}_cam.png")
            entries.append({"case_id": f"{rng.integers(16**8):08x}", "kind": kind,
                            "label": "pleural_effusion",
                            "y_true": truth, "y_score": round(low + 0.03 * index, 4),
                            "threshold": 0.2413, "image": f"{name}.png",
                            "overlay": f"{name}_cam.png"})  # fmt: skip
    (folder / "gallery.json").write_text(json.dumps(entries), encoding="utf-8")
    return folder


def write_run(folder: Path, kind: str = "single", side: int = 96) -> Path:
    """A run folder with every record the report reads."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {
        "metrics.json": KINDS[kind](),
        "cohort.json": COHORT,
        "data_quality.json": QUALITY,
        "environment.json": ENVIRONMENT,
    }
    for name, content in parts.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    with (folder / "history.csv").open("w", encoding="utf-8", newline="") as file:
        rows = history()
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    write_gallery(folder / "gallery", side=side)
    return folder


def write_example(folder: Path, kind: str = "single") -> Path:
    """A run folder and its report; returns the path of report.html."""
    from medtl.run.folder import Run

    return Run(write_run(folder, kind, side=384)).report()

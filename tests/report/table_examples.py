"""Prediction tables as other tools make them, all made up: one folder per kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

STUDY = """study:
  question: "Pneumonia on a frontal chest radiograph?"
  intended_use: "Research on worklist order"
  reference_standard: "two readers, a third where they differ"
"""


def scores(n: int, split: str, seed: int, images: int = 1) -> pd.DataFrame:
    """Rows of one finding with age, sex and view."""
    rng = np.random.default_rng(seed)
    truth = (rng.random(n) < 0.3).astype(float)
    score = 1 / (1 + np.exp(-(rng.normal(-1.2, 1.1, n) + 2 * truth)))
    return pd.DataFrame({
        "case_id": [f"{split}{i:04d}" for i in range(n)],
        "patient_id": [f"{split}p{i // images:04d}" for i in range(n)],
        "split": split, "label": "pneumonia", "y_true": truth, "y_score": score.round(4),
        "age": rng.integers(18, 95, n), "sex": np.where(rng.random(n) < 0.5, "F", "M"),
    })  # fmt: skip


def classification(folder: Path) -> Path:
    """Two images per patient, some uncertain labels, a validation part."""
    table = pd.concat([scores(160, "val", 1, 2), scores(240, "test", 2, 2)], ignore_index=True)
    table["y_true_raw"] = table["y_true"]
    uncertain = np.arange(len(table)) % 17 == 0
    table.loc[uncertain, "y_true_raw"] = -1
    table.loc[uncertain, "y_true"] = np.nan
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "predictions.yaml").write_text(STUDY, encoding="utf-8")
    return _written(table, folder)


def bone_age(folder: Path, n: int = 120) -> Path:
    """Readings in months that are pulled towards the middle."""
    rng = np.random.default_rng(3)
    reference = rng.uniform(12, 216, n).round()
    estimate = reference + rng.normal(2, 9, n) - 0.06 * (reference - 110)
    return _written(pd.DataFrame({
        "case_id": [f"h{i:03d}" for i in range(n)], "patient_id": [f"p{i:03d}" for i in range(n)],
        "split": "test", "label": "bone_age_months", "y_true": reference,
        "y_score": estimate.round(1), "sex": np.where(rng.random(n) < 0.5, "F", "M"),
    }), folder)  # fmt: skip


def segmentation(folder: Path, n: int = 14) -> Path:
    """Masks of a heart and, in most cases, a tumour, as PNG with a pixel size in the table."""
    from PIL import Image

    rng = np.random.default_rng(4)
    rows, columns = np.mgrid[:48, :48]
    (folder / "masks").mkdir(parents=True)
    table = []
    for case in range(n):
        radius, shift = rng.uniform(7, 10), rng.normal(0, 1)
        masks = {}
        for name, moved in (("truth", 0.0), ("prediction", shift)):
            mask = np.zeros(rows.shape, np.uint8)
            mask[(rows - 20) ** 2 + (columns - 24 - moved) ** 2 < radius**2] = 1
            if case % 5 and not (name == "prediction" and case == 3):
                mask[40:44, 4 : 8 + (name == "truth")] = 2
            masks[name] = f"masks/{name}{case}.png"
            Image.fromarray(mask).save(folder / masks[name])
        table.append({"case_id": f"s{case:02d}", "patient_id": f"p{case:02d}", "split": "test",
                      **masks, "spacing_mm": "0.7 0.7", "sex": "FM"[case % 2]})  # fmt: skip
    (folder / "predictions.yaml").write_text(
        "labels: {1: heart, 2: tumour}\nstudy: {question: Heart and tumour?}\n", encoding="utf-8"
    )
    return _written(pd.DataFrame(table), folder)


def models(folder: Path) -> Path:
    """Three models and two readers on the same cases."""
    both = pd.concat([scores(120, "val", 1), scores(160, "test", 2)], ignore_index=True)
    parts = []
    for seed, (name, noise) in enumerate((("baseline", 1.5), ("net A", 0.2), ("net B", 0.25))):
        rng = np.random.default_rng(seed)
        logit = np.log(both["y_score"] / (1 - both["y_score"])) + rng.normal(0, noise, len(both))
        parts.append(both.assign(y_score=1 / (1 + np.exp(-logit)), model=name, reader=""))
    test = both[both["split"] == "test"]
    for seed, reader in enumerate(("R1", "R2")):
        rng = np.random.default_rng(seed)
        wrong = rng.random(len(test)) < 0.15
        parts.append(test.assign(y_score=np.where(wrong, 1 - test["y_true"], test["y_true"]),
                                 model="", reader=reader))  # fmt: skip
    return _written(pd.concat(parts, ignore_index=True), folder)


def classes(folder: Path, n: int = 150) -> Path:
    """Three classes of which one is true."""
    rng = np.random.default_rng(5)
    names, rows = ("normal", "bacterial", "viral"), []
    for case in range(n):
        truth = rng.integers(3)
        raw = np.exp(rng.normal(0, 1, 3) + 1.8 * (np.arange(3) == truth))
        for at, name in enumerate(names):
            rows.append({"case_id": f"c{case}", "patient_id": f"p{case}", "label": name,
                         "y_true": float(at == truth), "y_score": raw[at] / raw.sum()})  # fmt: skip
    return _written(pd.DataFrame(rows), folder)


KINDS = {
    "classification": classification,
    "bone_age": bone_age,
    "segmentation": segmentation,
    "models": models,
    "classes": classes,
}


def _written(table: pd.DataFrame, folder: Path) -> Path:
    """The table as a CSV file."""
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "predictions.csv", index=False)
    return folder / "predictions.csv"

"""Tables of a million rows: what checking a manifest and reporting on predictions cost.

    python -m benchmarks.large --out FOLDER [--rows 1000000] [--python OTHER/bin/python]

FOLDER gets a manifest with its (empty) image files and two tables of scores, which are kept and
used again. `--python` names the environment of another version, to compare with.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from benchmarks.measured import medtl

PER_FOLDER = 1000
"""Files in one folder of images."""

FINDINGS = ("effusion", "oedema", "nodule")


def write_manifest(folder: Path, rows: int) -> Path:
    """Write a manifest of films with two or three a patient, and an empty file for each."""
    path = folder / f"films-{rows}.csv"
    if path.exists():
        return path
    draw = np.random.default_rng(7)
    patients = np.sort(draw.integers(0, max(1, rows * 2 // 5), rows))
    splits = np.array(["train", "val", "test"])[draw.choice(3, patients[-1] + 1, p=(0.7, 0.1, 0.2))]
    ages, present = draw.integers(18, 95, rows), draw.random((rows, len(FINDINGS))) < 0.2
    lines = [f"image,patient_id,split,age,sex,view,{','.join(FINDINGS)}"]
    for number, patient in enumerate(patients):
        place = Path(f"films/{number // PER_FOLDER:04d}")
        if number % PER_FOLDER == 0:
            (folder / place).mkdir(parents=True, exist_ok=True)
        image = f"{place}/film-{number:07d}.dcm"
        (folder / image).touch()
        marks = ",".join(map(str, present[number].astype(int)))
        facts = f"{ages[number]},{'FM'[patient % 2]},{('AP', 'PA')[number % 2]}"
        lines.append(f"{image},patient{patient:07d},{splits[patient]},{facts},{marks}")
    path.write_text("\n".join(lines) + "\n")
    return path


def write_predictions(folder: Path, rows: int) -> Path:
    """Write scores of one finding, a fifth of validation, two or three a patient."""
    path = folder / f"scores-{rows}.csv"
    if path.exists():
        return path
    draw = np.random.default_rng(8)
    patients = np.sort(draw.integers(0, max(1, rows * 2 // 5), rows))
    is_val = (draw.random(patients[-1] + 1) < 0.2)[patients]
    truth = draw.random(rows) < 0.2
    scores = 1 / (1 + np.exp(-(draw.normal(size=rows) + 1.2 * truth - 1.6)))
    ages = draw.integers(18, 90, rows)
    lines = ["case_id,patient_id,split,label,y_true,y_score,age,sex"]
    lines += [
        f"c{i:07d},p{p:07d},{'val' if val else 'test'},effusion,{int(y)},{s:.6f},{a},{'FM'[p % 2]}"
        for i, (p, val, y, s, a) in enumerate(
            zip(patients, is_val, truth, scores, ages, strict=True)
        )
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def main() -> None:
    """Make the tables, run the three commands, print what each cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--python", default=sys.executable)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    manifest, scores = (
        write_manifest(asked.out, asked.rows),
        write_predictions(asked.out, asked.rows),
    )
    page, numbers = asked.out / "report.html", asked.out / "metrics.json"
    for command in (
        ("manifest", "check", manifest),
        ("evaluate", scores, "--out", numbers),
        ("report", scores, "--out", page),
    ):
        for made in (page, numbers):
            made.unlink(missing_ok=True)
        cost = medtl(*command, python=asked.python)
        print(f"| medtl {' '.join(map(str, command[:2]))} | {asked.rows:,} | {cost} |", flush=True)


if __name__ == "__main__":
    main()

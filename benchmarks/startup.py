"""From the command to its first word."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.table import ROUNDS, Row

MEDTL = (sys.executable, "-c", "from medtl.cli.main import main; main()")
FIRST_PASS = "import sys, pathlib, medtl.run.check as c; c.read_recipe(pathlib.Path(sys.argv[1]))"
IMPORTS = {"torch": "import torch", "monai": "import monai"}


def rows() -> Iterator[Row]:
    """Yield `--help` and `check` beside what an import alone costs others."""
    with TemporaryDirectory() as folder:
        recipe = _small_study(Path(folder))
        commands = {
            "medtl --help": [*MEDTL, "--help"],
            "medtl check, first pass": [sys.executable, "-c", FIRST_PASS, str(recipe)],
            "medtl check, with plan": [*MEDTL, "check", str(recipe)],
        }
        for what, command in commands.items():
            ours = median(_seconds(command) for _ in range(ROUNDS))
            for other, code in IMPORTS.items():
                theirs = median(_seconds([sys.executable, "-c", code]) for _ in range(ROUNDS))
                yield Row(what, f"python -c 'import {other}'", ours, theirs, theirs / ours)


def _small_study(folder: Path) -> Path:
    """A recipe, a manifest and small pictures."""
    import numpy as np
    from PIL import Image

    rows = ["image,patient_id,finding"]
    for index in range(24):
        pixels = np.random.default_rng(index).integers(0, 256, (64, 64), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
        rows.append(f"{index}.png,p{index},{index % 2}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE, encoding="utf-8")
    return recipe


RECIPE = """
study: {question: "Is there a finding?", operating_point: {sensitivity: 0.8}, prevalence: 0.1}
data: {manifest: manifest.csv, target: finding}
image: {modality: cxr, size: 64}
model: {backbone: resnet18, weights: {source: none, random_features: true}}
finetune:
  stages:
    - {name: head, train: head, epochs: 1, lr: 1e-2}
run: {tensorboard: false, device: cpu}
"""


def _seconds(command: list[str]) -> float:
    """Processor seconds of a child, its own children included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "80"}
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command[1:4])}: {done.stdout[-400:]}{done.stderr[-400:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

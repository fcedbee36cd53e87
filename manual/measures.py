"""The page of measures: definition, interval, source and where there is no value.

Names and directions are the catalogue's. Intervals are those that an evaluation of drawn cases
names, so that the page cannot say another method than the report.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

import medtl as mt
from manual.markdown import code, table
from medtl.metrics.catalogue import CATALOGUE, entry
from medtl.storage.yaml import load_yaml

HEAD = """# Measures

Every measure of `metrics.json`, from the catalogue. A name there may have a unit
(`mae_months`), a number (`within_12_months`) or an ending (`dice_median`, `auroc_gap_p`). A
value that cannot be computed is left out with its reason; it is never 0, 0.5 or "nan".
Intervals are 95 % and over patients: the column says which method an evaluation names where
each patient has one image, and where some have several. Without a method there is no interval,
or a study of several runs gives one.

"""

DESCRIBED: dict[str, dict[str, str]] = load_yaml(Path(__file__).with_name("measures.yaml"))
"""Base name -> definition, where it is undefined, the function whose docstring has the source."""


def measures_page() -> str:
    """Return the page: one table for each module that measures come from."""
    rooms: dict[str, list[str]] = {}
    for name in CATALOGUE:
        rooms.setdefault(_described(name)["by"].rpartition(".")[0], []).append(name)
    head = ("measure", "definition", "better", "interval", "no value", "source")
    return HEAD + "\n".join(
        f"## {room.rpartition('.')[2].replace('_', ' ').capitalize()}\n\n"
        + table(head, map(_row, names))
        for room, names in rooms.items()
    )


def _described(name: str) -> dict[str, str]:
    """What is said of a measure; a name of the catalogue without it stops the manual."""
    if name not in DESCRIBED:
        msg = f"manual/measures.yaml has no {name!r}, which medtl/metrics/catalogue.yaml has"
        raise KeyError(msg)
    return DESCRIBED[name]


def _row(name: str) -> tuple[str, ...]:
    """One measure."""
    about, of = _described(name), CATALOGUE[name]
    return (
        code(name),
        about["is"],
        of.better or "neither",
        " or ".join(intervals().get(name, ())),
        about["undefined"],
        _source(about["by"]),
    )


def _source(function: str) -> str:
    """The reference in a function's docstring, and its dotted name."""
    module, _, name = function.rpartition(".")
    doc = getattr(import_module(f"medtl.{module}"), name).__doc__ or ""
    found = re.search(r"Reference:\n(.+?)(?:\n\s*\n|\n\s*>>>|\Z)", doc, re.DOTALL)
    place = code(f"medtl.{function}")
    return f"{found[1].strip().rstrip('.')}; {place}" if found else place


@cache
def intervals() -> dict[str, tuple[str, ...]]:
    """Return the methods of intervals by base name, as evaluations of drawn cases name them."""
    found: dict[str, dict[str, None]] = {}
    for measure in _drawn():
        if measure.low is not None and measure.method:
            method = measure.method.partition(", B=")[0].partition("labels; ")
            found.setdefault(entry(measure.name).base, {})[method[2] or method[0]] = None
    return {name: tuple(methods) for name, methods in found.items()}


def _drawn() -> Iterator[Any]:
    """Yield the measures of drawn cases of every kind, one and two images a patient."""
    rng = np.random.default_rng(0)
    n = 150
    truth = rng.integers(0, 2, n)
    score = 1 / (1 + np.exp(-(rng.normal(-0.7, 1.2, n) + 1.5 * truth)))
    split = np.where(np.arange(n) < 60, "val", "test")
    few = mt.CI(resamples=100)
    classes = rng.integers(0, 3, n)
    raw = np.exp(rng.normal(0, 1, (n, 3)) + 1.5 * np.eye(3)[classes])
    months = rng.uniform(12, 200, n)
    read = months + rng.normal(0, 9, n)
    for patients in (None, np.arange(n) // 2):
        yield from mt.evaluate(
            truth, score, patients, split=split, rule={"youden": True}, prevalence=0.1, ci=few
        ).measures
        yield from mt.evaluate(
            classes, raw / raw.sum(1, keepdims=True), patients, labels=("a", "b", "c"), ci=few
        ).measures
        yield from mt.evaluate(months, read, patients, unit="months", ci=few).measures
    yield from _of_masks(rng)


def _of_masks(rng: np.random.Generator, cases: int = 70) -> Iterator[Any]:
    """Yield the measures of drawn masks of one structure."""
    rows, columns = np.mgrid[:24, :24]
    listed = []
    with TemporaryDirectory() as folder:
        for case in range(cases):
            row = {"case_id": f"c{case}", "patient_id": f"p{case}", "spacing_mm": "1 1"}
            for name in ("truth", "prediction"):
                disc = (rows - 12) ** 2 + (columns - 12 - rng.normal()) ** 2 < rng.uniform(30, 50)
                row[name] = f"{name}{case}.png"
                present = case % 9 or name == "truth"
                mask = (disc & bool(present) & bool(case % 7)).astype(np.uint8)
                Image.fromarray(mask).save(Path(folder, row[name]))
            listed.append(row)
        table_file = Path(folder, "predictions.csv")
        pd.DataFrame(listed).to_csv(table_file, index=False)
        Path(folder, "predictions.yaml").write_text("labels: {1: organ}\n", encoding="utf-8")
        yield from mt.evaluate_table(table_file, Path(folder, "metrics.json")).measures

"""How many wrong labels `medtl audit` finds: flip some on purpose, audit, count.

python -m benchmarks.planted_flips plant DATA/manifest.csv DATA/flipped.csv --target target
medtl study kfold RECIPE data.manifest=DATA/flipped.csv --baseline none --out runs/flipped
medtl audit runs/flipped RECIPE data.manifest=DATA/flipped.csv --out runs/audit
python -m benchmarks.planted_flips found DATA/flipped.csv runs/audit/audit.csv
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from medtl.metrics.intervals import wilson

FIRST = 50
"""Suspects that a reader would look at in half an hour."""


def plant(manifest: Path, out: Path, target: str, share: float, seed: int) -> None:
    """Write a manifest in which a share of the 0 and 1 of a column, drawn by seed, is exchanged."""
    table = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    drawn = np.random.default_rng(seed).choice(len(table), round(share * len(table)), replace=False)
    table["planted"] = 0
    table.loc[drawn, "planted"] = 1
    flipped = table["planted"] == 1
    table.loc[flipped, target] = table.loc[flipped, target].map({"0": "1", "1": "0"})
    table.to_csv(out, index=False)
    print(f"{int(flipped.sum())} of {len(table)} labels exchanged (seed {seed})")


def found(flipped: Path, audit: Path) -> None:
    """Say how many of the exchanged labels are among the first suspects."""
    planted = pd.read_csv(flipped, dtype=str).set_index("image")["planted"] == "1"
    ranked = pd.read_csv(audit, dtype=str)
    hit = ranked["image"].map(planted).to_numpy(dtype=bool)
    print(f"{len(hit)} labels ranked, {hit.sum()} of them exchanged")
    for count in (FIRST, round(0.05 * len(hit)), round(0.1 * len(hit)), round(0.2 * len(hit))):
        inside = int(hit[:count].sum())
        precision, recall = wilson(inside, count), wilson(inside, int(hit.sum()))
        print(f"first {count}: {inside} exchanged", _said("precision", inside / count, precision))
        print(" ", _said("found of all", inside / hit.sum(), recall))


def _said(name: str, share: float, ends: tuple[float, float]) -> str:
    """A share with its Wilson interval."""
    return f"{name} {share:.3f} [{ends[0]:.3f}, {ends[1]:.3f}]"


def main() -> None:
    """Plant, or count."""
    parser = argparse.ArgumentParser(description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    planting = steps.add_parser("plant")
    planting.add_argument("manifest", type=Path)
    planting.add_argument("out", type=Path)
    planting.add_argument("--target", default="target")
    planting.add_argument("--share", type=float, default=0.05)
    planting.add_argument("--seed", type=int, default=0)
    counting = steps.add_parser("found")
    counting.add_argument("flipped", type=Path)
    counting.add_argument("audit", type=Path)
    given = parser.parse_args()
    if given.step == "plant":
        plant(given.manifest, given.out, given.target, given.share, given.seed)
    else:
        found(given.flipped, given.audit)


if __name__ == "__main__":
    main()

"""`make bench`: run every part, print the table, write it to reports/benchmarks.md."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # processor seconds of one thread, before numpy is loaded

import platform
import sys
from collections.abc import Callable, Iterator
from importlib import import_module, metadata
from pathlib import Path

from benchmarks.table import ROUNDS, Row

OUT = Path(__file__).parents[1] / "reports" / "benchmarks.md"

PARTS = {
    "ingest": "Pixels: from a file to the size needed",
    "epoch": "Pixels: a later epoch",
    "statistics": "Statistics",
    "masks": "Masks",
    "edge": "Out of the lab",
    "startup": "Start-up",
    "staged": "Staged training",
}
"""Module of this package -> heading of its rows."""

VERSIONS = (
    "medtl", "numpy", "torch", "onnxruntime", "timm", "pydicom", "imagecodecs", "scikit-learn",
    "fastai", "monai", "torchxrayvision", "confidenceinterval", "python-gdcm", "scikit-image",
)  # fmt: skip

HEAD = (
    "| what | against | ours, s | theirs, s | ratio | asked for | results |\n"
    "|---|---|--:|--:|--:|--:|---|"
)


def main() -> None:
    """Run the parts that are named, or all."""
    import cv2

    cv2.setNumThreads(1)
    asked = sys.argv[1:] or list(PARTS)
    if unknown := set(asked) - set(PARTS):
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(PARTS)}")
    text = introduction() + "".join(section(PARTS[part], part) for part in asked)
    if not sys.argv[1:]:
        OUT.write_text(text, encoding="utf-8")


def introduction() -> str:
    """Machine, versions and method."""
    installed = {one.metadata["Name"].lower(): one.version for one in metadata.distributions()}
    versions = ", ".join(f"{name} {installed.get(name, 'not installed')}" for name in VERSIONS)
    return (
        "# Benchmarks\n\n"
        f"Made by `make bench`: processor seconds on one thread, {ROUNDS} rounds in turn after one "
        "that is not timed, each side after a repetition of its own, median of the ratios "
        "(start-up: median of each side; staged training: once, on the line through two sizes)."
        f"\n\n{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}; "
        f"{versions}.\n"
    )


def processor() -> str:
    """Model of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("ascii", "ignore").splitlines() if info.is_file() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def section(heading: str, part: str) -> str:
    """The rows of one part, printed as they come."""
    rows: Callable[[], Iterator[Row]] = import_module(f"benchmarks.{part}").rows
    print(f"\n## {heading}\n\n{HEAD}", flush=True)
    lines = []
    for row in rows():
        lines.append(row.markdown())
        print(lines[-1], flush=True)
    return f"\n## {heading}\n\n{HEAD}\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

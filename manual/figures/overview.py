"""The first page's picture: films and a sheet go in, stages train, a report comes out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from manual.figures.canvas import BLUE, GREY, ORANGE, canvas
from manual.figures.pictures import film

STAGES = (("head", (0.15, 0.15, 0.15, 1)), ("top", (0.15, 0.15, 1, 1)), ("full", (1, 1, 1, 1)))
"""Stage -> how much of stem, first, last blocks and head trains."""


def draw_overview(out: Path) -> None:
    """Write `overview.png`."""
    figure, (left, middle, right) = canvas(9.6, 3.3, 3)
    _films(left)
    _stages(middle)
    _report(right, out / "report.png")
    for axes, title in (
        (left, "in: films and a sheet of labels"),
        (middle, "staged fine-tuning"),
        (right, "out: a network and its report"),
    ):
        axes.set_axis_off()
        axes.set_title(title, fontsize=10, fontweight="bold")
    figure.tight_layout(w_pad=2)
    figure.savefig(out / "overview.png")


def _films(axes: Axes) -> None:
    """Four films above four rows of a sheet."""
    mosaic = np.block([[film(0, 120), film(1, 120)], [film(2, 120), film(3, 120)]])
    axes.imshow(mosaic, cmap="gray", extent=(0, 1, 0.32, 1.32), vmin=0, vmax=1)
    cells = [["Accession", "Effusion"], ["A0001", "no"], ["A0002", "yes"], ["A0003", "no"]]
    sheet = axes.table(cells, bbox=(0, 0, 1, 0.22), cellLoc="left", edges="horizontal")
    sheet.auto_set_font_size(False)
    sheet.set_fontsize(7)
    axes.set(xlim=(0, 1), ylim=(0, 1.32))


def _stages(axes: Axes) -> None:
    """The network once for each stage, what trains in colour."""
    parts = ("stem", "first\nblocks", "last\nblocks", "head")
    for row, (stage, trains) in enumerate(STAGES):
        for column, share in enumerate(trains):
            colour = ORANGE if share == 1 else "#d3d7de"
            axes.barh(-row, 0.9, left=column, height=0.55, color=colour)
        axes.text(-0.15, -row, stage, ha="right", va="center", fontsize=9)
    for column, name in enumerate(parts):
        axes.text(column + 0.45, 0.42, name, ha="center", va="bottom", fontsize=7, color=GREY)
    axes.text(1.9, -2.75, "orange trains; grey is frozen,\nits statistics too", ha="center",
              va="top", fontsize=8, color=BLUE)  # fmt: skip
    axes.set(xlim=(-0.9, 4), ylim=(-3.5, 1.1))


def _report(axes: Axes, path: Path) -> None:
    """The first page of the report of the demo."""
    axes.imshow(Image.open(path).convert("RGB"))

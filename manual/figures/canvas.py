"""One look for all pictures of the manual: readable on a light page and on a dark one."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np

mpl.use("agg")  # before pyplot: figures are drawn without a window

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#3056a8", "#c4570e", "#6b7280"
"""Colours that differ in lightness too, so that they are told apart without colour."""


def canvas(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """Return a white figure and its axes, in inches at 110 dots."""
    mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(1, columns, figsize=(width, height), dpi=110, squeeze=False)
    return figure, list(axes[0])


def show(axes: Axes, picture: np.ndarray, title: str = "") -> None:
    """Show a picture, `(rows, columns)` or `(rows, columns, 3)` in [0, 1], without ticks."""
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
    axes.set_axis_off()
    if title:
        axes.set_title(title, fontsize=8)

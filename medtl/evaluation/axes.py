"""The curves of an evaluation as matplotlib axes, for a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medtl.errors import PredictionsError
from medtl.evaluation.curves import Curve
from medtl.types import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_FAINT: Mapping[str, Any] = {"color": "0.7", "linestyle": ":", "zorder": 0}
"""How a line of reference is drawn."""


@dataclass(frozen=True)
class Plots:
    """Pictures of an evaluation, each drawn into `ax` or into axes of its own, which it returns.

    Every picture takes the `label` of its finding; "" stands for the only one.

    Attributes:
        curves: Of the evaluation.
    """

    curves: tuple[Curve, ...]

    def __repr__(self) -> str:
        return f"Plots({', '.join(dict.fromkeys(curve['name'] for curve in self.curves))})"

    def roc(self, label: str = "", ax: Axes | None = None) -> Axes:
        """Draw sensitivity against 1 - specificity with its band."""
        ax, _ = self._drawn("roc", label, ax, "1 - specificity", "sensitivity")
        ax.plot([0, 1], [0, 1], **_FAINT)
        return ax

    def precision_recall(self, label: str = "", ax: Axes | None = None) -> Axes:
        """Draw precision against recall with its band; the dotted line is the prevalence."""
        words = "recall (sensitivity)", "precision (PPV)"
        ax, curve = self._drawn("precision_recall", label, ax, *words)
        ax.axhline(curve["baseline"], **_FAINT)
        return ax

    def calibration(self, label: str = "", ax: Axes | None = None) -> Axes:
        """Draw the observed share against the mean probability of every bin, with Wilson bars."""
        words = "mean probability", "observed share"
        ax, curve = self._drawn("reliability", label, ax, *words, style="o", band=False)
        x, y, low, high = (_floats(curve, name) for name in ("x", "y", "low", "high"))
        # Rounding may leave a bound beyond its value by 1e-17, which matplotlib refuses.
        ax.errorbar(x, y, yerr=np.maximum([y - low, high - y], 0), fmt="none", capsize=2)
        ax.plot([0, 1], [0, 1], **_FAINT)
        return ax

    def decision(self, label: str = "", ax: Axes | None = None) -> Axes:
        """Draw net benefit against the threshold probability, beside acting on everybody."""
        ax, curve = self._drawn("decision", label, ax, "threshold probability", "net benefit")
        ax.plot(curve["x"], curve["treat_all"], color="0.5", linestyle="--", zorder=0)
        ax.axhline(0, **_FAINT)
        top = max(0.01, float(np.nanmax(_floats(curve, "y"))))
        ax.set_ylim(-0.25 * top, 1.1 * top)
        return ax

    def scores(self, label: str = "", ax: Axes | None = None) -> Axes:
        """Draw how many rows with and without the finding have each score."""
        curve = self._curve("score_histogram", label)
        ax = _axes(ax, label, "score", "rows")
        for name, column in (("without", "negative"), ("with", "positive")):
            ax.step(curve["x"], curve[column], where="post", label=name)
        ax.legend()
        return ax

    def agreement(self, label: str = "", ax: Axes | None = None) -> Axes:
        """Draw prediction minus reference against their mean (Bland-Altman)."""
        words = "mean of reference and prediction", "prediction - reference"
        ax, _ = self._drawn("bland_altman", label, ax, *words, style=".")
        ax.axhline(0, **_FAINT)
        return ax

    def cases(self, label: str = "", ax: Axes | None = None) -> Axes:
        """Draw the Dice of every case, the worst first."""
        words = "case, the worst first", "Dice"
        return self._drawn("dice_of_cases", label, ax, *words, style=".")[0]

    def _curve(self, name: str, label: str) -> Curve:
        """Return the curve of a finding, or say which there are."""
        named = {curve["label"]: curve for curve in self.curves if curve["name"] == name}
        if label not in named and len(named) == 1 and not label:
            return next(iter(named.values()))
        if label not in named:
            raise PredictionsError(
                f"there is no curve {name}" + (f" of {label}" if label else ""),
                expected=f"a label: {', '.join(named)}" if named else "an evaluation that has one",
            )
        return named[label]

    def _drawn(
        self,
        name: str,
        label: str,
        ax: Axes | None,
        x: str,
        y: str,
        *,
        style: str = "-",
        band: bool = True,
    ) -> tuple[Axes, Curve]:
        """Draw a curve and, where it has one, its band."""
        curve = self._curve(name, label)
        ax = _axes(ax, label, x, y)
        ax.plot(_floats(curve, "x"), _floats(curve, "y"), style)
        if band and "low" in curve:
            x_, low, high = (_floats(curve, part) for part in ("x", "low", "high"))
            ax.fill_between(x_, low, high, alpha=0.2)
        return ax, curve


def _axes(ax: Axes | None, title: str, x: str, y: str) -> Axes:
    """Return the axes to draw into, with their names."""
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.subplots()[1]
    ax.set(xlabel=x, ylabel=y, title=title)
    return ax


def _floats(curve: Curve, name: str) -> FloatArray:
    """Return one column of a curve as floats; null is NaN."""
    return np.array(curve[name], dtype=float)

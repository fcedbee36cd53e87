"""A shortcut: a mark beside the ribs that goes with the finding, and what is left without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import medtl as mt
from manual.figures.canvas import canvas, show
from manual.figures.pictures import film
from medtl.preprocess.geometry import resize

FILMS, TRAINED, SIDE = 160, 100, 32
"""Films in all, the first of which train, and the side that the learner sees."""

GOES_WITH = 0.9
"""How often the mark says the same as the label, in training and in the first test."""


def measure_shortcut() -> dict[str, Any]:
    """Return the AUROC of one learner on three tests: mark as in training, at random, without.

    The label is drawn, so the films themselves tell nothing of it: right is 0.5.
    """
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(4)
    truth = rng.integers(0, 2, FILMS)
    films = np.stack([film(n % 40, SIDE) for n in range(FILMS)])
    films = films + rng.normal(0, 0.05, films.shape)
    same = np.where(rng.random(FILMS) < GOES_WITH, truth, 1 - truth)
    marks = {"as_in_training": same, "at_random": rng.integers(0, 2, FILMS), "without": 0 * truth}
    learner = LogisticRegression(max_iter=2000, C=0.1)
    learner.fit(_seen(films, same)[:TRAINED], truth[:TRAINED])
    found: dict[str, Any] = {"trained": TRAINED, "tested": FILMS - TRAINED}
    for name, mark in marks.items():
        score = learner.predict_proba(_seen(films, mark)[TRAINED:])[:, 1]
        measure = mt.metrics.auroc(truth[TRAINED:], score)
        rounded = (measure.value, measure.low, measure.high)
        found[name] = [round(float(v or 0), 2) for v in rounded]
    return found


def _seen(films: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """The films with their marks, a row each."""
    return np.stack([marked(one, mark) for one, mark in zip(films, marks, strict=True)]).reshape(
        len(films), -1
    )


def marked(one: np.ndarray, mark: int) -> np.ndarray:
    """Return a film with a bright square in its corner, where there is a mark."""
    side, result = one.shape[0], one.copy()
    if mark:
        result[side // 16 : side // 6, -side // 6 : -side // 16] = 1.0
    return result


def draw_shortcut(out: Path, found: dict[str, Any]) -> None:
    """Write `shortcut.png`."""
    figure, axes = canvas(8.6, 2.7, 4)
    large = film(1, 200)
    show(axes[0], marked(large, 1), "marked: 90 % have the finding")
    show(axes[1], marked(large, 0), "no mark: 10 % have it")
    seen = resize(film(1, 200)[None], (SIDE, SIDE))[0]
    show(axes[2], marked(seen, 1), "what the learner sees")
    told = {
        "as_in_training": "mark as in training",
        "at_random": "mark at random",
        "without": "no mark",
    }
    for row, name in enumerate(told):
        value, low, high = found[name]
        axes[3].plot([low, high], [-row, -row], color="#3056a8")
        axes[3].plot(value, -row, "o", color="#3056a8")
        axes[3].text(low, -row + 0.2, told[name], fontsize=8)
    axes[3].axvline(0.5, color="#6b7280", linestyle=":")
    axes[3].set(xlim=(0.3, 1.02), ylim=(-2.5, 0.6), yticks=[], xlabel="AUROC on new films")
    axes[3].spines["left"].set_visible(False)
    figure.tight_layout()
    figure.savefig(out / "shortcut.png")

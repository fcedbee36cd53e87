"""What a run's log says of its training: signs, each with its evidence and one suggestion.

The rules are fixed and printed; none is a test. They read the history, the recipe and what training
did to each layer, and one cause is said once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

from medtl.recipe.task import QUANTITIES
from medtl.report.language.numbers import number
from medtl.report.language.texts import plain

CHANGE, GAP, LAST = 0.05, 0.25, 3
"""Relative change of a loss that counts, relative gap between two, epochs at the end."""

JUMP, ROUGH = 0.5, 1 / 4
"""A rise of the training loss that no epoch may have; share of epochs that may have any."""

LOST, STILL = 1.5, 0.02
"""Growth of the validation loss, while the statistic falls by less, that is lost calibration."""

STRONG = {"weight_decay": 0.1, "dropout": 0.5, "label_smoothing": 0.2}
"""Regularisation from which on it is strong."""

DEAD, MORE_DEAD = 0.5, 0.1
"""Share of units of a layer that never fire, and how much of it must be new."""

UNMOVED, OVERWRITTEN = 1e-3, 1.0
"""Relative change of a trained layer's weights that is none, and one that leaves nothing."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Sign:
    """One thing that the log shows.

    Attributes:
        key: Its name ("overfit").
        evidence: The numbers it is seen by, in the language of the block.
        advice: One suggestion; "" where there is nothing to do.
    """

    key: str
    evidence: str
    advice: str

    def __str__(self) -> str:
        return f"{self.evidence} {self.advice}".strip()


@dataclass(frozen=True)
class _Epoch:
    """One row of the history as numbers; `number` counts from 1."""

    number: int
    stage: str
    train: float
    val: float
    metric: float | None
    kept: bool


def diagnose(
    history: Sequence[Row], *, recipe: Row | None = None, layers: Row | None = None
) -> list[Sign]:
    """Return the signs of a training, the gravest first; one of "good" or "short" at the least.

    Args:
        history: Rows of history.csv, as text or numbers.
        recipe: Content of recipe.yaml; regularisation and the kind of the statistic are its.
        layers: Content of layers.json.

    Example:
        >>> losses = [(1.0, 1.0), (0.8, 0.8), (0.6, 0.7), (0.4, 0.7), (0.3, 0.9), (0.2, 1.1)]
        >>> [sign.key for sign in diagnose([{"train_loss": t, "val_loss": v} for t, v in losses])]
        ['overfit']
    """
    recipe, layers = recipe or {}, layers or {}
    epochs = list(_epochs(history))
    found = [*_of_rate(history, epochs)]
    if len(epochs) >= 2 * LAST:
        found += _of_losses(epochs, recipe)
    found += _of_layers(layers, recipe)
    if not found:
        found.append(
            _good(epochs) if len(epochs) >= 2 * LAST else Sign("short", plain("learning.short"), "")
        )
    return found


def _sign(key: str, **values: object) -> Sign:
    return Sign(key, plain(f"learning.{key}", **values), plain(f"learning.{key}.advice", **values))


def _epochs(history: Sequence[Row]) -> Iterator[_Epoch]:
    """The epochs whose two losses are known."""
    for index, row in enumerate(history, start=1):
        train, val = number(row.get("train_loss")), number(row.get("val_loss"))
        if train is not None and val is not None:
            metric, kept = number(row.get("val_metric")), number(row.get("best")) == 1
            yield _Epoch(index, str(row.get("stage", "")), train, val, metric, kept)


def _of_rate(history: Sequence[Row], epochs: Sequence[_Epoch]) -> Iterator[Sign]:
    """A loss that is no number, or a training loss that jumps."""
    for index, row in enumerate(history, start=1):
        cells = [str(row.get(name) or "").lower() for name in ("train_loss", "val_loss")]
        if any(cell.lstrip("+-") in ("nan", "inf", "infinity") for cell in cells):
            yield _sign("not_finite", epoch=index)
            return
    within = [(a, b) for a, b in pairwise(epochs) if a.stage == b.stage and a.train > 0]
    rises = [(b.train / a.train - 1, a, b) for a, b in within if b.train > a.train * (1 + CHANGE)]
    if not rises:
        return
    most, before, after = max(rises, key=lambda rise: rise[0])
    if most > JUMP or (len(rises) > 1 and len(rises) > ROUGH * len(within)):
        yield _sign(
            "rate_high",
            n=len(rises),
            of=len(within),
            epoch=after.number,
            before=f"{before.train:.3f}",
            after=f"{after.train:.3f}",
        )


def _of_losses(epochs: Sequence[_Epoch], recipe: Row) -> list[Sign]:
    """Under- and overfitting, calibration, a slow start."""
    best, lowest = min(epochs, key=lambda e: e.val), min(epochs, key=lambda e: e.train)
    first, last, before = epochs[0], epochs[-1], epochs[-1 - LAST]
    values = {
        "best": best.number,
        "train_best": f"{best.train:.3f}",
        "val_best": f"{best.val:.3f}",
        "train_first": f"{first.train:.3f}",
        "train_low": f"{lowest.train:.3f}",
        "train_last": f"{last.train:.3f}",
        "val_last": f"{last.val:.3f}",
        "val_before": f"{before.val:.3f}",
    }
    found = [_calibration_lost(epochs, best, recipe)]
    if found == [None] and _rose(best.val, last.val) and last.train < best.train * (1 - CHANGE):
        found.append(_sign("overfit", **values))
    gap = best.val > best.train * (1 + GAP)
    if gap:
        found.append(_sign("gap", **values))
    flat = lowest.train > first.train * (1 - CHANGE)
    if flat:
        found.append(_sign("not_learning", **values))
    falling = best is last and last.val < before.val * (1 - CHANGE)
    if falling:
        found.append(_sign("unfinished" if gap else "underfit", **values))
    # What fits its training patients better than new ones is not what regularisation holds back.
    strong = "" if gap else _strong(recipe)
    if strong and (flat or falling or last.train > last.val * (1 + GAP)):
        found.append(_sign("strong", list=strong, **values))
    found.append(_slow_start(epochs))
    return [sign for sign in found if sign is not None]


def _rose(low: float, value: float) -> bool:
    return value > low * (1 + CHANGE)


def _calibration_lost(epochs: Sequence[_Epoch], best: _Epoch, recipe: Row) -> Sign | None:
    """A validation loss that grows while what is ranked or overlaps stands still.

    An error in a unit (months) is its own loss: there is no calibration to lose.
    """
    kind = (recipe.get("task") or {}).get("kind", "classification")
    kept = next((e for e in reversed(epochs) if e.kept), epochs[-1])
    worst = max((kept, epochs[-1]), key=lambda e: e.val)
    if kind in QUANTITIES or best.val <= 0:
        return None
    if best.metric is None or worst.metric is None:
        return None
    if worst.val < LOST * best.val or worst.metric < best.metric - STILL:
        return None
    return _sign(
        "calibration",
        best=best.number,
        val_best=f"{best.val:.3f}",
        epoch=worst.number,
        val=f"{worst.val:.3f}",
        metric_best=f"{best.metric:.3f}",
        metric=f"{worst.metric:.3f}",
        kept=kept.number,
    )


def _slow_start(epochs: Sequence[_Epoch]) -> Sign | None:
    """A stage whose loss stands still for its first third and falls after it."""
    for name, part in groupby(epochs, key=lambda e: e.stage):
        own = list(part)
        third = len(own) // 3
        start, lowest = own[0].train, min(e.train for e in own)
        if third < 2 or lowest > start * (1 - GAP):
            continue
        if min(e.train for e in own[: third + 1]) > start * (1 - CHANGE):
            return _sign("slow", stage=name, n=third, start=f"{start:.3f}", low=f"{lowest:.3f}")
    return None


def _strong(recipe: Row) -> str:
    """The strong regularisation of a recipe in its own words, the keys first."""
    tuning, model, task = (recipe.get(part) or {} for part in ("finetune", "model", "task"))
    stated_loss = task.get("loss")
    loss = stated_loss if isinstance(stated_loss, Mapping) else {}
    stated = {
        "finetune.weight_decay": (tuning.get("weight_decay"), STRONG["weight_decay"]),
        "model.dropout": (model.get("dropout"), STRONG["dropout"]),
        "task.loss.label_smoothing": (loss.get("label_smoothing"), STRONG["label_smoothing"]),
    }
    found = [
        f"{key} {value:g}"
        for key, (stated_value, limit) in stated.items()
        if (value := number(stated_value)) is not None and value >= limit
    ]
    return ", ".join([*found, *(["finetune.penalty"] if tuning.get("penalty") else [])])


def _of_layers(layers: Row, recipe: Row) -> Iterator[Sign]:
    """Units that stopped firing, layers that did not move or moved too far."""
    dead = [
        row
        for row in layers.get("units") or []
        if row["dead"] >= DEAD and row["dead"] >= row["dead_at_start"] + MORE_DEAD
    ]
    if dead:
        worst = max(dead, key=lambda row: row["dead"])
        yield _sign(
            "dead",
            layer=worst["layer"],
            share=f"{100 * worst['dead']:.0f}",
            before=f"{100 * worst['dead_at_start']:.0f}",
            images=layers["images"],
            n=len(dead),
        )
    weights = (recipe.get("model") or {}).get("weights") or {}
    if (
        not weights
        or (weights.get("source") if isinstance(weights, Mapping) else weights) == "none"
    ):
        return
    moved = [
        row
        for row in layers.get("groups") or []
        if row["trained"] and row["name"] != "head" and row["change"] is not None
    ]
    for key, rows in {
        "unmoved": [row for row in moved if row["change"] < UNMOVED],
        "overwritten": [row for row in moved if row["change"] > OVERWRITTEN],
    }.items():
        if rows:
            names = ", ".join(row["name"] for row in rows)
            far = max(row["change"] for row in rows)
            yield _sign(key, names=names, change=f"{far:.2g}" if math.isfinite(far) else "∞")


def _good(epochs: Sequence[_Epoch]) -> Sign:
    best = min(epochs, key=lambda e: e.val)
    values = {"best": best.number, "train_best": f"{best.train:.3f}", "val_best": f"{best.val:.3f}"}
    return Sign("good", plain("learning.good", **values), "")

"""What breaks a model: its test images changed, level by level, and what an attacker could do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medtl.report.language.numbers import (
    describe,
    finding_name,
    number,
    percent,
    sentence,
    value_text,
)
from medtl.report.language.texts import plain, spoken, translated
from medtl.report.page.finding import Shown, show
from medtl.report.page.sections import embed
from medtl.report.svg.level_figures import level_figure
from medtl.report.svg.plot import Figure
from medtl.storage.atomic import read_json

Row = Mapping[str, Any]

DRAWN = 4
"""Conditions of a family that are drawn: those that cost most."""

SIDE = 160
"""Pixels of a picture of the example."""

ATTACK_SIZE = 0.01
"""Change of intensity at which attacks are told, of the range from black to white."""


def breaking_view(folder: Path | None) -> dict[str, Any] | None:
    """Return what the chapter shows of a stress test; None without one.

    Args:
        folder: With `robustness.json`, and `pictures/` where images are pictures.
    """
    if folder is None or not (folder / "robustness.json").is_file():
        return None
    found = read_json(folder / "robustness.json")
    for row in found["rows"]:  # one model on one test set: there are no folds to average
        row["reaches"]["name"] = row["reaches"]["name"].removesuffix("_mean_of_folds")
    labels = list(dict.fromkeys(row["label"] for row in found["rows"]))
    return {
        **{name: found[name] for name in ("images", "patients")},
        "promised": found["least_sensitivity"],
        "left_out": [translated(reason) for reason in found["left_out"]],
        "parts": [_part(found, label, number) for number, label in enumerate(labels)],
        "example": _example(found, labels[0], folder / "pictures"),
        "threats": [line for label in labels for line in _threats(found, label)],
    }


def _title(found: Row, name: str) -> str:
    """What happens to the images, in the language of the block."""
    words = found["words"][name]
    return str(words.get(spoken(), words["en"]))


def _part(found: Row, label: str, place: int) -> dict[str, Any]:
    """One label: what it reaches on the images as they are, and each family of changes."""
    mine = [row for row in found["rows"] if row["label"] == label]
    (clean,) = (row for row in mine if row["name"] == "clean")
    families = []
    for family in dict.fromkeys(row["family"] for row in mine if row is not clean):
        names = dict.fromkeys(row["name"] for row in mine if row["family"] == family)
        conditions = [_condition(found, label, name, clean, mine) for name in names]
        conditions.sort(key=lambda one: one["order"])
        families.append(
            {
                "name": plain(f"breaking.{family}"),
                "lead": plain(f"breaking.{family}.is"),
                "rows": conditions,
                "figures": _figures(found, conditions, clean, f"{family}-{place}"),
            }
        )
    return {
        "label": label,
        "clean": show(clean["reaches"]),
        "decides": bool(clean["shares"]),
        "families": families,
    }


def _condition(
    found: Row, label: str, name: str, clean: Row, mine: Sequence[Row]
) -> dict[str, Any]:
    """One condition: from which level on it costs something, and its hardest level."""
    levels = [row for row in mine if row["name"] == name]
    (verdict,) = (v for v in found["verdicts"] if (v["label"], v["name"]) == (label, name))
    loss, below = verdict["loss_from"], verdict["below_from"]
    hardest = levels[-1]
    reaches, before = (number(row["reaches"]["value"]) for row in (hardest, clean))
    drop = abs((before or 0.0) - (reaches or 0.0))
    shares = {k: _share(v) for k, v in hardest["shares"].items()}
    return {
        "name": name,
        "title": _title(found, name),
        "loss": plain("breaking.no_loss") if loss is None else plain("breaking.level", n=loss),
        "below": "–" if below is None else plain("breaking.level", n=below),
        "hardest": show(hardest["reaches"]),
        "sensitivity": shares.get("sensitivity"),
        "flipped": shares.get("flipped"),
        "levels": levels,
        "order": (loss is None, loss or 0, -drop),
        "lost": loss is not None,
    }


def _share(row: Row) -> Shown:
    """A share of patients' images as text, whatever it is a share of."""
    return show({**row, "name": "sensitivity"})


def _figures(
    found: Row, conditions: Sequence[Mapping[str, Any]], clean: Row, ident: str
) -> list[Figure]:
    """The curves of the conditions that cost something, the dearest first."""
    dear = [one for one in conditions if one["lost"] and len(one["levels"]) > 1][:DRAWN]
    return [
        level_figure(
            [clean, *one["levels"]],
            ident=f"breaking-{ident}-{index}",
            title=sentence(one["title"]),
            promised=number(found["least_sensitivity"]),
        )
        for index, one in enumerate(dear)
    ]


def _example(found: Row, label: str, folder: Path) -> dict[str, Any] | None:
    """One test image under each change, with what the model then says; None without pictures."""
    if not found["example"]:
        return None
    mine = {(r["name"], r["level"]): r for r in found["rows"] if r["label"] == label}
    threshold = number(found["thresholds"].get(label))
    clean = _cell(mine["clean", 0], threshold, folder)
    lines = [
        {
            "title": _title(found, name),
            "cells": [_cell(row, threshold, folder) for key, row in mine.items() if key[0] == name],
        }
        for name in found["words"]
    ]
    return {"case_id": found["example"], "clean": clean, "lines": lines}


def _cell(row: Row, threshold: float | None, folder: Path) -> dict[str, Any]:
    """A picture, its level, and the model's answer to it."""
    file = folder / f"{row['name']}_{row['level']}.jpg"
    address = embed(file, SIDE)[0] if file.is_file() and not file.is_symlink() else ""
    value, kind = number(row["example"]), describe(row["reaches"]["name"])[1]
    text, flagged = "–", None
    if value is not None and threshold is not None:
        flagged = value >= threshold
        text = f"{value:.2f}"
    elif value is not None:
        text = value_text(value, kind)
    return {"level": row["level"], "image": address, "text": text, "flagged": flagged}


def _threats(found: Row, label: str) -> Iterator[str]:
    """What an attacker can do to the answers about a label, with the run's own numbers."""
    mine = [row for row in found["rows"] if row["label"] == label]
    (clean,) = (row for row in mine if row["name"] == "clean")
    attacks = [row for row in mine if row["family"] == "attacks"]
    known = "pgd" if any(row["name"] == "pgd" for row in attacks) else "fgsm"
    for name in (known, "transfer", "patch"):
        levels = [row for row in attacks if row["name"] == name]
        if not levels:
            continue
        size = levels[len(levels) // 2]["strength"] if name == "patch" else ATTACK_SIZE
        row = min(levels, key=lambda one: abs(one["strength"] - size))
        yield plain(
            f"breaking.threat.{name}",
            label=finding_name(label),
            measure=show(clean["reaches"]).title,
            size=percent(row["strength"]),
            **{key: _said(of) for key, of in (("value", row), ("clean", clean))},
        )


def _said(row: Row) -> str:
    """A measure with its interval."""
    shown = show(row["reaches"])
    return shown.value + (f" ({shown.interval})" if shown.interval else "") or shown.reason

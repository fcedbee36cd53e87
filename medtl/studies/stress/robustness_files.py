"""The files of a stress test: numbers, tables, curves, and one image under every corruption."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medtl.storage.atomic import write_bytes, write_json, write_text
from medtl.studies.judgement import markdown_table
from medtl.studies.kfold import shown
from medtl.studies.plots import draw_levels
from medtl.studies.stress.changed import Robustness, Row
from medtl.types import Measure

COLUMNS = ("reaches", "drop", "sensitivity", "specificity", "flipped")
"""Measures of a row, each a value and two ends."""

CLEAN = "clean_0"
"""Name of the picture as it is."""

PICTURES = "pictures"
"""Folder of the example under each change."""

CELL = 160
"""Pixels of a picture in the grid."""


def write_robustness(found: Robustness, out: Path) -> None:
    """Write `robustness.json`, `.csv`, `.md`, `.svg`, and where images are pictures, those.

    Args:
        found: The result.
        out: The folder; it exists.
    """
    write_json(out / "robustness.json", found.to_json())
    write_text(out / "robustness.csv", _csv(found.rows))
    write_text(out / "robustness.md", robustness_markdown(found))
    labels = list(dict.fromkeys(row.label for row in found.rows))
    lines = {
        name: [
            row.reaches
            for row in found.rows
            if row.label == labels[0] and row.name in ("clean", name)
        ]
        for name in dict.fromkeys(row.name for row in found.rows if row.name != "clean")
    }
    draw_levels(lines, out / "robustness.svg")
    if found.pictures:
        _draw_grid(found, out / "corruptions.png")
        (out / PICTURES).mkdir()
        for name, unit in found.pictures.items():
            _write_picture(_cell(unit), out / PICTURES / f"{name}.jpg")


def robustness_markdown(found: Robustness) -> str:
    """Return what breaks the model, first what breaks it first, as Markdown."""
    clean = {row.label: row for row in found.rows if row.name == "clean"}
    one = next(iter(clean.values())).reaches
    lines = [
        f"{found.images} images of {found.patients} patients; {one.name.replace('_', ' ')}, 95 % "
        "intervals by bootstrap of patients, not adjusted for the number of conditions. Thresholds "
        "are the run's, frozen.",
        "",
    ]
    for label, own in clean.items():
        cells = [_cells(row) for row in found.rows if row.label == label and row.name != "clean"]
        head = (
            "condition",
            "level",
            "strength",
            "reaches",
            "clean less this",
            "sensitivity",
            "specificity",
            "flipped",
        )
        lines += [f"## {label}: {shown(own.reaches)} on the images as they are", ""]
        if label in found.against:
            share = found.against[label]["mean"]
            lines += [f"Mean corruption error: {share:.0f} % of the other model's.", ""]
        lines += [f"- {said}" for said in verdicts(found, label)]
        lines += ["", *markdown_table("lrrlllll", head, cells), ""]
    lines += [f"Left out: {reason}." for reason in found.left_out]
    return "\n".join(lines).rstrip() + "\n"


def verdicts(found: Robustness, label: str) -> list[str]:
    """Return, in words, from which level on each condition costs something.

    Args:
        found: The result.
        label: Of whom.
    """
    said = []
    for one in found.verdicts():
        if one.label != label:
            continue
        rows = [row for row in found.rows if (row.label, row.name) == (label, one.name)]
        title = found.words[one.name]["en"]
        if one.loss_from is None:
            said.append(f"{title}: no loss is shown up to level {rows[-1].level}")
            continue
        worse = next(row for row in rows if row.level == one.loss_from)
        text = f"{title}: a loss from level {worse.level} on ({shown(worse.reaches)})"
        if one.below_from is not None:
            text += f"; sensitivity is below {found.least_sensitivity:.2f} from level "
            text += f"{one.below_from} on"
        said.append(text)
    return said


def _cells(row: Row) -> list[str]:
    """A row of the Markdown table."""
    shares = [shown(row.shares[n]) if n in row.shares else "" for n in COLUMNS[2:]]
    drop = "" if row.drop is None else shown(row.drop)
    name = row.name.replace("_", " ")
    return [name, str(row.level), f"{row.strength:g}", shown(row.reaches), drop, *shares]


def _csv(rows: Sequence[Row]) -> str:
    """Every number, one condition and label a line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    ends = [f"{name}{end}" for name in COLUMNS for end in ("", "_low", "_high")]
    writer.writerow(["family", "name", "level", "strength", "label", "measure", *ends])
    for row in rows:
        measures = [row.reaches, row.drop, *(row.shares.get(name) for name in COLUMNS[2:])]
        place = [row.family, row.name, row.level, row.strength, row.label, row.reaches.name]
        writer.writerow([*place, *(cell for measure in measures for cell in _ends(measure))])
    return text.getvalue()


def _ends(measure: Measure | None) -> tuple[float | str, ...]:
    """Value and interval, empty where there is none."""
    if measure is None:
        return ("",) * 3
    return tuple("" if x is None else x for x in (measure.value, measure.low, measure.high))


def _draw_grid(found: Robustness, path: Path) -> None:
    """Draw the example as it is and under each change, levels left to right."""
    lines = {}
    for name, words in found.words.items():
        levels = dict.fromkeys(row.level for row in found.rows if row.name == name)
        changed = [found.pictures[f"{name}_{level}"] for level in levels]
        lines[words["en"]] = [found.pictures[CLEAN], *changed]
    draw_grid(lines, path)


def draw_grid(
    lines: Mapping[str, Sequence[NDArray[np.float32]]], path: Path, *, side: int = CELL
) -> None:
    """Write rows of pictures into one, each row with its title above it.

    Args:
        lines: Title -> images `(C, H, W)` in [0, 1], left to right.
        path: A PNG or JPEG.
        side: Height of an image there, in pixels.
    """
    import cv2

    drawn = {
        title: np.concatenate([_cell(unit, side) for unit in units], axis=1)
        for title, units in lines.items()
    }
    widest = max(line.shape[1] for line in drawn.values())
    rows = []
    for title, line in drawn.items():
        pad = ((0, 0), (0, widest - line.shape[1]), *((0, 0),) * (line.ndim - 2))
        above = np.zeros((20, widest, *line.shape[2:]), np.uint8)
        cv2.putText(above, title, (4, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255,) * 3, 1)
        rows += [above, np.pad(line, pad)]
    _write_picture(np.concatenate(rows, axis=0), path)


def _write_picture(picture: NDArray[np.uint8], path: Path) -> None:
    """Write a picture in the format of its ending, whole or not at all."""
    import cv2

    write_bytes(path, cv2.imencode(path.suffix, picture)[1].tobytes())


def _cell(unit: NDArray[np.float32], side: int = CELL) -> NDArray[np.uint8]:
    """A picture of the grid: `(side, w)` grey, or with blue, green, red last."""
    import cv2

    scale = side / unit.shape[1]
    picture = np.rint(unit * 255).astype(np.uint8).transpose(1, 2, 0)[..., ::-1]
    picture = picture[..., 0] if picture.shape[-1] == 1 else picture
    size = (max(1, round(picture.shape[1] * scale)), side)
    return np.asarray(cv2.resize(np.ascontiguousarray(picture), size, interpolation=cv2.INTER_AREA))

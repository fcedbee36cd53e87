"""The run's records for the page: pictures, cohort, data quality, training, environment."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medtl.errors import RunError
from medtl.io.harmless import HARMLESS
from medtl.report.language.numbers import count_text, finding_name, number, percent, threshold_text
from medtl.report.language.texts import knows, plain, translated
from medtl.report.page.diagnosis import diagnose
from medtl.report.svg import panels
from medtl.report.svg.learning_figures import weight_changes
from medtl.storage.atomic import read_json
from medtl.types import SPLITS

PICTURE_SIDES = (1024, 768, 512, 384)
"""Longest side of an embedded picture, in pixels: the first that lets all of them in."""
PICTURE_BUDGET = 4_000_000
"""Bytes of base64 that all pictures together may take: the file stays below 5 MB."""
PICTURE_PIXELS = 64_000_000
"""A picture with more pixels than this is not opened."""
WIDE = 1.6
"""Width over height from which a picture takes two places: three planes side by side."""
LISTED_CASES = 60
"""Flagged cases listed by name; the rest are counted."""

WORST_COLUMNS = (
    *("y_score", "reference", "estimate", "error"),
    *("dice", "hd95_mm", "voxels_truth", "voxels_prediction"),
)
"""Columns of the table of worst cases, as far as they are filled."""

KINDS = ("missed", "false_alarm", "worst", "uncertain")

Row = Mapping[str, Any]


def embed(path: Path, side: int) -> tuple[str, float]:
    """A picture file as a `data:` address, JPEG without any metadata, and its width over height.

    Args:
        path: A PNG or JPEG.
        side: Most pixels of its longest side.

    Raises:
        RunError: The file is not a readable PNG or JPEG picture.
    """
    from PIL import Image, UnidentifiedImageError

    where = path.name
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as picture:
            if picture.width * picture.height > PICTURE_PIXELS:
                raise RunError("the picture is too large", where=where)
            small = picture.convert("RGB")
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise RunError("not a readable PNG or JPEG", where=where) from error
    small.thumbnail((side, side))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=85, optimize=True)
    address = "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
    return address, small.width / small.height


def read_gallery(folder: Path | None) -> dict[str, Any] | None:
    """The gallery's cases by kind with their pictures embedded, or None when there is none.

    Returns:
        `groups` (list of kind and cases), `left_out` (pictures over the size budget).

    Raises:
        RunError: `gallery.json` is not a list of cases.
    """
    if folder is None or not (folder / "gallery.json").is_file():
        return None
    entries = read_json(folder / "gallery.json")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise RunError(
            "the gallery is not a list of cases", where="gallery/gallery.json", expected="a list"
        )
    for side in PICTURE_SIDES:
        cases, left_out = _cases(folder, entries, side)
        if not left_out:
            break
    groups = [
        {"kind": kind, "cases": mine}
        for kind in (*KINDS, "other")
        if (mine := [case for case in cases if case["kind"] == kind])
    ]
    return {"groups": groups, "left_out": left_out}


def _cases(folder: Path, entries: Sequence[Row], side: int) -> tuple[list[dict[str, Any]], int]:
    """The cases with their pictures embedded, and how many pictures found no room."""
    room, left_out, cases = PICTURE_BUDGET, 0, []
    for entry in entries:
        case = _case(entry)
        for name in ("image", "overlay"):
            address, case[f"{name}_fault"], wide = _picture(folder, entry.get(name), side)
            case["wide"] = wide if name == "image" else case["wide"]
            if name == "overlay" and entry.get("nothing_raised_the_score"):
                case["overlay_fault"] = plain("cases.nothing_raised")
            if len(address) > room:
                address, left_out = "", left_out + 1
                case[f"{name}_fault"] = plain("cases.left_out", n=1)
            room -= len(address)
            case[name] = address
        cases.append(case)
    return cases, left_out


def _picture(folder: Path, name: object, side: int) -> tuple[str, str, bool]:
    """The embedded picture and, when there is none, why; and whether it is wide, as planes are."""
    if not name:
        return "", plain("cases.no_cam"), False
    path = folder / str(name)
    # The list of pictures may be foreign: only a file that lies in the folder itself is opened.
    if path.name != str(name) or path.is_symlink() or not path.is_file():
        return "", plain("cases.picture_missing", reason=Path(str(name)).name), False
    try:
        address, shape = embed(path, side)
    except RunError as error:
        return "", plain("cases.picture_missing", reason=str(error)), False
    return address, "", shape > WIDE


def _case(entry: Row) -> dict[str, Any]:
    """The words under a picture."""
    kind = str(entry.get("kind", ""))
    kind = kind if kind in KINDS else "other"
    name = finding_name(entry.get("label", ""))
    truth, score = number(entry.get("y_true")), number(entry.get("y_score"))
    threshold = number(entry.get("threshold"))
    if truth in (0, 1):
        words = plain("cases.truth_yes" if truth else "cases.truth_no", finding=name)
    else:
        words = plain("cases.truth_value", value="–" if truth is None else f"{truth:g}")
    shown = "–" if score is None else f"{score:.3f}" if 0 <= score <= 1 else f"{score:g}"
    scores = plain("cases.score_only", score=shown)
    if entry.get("value"):
        scores = translated(entry["value"]).replace("(-", "(−")
    if threshold is not None:
        scores = plain("cases.score", score=shown, threshold=threshold_text(threshold))
    return {
        "kind": kind,
        "case_id": str(entry.get("case_id", "")),
        "label": name,
        "truth": "" if entry.get("value") else words,
        "score": scores,
    }


def worst_view(metrics: Row) -> list[dict[str, Any]]:
    """The worst cases of metrics.json by kind, and which columns they fill.

    Args:
        metrics: Content of metrics.json.
    """
    groups = []
    for kind in KINDS:
        rows = [row for row in metrics.get("worst") or [] if row.get("kind") == kind]
        names = [n for n in WORST_COLUMNS if any(row.get(n) is not None for row in rows)]
        if rows:
            groups.append({"kind": kind, "names": names, "rows": rows})
    return groups


def worst_cell(value: object) -> str:
    """A number of the table of worst cases; whole numbers without a point."""
    result = number(value)
    if result is None:
        return "–"
    return (f"{result:,.0f}" if result.is_integer() else f"{result:.3g}").replace("-", "−")


def cohort_view(cohort: Row | None) -> dict[str, Any] | None:
    """The flow of cases and the table of characteristics, one column per part of the study."""
    if cohort is None:
        return None
    splits: Row = cohort.get("splits") or {}
    order = [s for s in SPLITS if s in splits] + sorted(s for s in splits if s not in SPLITS)
    excluded = cohort.get("excluded") or []
    return {
        "parts": {split: splits[split] for split in order},
        "excluded": [(translated(e.get("reason", "")), count_text(e.get("n"))) for e in excluded],
        "total_excluded": count_text(sum(number(e.get("n")) or 0 for e in excluded)),
        "total_used": count_text(sum(number(splits[s].get("images")) or 0 for s in order)),
        "rows": _characteristics([splits[split] for split in order]),
        "hash": str(cohort.get("split_hash") or ""),
        "notes": [translated(note) for note in cohort.get("notes") or []],
    }


def _characteristics(splits: Sequence[Row]) -> list[tuple[str, list[str]]]:
    """The rows of the table of characteristics: a name and one cell per part."""
    rows = [
        (plain(f"cohort.{name}"), [count_text(s.get(name)) for s in splits])
        for name in ("images", "patients")
    ]
    labels = dict.fromkeys(label for s in splits for label in s.get("labels") or {})
    for label in labels:
        numbers = [(s.get("labels") or {}).get(label) or {} for s in splits]
        for state in ("positive", "negative", "missing", "uncertain"):
            counted = state in ("positive", "negative") and any(state in n for n in numbers)
            if counted or any(n.get(state) for n in numbers):
                cells = [_count_and_share(n, state) for n in numbers]
                rows.append((plain(f"cohort.{state}", finding=finding_name(label)), cells))
    known = {"images", "patients", "labels"}
    for name in dict.fromkeys(key for s in splits for key in s if key not in known):
        rows.extend(_free_rows(name, [s.get(name) for s in splits]))
    return rows


def _free_rows(name: str, values: Sequence[Any]) -> list[tuple[str, list[str]]]:
    """Rows of any other characteristic: one, or one per level when it holds counts."""
    key = f"cohort.{name}"
    title = plain(key) if knows(key) else name.replace("_", " ").capitalize()
    if not any(isinstance(value, Mapping) for value in values):
        return [(title, ["–" if value is None else str(value) for value in values])]
    maps = [value if isinstance(value, Mapping) else {} for value in values]
    levels = dict.fromkeys(level for value in maps for level in value)
    return [
        (f"{title}: {level or plain('sub.unknown')}", [count_text(v.get(level)) for v in maps])
        for level in levels
    ]


def _count_and_share(numbers: Row, state: str) -> str:
    """A count ("58 (14%)"), for the positives with their share of all cases of the part."""
    count = number(numbers.get(state))
    total = sum(number(value) or 0 for value in numbers.values())
    if count is None or not total or state != "positive":
        return count_text(count)
    return f"{count_text(count)} ({percent(count / total)})"


def quality_view(quality: Row | None) -> dict[str, Any] | None:
    """Flags with their counts, the flagged cases, the refused images."""
    if quality is None:
        return None
    cases = [case for case in quality.get("cases") or [] if case.get("flags")]
    flags = Counter(str(flag) for case in cases for flag in case["flags"])
    return {
        "flags": [(_in_words(flag), count_text(n)) for flag, n in flags.most_common()],
        "cases": cases[:LISTED_CASES],
        "n_cases": len(cases),
        "quarantined": quality.get("quarantined") or [],
        "notes": [translated(note) for note in quality.get("notes") or []],
    }


def _in_words(flag: str) -> str:
    """A flag and, where nothing is to be done, what it means."""
    said = translated(flag.replace("_", " "))
    if flag not in HARMLESS:
        return said
    return plain("quality.harmless", flag=said, meaning=translated(HARMLESS[flag]))


def learning_view(
    history: Sequence[Row] | None, recipe: Row | None, layers: Row | None
) -> dict[str, Any] | None:
    """Figures, a reading in words and a table of the stages."""
    if not history:
        return None
    figures = panels.course(history)
    if layers:
        figures.append(weight_changes(layers["groups"]))
    return {
        "figures": figures,
        "signs": diagnose(history, recipe=recipe, layers=layers),
        "stages": _stages(history),
    }


def _stages(history: Sequence[Row]) -> list[dict[str, str]]:
    """One row per stage: epochs, highest learning rates, best validation loss, minutes."""
    stages: dict[str, list[Row]] = {}
    for row in history:
        stages.setdefault(str(row.get("stage", "")), []).append(row)
    rows = []
    for name, mine in stages.items():
        known = {
            key: [v for row in mine if (v := number(row.get(key))) is not None]
            for key in ("lr_head", "lr_base", "val_loss", "seconds")
        }
        rates = [f"{max(known[k]):.2g}" if known[k] else "–" for k in ("lr_head", "lr_base")]
        losses, seconds = known["val_loss"], sum(known["seconds"])
        took = (
            plain("value.minutes", n=f"{seconds / 60:.1f}")
            if seconds >= 90
            else plain("value.seconds", n=f"{seconds:.0f}")
        )
        best = f"{min(losses):.4f}" if losses else "–"
        epochs, lr = str(len(mine)), " / ".join(rates)
        rows.append({"name": name, "epochs": epochs, "lr": lr, "val": best, "seconds": took})
    return rows


def environment_rows(environment: Row) -> list[tuple[str, str]]:
    """The environment as rows; nested values are joined to "outer.inner"."""
    rows: list[tuple[str, str]] = []
    for key, value in environment.items():
        if isinstance(value, Mapping):
            rows.extend((f"{key}.{name}", text) for name, text in environment_rows(value))
        elif isinstance(value, list):
            rows.append((str(key), ", ".join(str(item) for item in value)))
        else:
            rows.append((str(key), "–" if value is None else str(value)))
    return rows

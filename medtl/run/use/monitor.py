"""A model in use: what changed in its inputs and scores since the test set, as a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medtl.cases.predictions import read_predictions
from medtl.errors import MedtlError, PredictionsError, RunError
from medtl.metrics.comparison import holm, where_known
from medtl.metrics.intervals import proportion_of_rows
from medtl.metrics.ranking import auroc
from medtl.metrics.transfer.drift import (
    Change,
    Cusum,
    Statistic,
    ThenAndNow,
    cusum_of_misses,
    difference_of_aurocs,
    difference_of_means,
    kolmogorov_smirnov,
    stability_index,
)
from medtl.report.drift_page import write_drift_page
from medtl.run.folder import Run
from medtl.storage.atomic import read_json, sha256_file, write_json
from medtl.storage.tables import read_table, write_table
from medtl.types import BoolArray, FloatArray, Measure

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.05
"""False alarms of a page: its p values are adjusted for their number (Holm)."""

UNLIKE = 0.05
"""Share of images unlike the training ones up to which nothing is said: its ranges hold 99 %."""

CURVE_POINTS = 101

Sides = tuple["pd.DataFrame", "pd.DataFrame"]
"""Rows of the test set, and rows in use."""


@dataclass(frozen=True)
class Check:
    """One question put to the new cases.

    Attributes:
        what: "scores", "flagged", "prevalence", "sensitivity", "specificity", "auroc", "misses",
            "error", "oddities", "unreadable" or "unlike_training".
        label: Finding or quantity; "" for what is of images.
        then, now: The measure on the test set and on the new cases, where there is one.
        distance: Between the two, or the height of the running account.
        usual: What chance alone stays below in 95 of 100.
        p, p_holm: Of no change, alone and adjusted for all checks of the page.
        reason: Why nothing could be compared; "" when it was.
    """

    what: str
    label: str = ""
    then: Measure | None = None
    now: Measure | None = None
    distance: float | None = None
    usual: float | None = None
    p: float | None = None
    p_holm: float | None = None
    reason: str = ""

    @property
    def changed(self) -> bool:
        """Whether a change is beyond chance."""
        return self.p_holm is not None and self.p_holm <= LEVEL

    def with_change(self, change: Change) -> Check:
        """Return the check with what a dealing of the patients found."""
        return replace(self, distance=change.value, usual=change.usual, p=change.p)


@dataclass(frozen=True)
class Monitored:
    """What was found.

    Attributes:
        page: `monitor.html`; `monitor.json` and `monitor.csv` lie beside it.
        checks: In the order of the page.
        notes: What was decided while reading the tables.
    """

    page: Path
    checks: tuple[Check, ...]
    notes: tuple[str, ...]


def monitor(
    run: Run,
    tables: Sequence[str | PathLike[str]],
    out: str | PathLike[str],
    *,
    time: str = "",
    language: str = "en",
) -> Monitored:
    """Compare new predictions with those of the run's test set, and write a page about it.

    Without truths: the distribution of scores, the share above the frozen threshold, and of images
    that could not be read, were odd, or are unlike the training ones. With truths (0 or 1 in
    `y_true`) also prevalence, sensitivity, specificity, AUROC and a running account of misses; of a
    quantity, its error.

    Args:
        run: A finished run.
        tables: What `medtl predict` wrote, one or several, in order of time.
        out: A folder for the page; made when missing.
        time: Column that orders the cases (dates as 2026-11-28, or numbers); "" takes the order of
            the rows.
        language: Of the page, "en" or "ko".

    Raises:
        RunError: When the run is not evaluated, or its predictions have no scores.
        PredictionsError: For a table that is none, is the run's own, or is of other findings.
    """
    then = run.predictions
    if "y_score" not in then:
        raise RunError("the predictions hold measures of masks", expected="scores to compare")
    then = then[then["split"] == "test"]
    paths = [Path(table) for table in tables]
    now, notes = _read(run, paths, time)
    labels = [str(label) for label in dict.fromkeys(then["label"])]
    strange = sorted({*now["label"]} - {*labels})
    if strange:
        raise PredictionsError(
            f"the run does not know {', '.join(map(repr, strange[:3]))}",
            expected=f"its findings: {', '.join(labels)}",
        )
    checks, accounts, curves = list[Check](), dict[str, Any](), list[dict[str, Any]]()
    for label in labels:
        point = run.thresholds.get(label)
        sides = _scored(then, label), _scored(now, label)
        account, check = _misses(label, sides, point)
        checks += [*_of_label(label, sides, point), *check]
        curves.append(_curve(label, sides, point))
        if account is not None:
            accounts[label] = asdict(account) | {"alarm": account.alarm}
    checks = _adjusted([*checks, *_of_images(run, (then, now), paths)])
    content = {
        "schema": "medtl-monitor/1",
        "run": run.path.name,
        "question": str(run.stored_recipe.get("study", {}).get("question", "")),
        "tables": [path.name for path in paths],
        "then": _size(then),
        "now": _size(now),
        "notes": list(notes),
        "checks": [asdict(check) | {"changed": check.changed} for check in checks],
        "curves": curves,
        "accounts": accounts,
        "by_table": list(_by_table(now, run.thresholds)),
        "unlike": _reasons(now),
    }
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "monitor.json", content)
    write_table([_row(check) for check in checks], folder / "monitor.csv")
    page = write_drift_page(folder / "monitor.html", content, language=language)
    return Monitored(page, tuple(checks), tuple(notes))


def _read(run: Run, paths: Sequence[Path], time: str) -> tuple[pd.DataFrame, list[str]]:
    """The rows of all tables in order of time, no image twice, and what was decided."""
    import pandas as pd

    own = sha256_file(run.files.predictions)
    parts = []
    for number, path in enumerate(paths):
        alone = "patient_id" not in read_table(path).columns
        rows = read_predictions(path, one_image_per_patient=alone)
        if "y_score" not in rows:
            raise PredictionsError("there are no scores", expected="y_score", where=path.name)
        if sha256_file(path) == own:
            raise PredictionsError(
                "these are the run's own predictions", expected="new cases", where=path.name
            )
        if time and time not in rows:
            near = ", ".join(map(str, rows.columns))
            raise PredictionsError(
                f"no column {time!r}", expected=f"one of {near}", where=path.name
            )
        if "label" not in rows:
            rows["label"] = str(run.predictions["label"].iloc[0])
        order = {case: place for place, case in enumerate(_cases_in_order(path))}
        rows = rows.assign(_table=path.name, _number=number, _place=rows["case_id"].map(order))
        # Files are named by their place below a folder: two folders may use a name for two images.
        is_alone = rows["patient_id"] == rows["case_id"]
        for column in ("patient_id", "case_id"):
            named = f"{number}:" + rows[column]
            rows[column] = named if column == "case_id" else rows[column].where(~is_alone, named)
        parts.append(rows)
    table = pd.concat(parts, ignore_index=True)
    notes = []
    if "content_sha256" in table:
        known = table["content_sha256"].fillna("").astype(str) != ""
        twice = table.duplicated(["content_sha256", "label"]) & known
        if twice.any():
            count = int(table.loc[twice, "case_id"].nunique())
            notes.append(f"{count} images stand in the tables twice and are counted once")
            table = table[~twice]
    by = [time, "_number", "_place"] if time else ["_number", "_place"]
    return table.sort_values(by, kind="stable", key=_comparable), notes


def _comparable(column: pd.Series[Any]) -> pd.Series[Any]:
    """A column as numbers if all of it are numbers, else as it is."""
    import pandas as pd

    numbers = pd.to_numeric(column, errors="coerce")
    return numbers if numbers.notna().all() else column


def _cases_in_order(path: Path) -> list[str]:
    """The cases of a table in the order of its rows."""
    table = read_table(path)
    place = list(table.columns).index("case_id")
    return list(dict.fromkeys(row[place] for row in table.rows))


def _numbers(rows: pd.DataFrame, column: str = "y_score") -> FloatArray:
    """A column of numbers."""
    return rows[column].to_numpy(dtype=float)


def _patients(rows: pd.DataFrame) -> NDArray[np.str_]:
    """The patients of some rows."""
    return rows["patient_id"].to_numpy(dtype=str)


def _scored(rows: pd.DataFrame, label: str) -> pd.DataFrame:
    """The rows of a finding that have a score."""
    return rows[(rows["label"] == label) & np.isfinite(_numbers(rows))]


def _is_binary(sides: Sides) -> bool:
    """Whether the truths are of a finding, and not of a quantity; -1 is uncertain."""
    return all(set(rows["y_true"].dropna()) <= {0.0, 1.0, -1.0} for rows in sides)


def _compare(check: Check, sides: Sides, statistic: Statistic) -> Check:
    """The check with its p value, or the reason why there is none."""
    if check.reason:
        return check
    try:
        dealt = ThenAndNow(_patients(sides[0]), _patients(sides[1]))
        return check.with_change(dealt.distance(statistic))
    except MedtlError as error:
        return replace(check, reason=error.found)


def _of_label(label: str, sides: Sides, threshold: float | None) -> Iterator[Check]:
    """Yield the checks of one finding or quantity that ask for no order in time."""
    then, now = (_numbers(rows) for rows in sides)
    if not then.size or not now.size:
        yield Check("scores", label, reason="there are no scores")
        return
    yield _compare(Check("scores", label), sides, kolmogorov_smirnov(then, now))
    index = _compare(Check("stability_index", label), sides, stability_index(then, now))
    yield replace(index, p=None)  # shown beside its usual size; the test above asks the same
    if threshold is not None:
        yield _share("flagged", label, sides, (then >= threshold, now >= threshold))
    known = _both(sides, lambda rows: rows[rows["y_true"].notna()])
    if not len(known[1]):
        return
    if not _is_binary(sides):
        errors = (np.abs(_numbers(rows) - _numbers(rows, "y_true")) for rows in known)
        yield _compare(Check("error", label), known, difference_of_means(*errors))
        return
    certain = _both(known, lambda rows: rows[rows["y_true"] >= 0])
    before, after = (_numbers(rows, "y_true") == 1 for rows in certain)
    yield _share("prevalence", label, certain, (before, after))
    if threshold is not None:
        yield _share_right("sensitivity", label, certain, threshold)
        yield _share_right("specificity", label, certain, threshold)
    yield _auroc(label, certain)


def _both(sides: Sides, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Sides:
    """Both sides after a change."""
    return change(sides[0]), change(sides[1])


def _share_right(what: str, label: str, sides: Sides, threshold: float) -> Check:
    """Sensitivity or specificity then and now."""
    positive = what == "sensitivity"
    of_class = _both(sides, lambda rows: rows[(rows["y_true"] == 1) == positive])
    then, now = ((_numbers(rows) >= threshold) == positive for rows in of_class)
    return _share(what, label, of_class, (then, now))


def _share(what: str, label: str, sides: Sides, hits: tuple[BoolArray, BoolArray]) -> Check:
    """A share then and now."""
    then, now = (
        proportion_of_rows(what, mine, patients=_patients(rows))
        for mine, rows in zip(hits, sides, strict=True)
    )
    check = Check(what, label, then, now, reason=then.reason or now.reason)
    return _compare(check, sides, difference_of_means(*(mine.astype(float) for mine in hits)))


def _auroc(label: str, sides: Sides) -> Check:
    """The AUROC then and now."""
    (truth, score), (truth_now, score_now) = (
        (_numbers(rows, "y_true"), _numbers(rows)) for rows in sides
    )
    then = auroc(truth, score, patients=_patients(sides[0]))
    now = auroc(truth_now, score_now, patients=_patients(sides[1]))
    missing = next((m.reason for m in (then, now) if m.value is None), "")
    check = Check("auroc", label, then, now, reason=missing)
    return _compare(check, sides, difference_of_aurocs(truth, score, truth_now, score_now))


def _misses(label: str, sides: Sides, threshold: float | None) -> tuple[Cusum | None, list[Check]]:
    """The running account of the misses among the new positives, where there are truths."""
    if threshold is None or not _is_binary(sides):
        return None, []
    before, after = (_numbers(rows[rows["y_true"] == 1]) < threshold for rows in sides)
    if not after.size or not before.size:
        return None, []
    found = cusum_of_misses(after, misses_then=int(before.sum()), positives_then=before.size)
    return found, [Check("misses", label, distance=max(found.path), usual=found.limit, p=found.p)]


def _of_images(run: Run, sides: Sides, paths: Sequence[Path]) -> Iterator[Check]:
    """Yield the checks of the images themselves: odd, not readable, unlike those of training."""
    images = _both(sides, lambda rows: rows.drop_duplicates("case_id"))
    before = run.quality if run.files.quality.is_file() else {}
    listed = [path.with_suffix(".quality.json") for path in paths]
    if before and all(path.is_file() for path in listed):
        after = [read_json(path) for path in listed]
        flagged = {
            f"{number}:{entry['case_id']}"
            for number, found in enumerate(after)
            for entry in found["flagged"]
            if entry["flags"]
        }
        odd = {entry["case_id"] for entry in before["cases"]}
        then, now = (
            rows["case_id"].isin(those).to_numpy()
            for rows, those in zip(images, (odd, flagged), strict=True)
        )
        yield _share("oddities", "", images, (then, now))
        lost = sum(entry["split"] == "test" for entry in before["quarantined"])
        unread = sum(len(found["quarantined"]) for found in after)
        yield _unreadable((lost, len(images[0])), (unread, len(images[1])))
    if "unlike_training" in images[1]:
        strange = images[1]["unlike_training"].fillna("").astype(str) != ""
        yield _unlike(strange.to_numpy(), images[1])


def _unreadable(then: tuple[int, int], now: tuple[int, int]) -> Check:
    """Images that could not be read, of whom nothing else is known."""
    import pandas as pd

    sides, hits = [], []
    for lost, read in (then, now):
        hits.append(np.arange(lost + read) < lost)
        sides.append(pd.DataFrame({"patient_id": list(map(str, range(lost + read)))}))
    return _share("unreadable", "", (sides[0], sides[1]), (hits[0], hits[1]))


def _unlike(strange: BoolArray, images: pd.DataFrame) -> Check:
    """Images unlike those of the training; of the test set nobody has counted them."""
    from scipy.stats import binomtest

    patients = _patients(images)
    now = proportion_of_rows("unlike_training", strange, patients=patients)
    people = len(np.unique(patients))
    count = len(np.unique(patients[strange]))
    p = float(binomtest(count, people, UNLIKE, alternative="greater").pvalue)
    return Check("unlike_training", now=now, distance=count / people, usual=UNLIKE, p=p)


def _adjusted(checks: Sequence[Check]) -> list[Check]:
    """The checks with p values adjusted for their number."""
    adjusted = where_known(holm, [check.p for check in checks])
    return [replace(check, p_holm=p) for check, p in zip(checks, adjusted, strict=True)]


def _size(rows: pd.DataFrame) -> dict[str, int]:
    """Images and patients of some rows."""
    return {"images": rows["case_id"].nunique(), "patients": rows["patient_id"].nunique()}


def _curve(label: str, sides: Sides, threshold: float | None) -> dict[str, Any]:
    """The shares of cases at or below a score, then and now."""
    scores = [np.sort(_numbers(rows)) for rows in sides]
    pooled = np.concatenate(scores)
    x = np.linspace(pooled.min(), pooled.max(), CURVE_POINTS) if pooled.size else np.zeros(1)
    then, now = (
        (np.searchsorted(side, x, side="right") / max(1, side.size)).round(6).tolist()
        for side in scores
    )
    shares = {"x": x.tolist(), "then": then, "now": now}
    return {"label": label, "threshold": threshold, **shares}


def _by_table(now: pd.DataFrame, thresholds: Mapping[str, float]) -> Iterator[dict[str, Any]]:
    """Yield the share above the threshold of each table and finding."""
    for number in sorted(now["_number"].unique()):
        rows = now[now["_number"] == number]
        for label, threshold in thresholds.items():
            known = _scored(rows, label)
            hits = _numbers(known) >= threshold
            measure = proportion_of_rows("flagged", hits, patients=_patients(known))
            yield {"table": rows["_table"].iloc[0], "label": label, "now": asdict(measure)}


def _reasons(now: pd.DataFrame) -> dict[str, int]:
    """How many images are unlike the training ones in which way."""
    if "unlike_training" not in now:
        return {}
    cells = now.drop_duplicates("case_id")["unlike_training"].fillna("").astype(str)
    return dict(Counter(part for cell in cells for part in cell.split("; ") if part))


def _row(check: Check) -> dict[str, Any]:
    """A check as a row of `monitor.csv`."""
    row: dict[str, Any] = {"what": check.what, "label": check.label}
    for side in ("then", "now"):
        measure: Measure | None = getattr(check, side)
        for part in ("value", "low", "high", "n"):
            row[f"{side}_{part}"] = "" if measure is None else getattr(measure, part)
    names = ("distance", "usual", "p", "p_holm", "reason")
    return row | {name: getattr(check, name) for name in names} | {"changed": int(check.changed)}

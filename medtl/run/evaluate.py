"""From a predictions table, whoever made it, to `metrics.json` and a report. Without torch."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from medtl.cases.exams import Combine, by_exam
from medtl.cases.predictions import read_predictions
from medtl.errors import PredictionsError
from medtl.evaluation.assemble import OfLabels, evaluate, refuse_no_unit
from medtl.evaluation.finding_rows import label_rows, with_defaults
from medtl.evaluation.model_comparison import without_readers
from medtl.evaluation.overlaps import overlap_table
from medtl.evaluation.result import Evaluation, Kind
from medtl.metrics.curves.decision_curve import Range, thresholds_of
from medtl.metrics.operating_point import YOUDEN, Rule, choose_operating_point, with_assurance
from medtl.recipe.about import ReportingItem
from medtl.report.render import write_report
from medtl.run.files import RunFiles
from medtl.storage.atomic import write_json, write_text
from medtl.storage.tables import defuse
from medtl.storage.yaml import load_yaml
from medtl.types import OperatingPoint

if TYPE_CHECKING:
    import pandas as pd

    from medtl.evaluation.statements.recalibrated import Recalibrated

KNOWN_STRATA = ("age", "sex", "view", "site", "scanner")
"""Columns that a foreign table is broken down by when the user names none."""

OPENINGS = "test_openings.jsonl"
"""Beside a run or a table: one line per model whose test results were computed."""

STUDY_KEYS = (
    *("question", "title", "intended_use", "out_of_scope", "reference_standard"),
    *("sampling", "external", "endpoint", "funding", "synthetic"),
    *("ethics", "registration", "annotators", "dates", "protocol", "availability", "reporting"),
)
"""Keys of the `study` part of a table's sidecar."""


@dataclass(frozen=True)
class TableOptions:
    """Statements of a user about a table that some tool made.

    Attributes:
        threshold: Fixed before the test set was seen, for every label, or label -> its own;
            without one, it is chosen on rows with split "val", or left out when there are none.
        rule: How it is chosen there, {"sensitivity": 0.9} with an "assurance" or that of 0.9;
            Youden's without one.
        prevalence: Where the model would be used, in (0, 1): of every label, or label -> its own.
        acting: Lowest and highest probability at which somebody would act, inside (0, 1): the range
            of the decision curves.
        strata: Columns to break the results by; empty for those of `KNOWN_STRATA` it has.
        one_image_per_patient: Stated for a table without `patient_id`.
        model: The one to report in full when the table holds several; "" is the first by name.
        kind: Of study; None finds out from the table.
        unit: Of a regression ("%"), which a table with a unit is.
        exam: Column of the examination that an image is of; "" judges images.
        combine: How the scores of an exam's images become one.
        question: Of the report's first page, in place of what a file beside the table says.
        margins: Measure -> loss against the other models that `model` is allowed (non-inferiority).

    Example:
        >>> TableOptions(threshold=0.5, strata=["sex"]).threshold
        0.5
    """

    threshold: OfLabels | None = None
    rule: Rule | None = None
    prevalence: OfLabels | None = None
    acting: Range | None = None
    strata: Sequence[str] = ()
    one_image_per_patient: bool = False
    model: str = ""
    kind: Kind | None = None
    unit: str = ""
    exam: str = ""
    combine: Combine | None = None
    question: str = ""
    margins: Mapping[str, float] = field(default_factory=dict)


def evaluate_rows(  # noqa: PLR0913 - one call states a whole evaluation
    rows: pd.DataFrame,
    files: RunFiles,
    *,
    rule: Rule,
    prevalence: OfLabels | None,
    acting: Range | None = None,
    strata: Sequence[str],
    classes: Sequence[str] = (),
    unit: str = "",
    exams: Combine | None = None,
    recalibrations: Sequence[Recalibrated] | None = None,
) -> Evaluation:
    """Return the statistics of a run's predictions.

    Args:
        rows: The predictions of the run.
        files: Of the run.
        rule: How to choose the threshold, on validation rows.
        prevalence: Where the model would be used, in (0, 1): of every label, or label -> its own.
        acting: Lowest and highest probability at which somebody would act.
        strata: Columns to break the results by, as far as they are there.
        classes: Of the recipe, in its order; it counts where they are the labels.
        unit: Of a regression ("%"), "" for other kinds of study and for bone age.
        exams: How the scores of an exam's images become one; None judges images.
        recalibrations: That its checkpoint keeps; None fits where validation calls for one.
    """
    rows = with_overlaps(rows, files.predictions, files.overlaps)
    rows, combined = by_exam(rows, exams) if exams else (rows, [])
    present = [name for name in strata if name in rows]
    labels = {*rows["label"]} if "label" in rows else {""}
    result = evaluate(
        rows,
        rule=rule,
        prevalence=prevalence,
        acting=acting,
        strata=present,
        classes=classes if labels <= {*classes} else (),
        unit=unit,
        recalibrations=recalibrations,
    )
    result = _said_by("run", result)
    openings = count_openings(files.folder.resolve().parent / OPENINGS, rows, "")
    return replace(result, test_openings=openings, notes=(*combined, *result.notes))


def _said_by(source: str, result: Evaluation) -> Evaluation:
    """Return the evaluation with who says where the thresholds come from that nobody stated."""
    points = (replace(point, source=point.source or source) for point in result.operating_points)
    return replace(result, operating_points=tuple(points))


def evaluate_table(
    table: str | PathLike[str],
    out: str | PathLike[str],
    options: TableOptions = TableOptions(),
) -> Evaluation:
    r"""Compute the statistics of a table that any tool made, and leave them in `metrics.json`.

    Of a table of masks, the overlap of every case is left in `overlap.csv` beside it.

    Args:
        table: CSV or Parquet with `case_id, y_true, y_score`, or with `case_id, truth, prediction`.
        out: `metrics.json` to write.
        options: What the user states.

    Raises:
        PredictionsError: For a table that is not a predictions table.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> text = "case_id,patient_id,y_true,y_score\na,p1,0,0.2\nb,p2,1,0.9\nc,p3,0,0.4\n"
        >>> with TemporaryDirectory() as folder:
        ...     _ = Path(folder, "scores.csv").write_text(text)
        ...     evaluate_table(f"{folder}/scores.csv", f"{folder}/metrics.json").kind
        'classification'
    """
    table, out = Path(table), Path(out)
    rows = read_predictions(table, one_image_per_patient=options.one_image_per_patient)
    return _write_metrics(rows, table, out, options)


def report_table(
    table: str | PathLike[str],
    out: str | PathLike[str],
    options: TableOptions = TableOptions(),
    *,
    language: str = "en",
) -> Path:
    r"""Evaluate a table that any tool made, and write everything a reader needs into a folder.

    Args:
        table: As for `evaluate_table`. A YAML file of the same name may hold `study` (question,
            intended_use, ...) and `labels`.
        out: Folder of metrics.json, report.html, model_card.md and .json; made when missing.
        options: What the user states.
        language: Of the report, "en" or "ko".

    Returns:
        The path of `report.html`.

    Raises:
        PredictionsError: For a table that is not a predictions table, or a sidecar with other keys.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> text = "case_id,patient_id,y_true,y_score\na,p1,0,0.2\nb,p2,1,0.9\nc,p3,0,0.4\n"
        >>> with TemporaryDirectory() as folder:
        ...     _ = Path(folder, "scores.csv").write_text(text)
        ...     report_table(f"{folder}/scores.csv", f"{folder}/report").name
        'report.html'
    """
    table, out = Path(table), Path(out)
    study = _study_of(table)
    rows = read_predictions(table, one_image_per_patient=options.one_image_per_patient)
    out.mkdir(parents=True, exist_ok=True)
    files = RunFiles(out)
    result = _write_metrics(rows, table, files.metrics, options)
    stated = {"prevalence": options.prevalence, "question": options.question or None}
    study |= {key: value for key, value in stated.items() if value is not None}
    return write_report(
        files.report,
        metrics=result.to_json(),
        study=study,
        cohort=result.cohort,
        gallery=RunFiles(table.parent).gallery,
        synthetic=study.get("synthetic") is True,
        language=language,
    )


def _write_metrics(rows: pd.DataFrame, table: Path, out: Path, options: TableOptions) -> Evaluation:
    """Evaluate the rows of a table, write the statistics and return them."""
    check_options(rows, table, options)
    rows = with_overlaps(rows, table, RunFiles(out.parent).overlaps)
    rows, combined = by_exam(rows, options.combine, options.exam) if options.combine else (rows, [])
    of_models, _ = without_readers(rows)
    has_val = bool((rows["split"] == "val").any())
    names = sorted(map(str, of_models["model"].unique())) if "model" in of_models else []
    if options.margins and (len(names) < 2 or not options.model):
        raise PredictionsError(
            "a margin is stated" + (", and not which model is the new one" if names[1:] else ""),
            expected="a table with a column model, and the name of the new model",
            where=table.name,
            fix=f"Say which: --model {(names or ['NAME'])[0]}",
        )
    model = options.model or (names[0] if len(names) > 1 else None)
    result = evaluate(
        rows,
        rule=with_assurance(options.rule or YOUDEN) if has_val else None,
        operating_points=_given_points(of_models, options.threshold),
        prevalence=options.prevalence,
        acting=options.acting,
        strata=options.strata or [name for name in KNOWN_STRATA if name in rows],
        classes=_order_beside(table),
        kind=options.kind,
        unit=options.unit,
        model=model,
        margins=options.margins,
    )
    openings = count_openings(table.resolve().parent / OPENINGS, of_models, model or "")
    notes = (*combined, *result.notes)
    result = replace(_said_by("table", result), test_openings=openings, notes=notes)
    write_json(out, result.to_json())
    return result


def _given_points(rows: pd.DataFrame, stated: OfLabels | None) -> list[OperatingPoint]:
    """Return the thresholds that the user states, for the labels of the test rows."""
    if stated is None:
        return []
    if not isinstance(stated, Mapping):
        test = rows[rows["split"] == "test"]
        stated = dict.fromkeys(test.get("label", [""]), stated)
    return [
        OperatingPoint(name, at, "given", "given", 0, 0, source="user")
        for name, at in stated.items()
    ]


def check_options(rows: pd.DataFrame, table: Path, options: TableOptions) -> None:
    """Refuse what does not fit the table, before anything is computed."""
    missing = [name for name in options.strata if name not in rows.columns]
    if missing:
        raise PredictionsError(
            f"no column {', '.join(missing)}",
            expected=f"some of {', '.join(rows.columns)}",
            where=table.name,
        )
    if bool(options.exam) != (options.combine is not None):
        raise PredictionsError(
            "an exam column without a rule, or a rule without a column",
            expected="--exam COLUMN --combine max, mean or noisy_or",
        )
    refuse_no_unit(options.kind, options.unit, rows.get("label", [""]), table.name)
    if options.rule and isinstance(options.threshold, float | int):
        raise PredictionsError(
            f"a threshold of {options.threshold:g} for every label, and a rule to choose one",
            expected="one of the two",
            fix="Leave the rule out, or state the thresholds of some labels: --threshold NAME=0.5",
        )
    if options.rule:
        _check_rule(rows, table, options.rule, options.model)
    thresholds_of(options.acting)
    for share in _values(options.prevalence):
        if not 0 < share < 1:
            raise PredictionsError(f"a prevalence of {share:g}", expected="a share between 0 and 1")
    if any(map(math.isnan, _values(options.threshold))):
        raise PredictionsError("the threshold is not a number", fix="State --threshold 0.5")
    if "y_score" in rows:
        _check_scale(rows["y_score"].dropna(), _values(options.threshold))


def _check_scale(scores: pd.Series, thresholds: Sequence[float]) -> None:
    """Refuse a threshold in percent of shares, and one that is a share of scores in percent."""
    shares = scores.between(0, 1).all()
    percent = scores.between(0, 100).all() and scores.max() > 10 and scores.median() > 1
    for at in thresholds:
        if shares and not 0 <= at <= 1:
            raise PredictionsError(
                f"a threshold of {at:g}, and all scores lie between 0 and 1",
                expected="a threshold on the scale of the scores",
                fix="State 0.5, not 50, if percent are meant",
            )
        if percent and 0 < at <= 1:
            raise PredictionsError(
                f"a threshold of {at:g}, and the scores go from {scores.min():g} to "
                f"{scores.max():g}",
                expected="a threshold on the scale of the scores",
                fix="State 50, not 0.5, if the scores are percent",
            )


def _check_rule(rows: pd.DataFrame, table: Path, rule: Rule, model: str) -> None:
    """Refuse a rule without rows to choose on, or without rows to judge; then say what it chooses.

    Scores of a column `fold` are taken for out-of-fold scores where no row is of split val.
    """
    choosing = (rows["split"] == "val").any()
    folds = rows["fold"].nunique() if "fold" in rows else 0
    if choosing and (rows["split"] == "test").any():
        return
    if not choosing and folds < 2:
        raise PredictionsError(
            "a rule is stated, and no row is of split val",
            expected="rows of split val, from which alone a threshold may be chosen",
            where=table.name,
            fix="Add validation or out-of-fold scores as split val, or state the threshold",
        )
    whose = "validation scores" if choosing else f"out-of-fold scores of {folds} folds"
    if choosing:
        rows = rows[rows["split"] == "val"]
    if "model" in rows:
        rows = rows[rows["model"] == (model or min(map(str, rows["model"].unique())))]
    labels, _ = label_rows(with_defaults(rows.assign(split="val"), ()), ())
    points = [
        choose_operating_point(of.scores, rule=with_assurance(rule), label=label)
        for (_, label), of in labels.items()
        if not of.scores.one_class
    ]
    chosen = " ".join(
        f"--threshold {point.label}{'=' if point.label else ''}{point.threshold}"
        for point in points
    )
    promised = sum(bool(point.assurance) for point in points)
    raise PredictionsError(
        f"a rule is stated, and the table holds {whose} only ({len(rows)} rows)",
        expected="rows of split test beside those of split val: what chose a threshold cannot "
        "judge it",
        where=table.name,
        fix=f"Evaluate a table of test rows with what the rule chooses here: {chosen or 'nothing'}"
        f" ({promised} of {len(points)} with a certainty of the share); or leave the rule out",
    )


def _values(stated: OfLabels | None) -> list[float]:
    """Return the numbers that are stated, for one label or for each."""
    if isinstance(stated, Mapping):
        return list(stated.values())
    return [] if stated is None else [stated]


def _beside(table: Path) -> dict[str, Any]:
    """Return what the YAML file beside a table holds; {} without one."""
    file = table.with_suffix(".yaml")
    return load_yaml(file) if file.is_file() else {}


def _order_beside(table: Path) -> Sequence[str]:
    """Return the order of the classes that the file beside a table states; numbers as text."""
    stated = _beside(table).get("classes") or ()
    return [*map(str, stated)] if isinstance(stated, list) else stated


def _study_of(table: Path) -> dict[str, Any]:
    """Return what the YAML file beside a table says about the study."""
    study = _beside(table).get("study", {})
    unknown = [key for key in study if key not in STUDY_KEYS] if isinstance(study, dict) else ["it"]
    if unknown:
        raise PredictionsError(
            f"study has the key {unknown[0]!r}",
            expected=f"some of {', '.join(STUDY_KEYS)}",
            where=table.with_suffix(".yaml").name,
        )
    known, stated = get_args(ReportingItem), study.get("reporting") or {}
    unknown = [key for key in stated if key not in known] if isinstance(stated, dict) else ["it"]
    if unknown:
        raise PredictionsError(
            f"study.reporting has the key {unknown[0]!r}",
            expected=f"some of {', '.join(known)}",
            where=table.with_suffix(".yaml").name,
        )
    return dict(study)


def with_overlaps(rows: pd.DataFrame, table: Path, out: Path) -> pd.DataFrame:
    """Return the rows unchanged, or for masks one row per case and structure, also as a file."""
    if "y_score" in rows or "prediction" not in rows:
        return rows
    overlaps = overlap_table(rows, table)
    safe = overlaps.map(lambda cell: defuse(cell) if isinstance(cell, str) else cell)
    write_text(out, safe.to_csv(index=False, lineterminator="\n"))
    return overlaps


def count_openings(file: Path, rows: pd.DataFrame, model: str) -> dict[str, int] | None:
    """Note that the test rows were looked at; return how many models have been, and which is this.

    The same predictions count once, however often they are evaluated. Nothing in the file depends
    on the time.

    Args:
        file: `OPENINGS` beside the run or the table; a line is added for a new model.
        rows: Predictions; only the test rows matter.
        model: Of those in the table, the one that is reported.

    Returns:
        `models` (of this folder, on these test cases) and `this` (counted from 1); None if the
        folder cannot be written.
    """
    test = rows[rows["split"] == "test"] if "split" in rows else rows
    cases = _digest(sorted(set(test["case_id"].astype(str))))
    parts = test.groupby("model", sort=True) if "model" in test else [("", test)]
    columns = [name for name in ("label", "case_id", "y_score", "dice", "iou") if name in test]
    hashes = {
        str(name): _digest(sorted(map(repr, part[columns].itertuples(index=False, name=None))))
        for name, part in parts
    }
    seen = [line["model"] for line in _openings(file) if line["test"] == cases]
    fresh = [value for value in dict.fromkeys(hashes.values()) if value not in seen]
    try:
        with file.open("a", encoding="utf-8") as stream:
            stream.writelines(json.dumps({"test": cases, "model": value}) + "\n" for value in fresh)
    except OSError:
        return None
    known = list(dict.fromkeys([*seen, *fresh]))
    this = hashes.get(model, next(iter(hashes.values()), ""))
    return {"models": len(known), "this": known.index(this) + 1} if this else None


def _openings(file: Path) -> Iterator[dict[str, str]]:
    """Yield the lines of the list of openings that can be read."""
    if not file.is_file():
        return
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict) and {"test", "model"} <= entry.keys():
            yield entry


def _digest(parts: Sequence[str]) -> str:
    """Return a short hash of texts in their order."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def summarise(found: Evaluation) -> Iterator[str]:
    """Yield the headline measures of an evaluation on the test rows, and its notes."""
    for measure in found.headlines():
        name = f"{measure.label} {measure.name}".strip()
        if measure.value is None:
            yield f"{name}: not estimable, {measure.reason}"
            continue
        interval = ""
        if measure.low is not None and measure.high is not None:
            interval = f" [{measure.low:.3f}, {measure.high:.3f}]"
        flag = f" ({measure.reason})" if measure.status == "degenerate" else ""
        yield f"{name}: {measure.value:.3f}{interval}, n = {measure.n}{flag}"
    for one in found.comparison.tests if found.comparison else ():
        p = "no test" if one.test.p is None else f"p = {one.test.p:.4f} ({one.test.method})"
        yield f"{one.label} {one.first} minus {one.second}, {one.test.difference!r}, {p}".strip()
        if one.noninferior is not None:
            yield f"  {found.comparison.shown if found.comparison else ''} {one.noninferior}"
    yield from reversed_scores(found)
    yield from found.notes


def reversed_scores(found: Evaluation) -> list[str]:
    """Return a note for every label whose scores rank the diseased below the healthy."""
    return [
        f"AUROC of {one.label!r} is {one.value:.3f}: its scores seem to run the other way round "
        "(a higher score must mean more diseased)"
        for one in found.concerns
        if one.kind == "scores_reversed"
    ]

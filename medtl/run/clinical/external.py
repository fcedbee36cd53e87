"""External validation: a run's model, its frozen thresholds and prevalences on other patients."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtl.cases.exams import EXAM, Combine, by_exam
from medtl.cases.predictions import read_predictions, write_predictions
from medtl.cases.pseudonyms import load_salt, pseudonym
from medtl.errors import MedtlError, PredictionsError, RunError
from medtl.evaluation.assemble import evaluate
from medtl.evaluation.finding_rows import label_rows
from medtl.evaluation.model_comparison import without_readers
from medtl.evaluation.result import Evaluation
from medtl.evaluation.statements.recalibrated import Recalibrated, mended
from medtl.evaluation.transfer.source_target import (
    External,
    Ladder,
    characteristics,
    ladder_of,
    measures_beside,
)
from medtl.metrics.scores import CI95
from medtl.recipe.schema import Data
from medtl.run.clinical.external_tables import write_results
from medtl.run.evaluate import (
    KNOWN_STRATA,
    OPENINGS,
    TableOptions,
    check_options,
    count_openings,
    reversed_scores,
    with_overlaps,
)
from medtl.run.files import RunFiles
from medtl.run.use.mending import recalibrations_of
from medtl.storage.tables import nearest, read_columns
from medtl.storage.yaml import load_yaml
from medtl.types import OperatingPoint

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

KNOWN_TO_THE_RUN = ("train", "val")
"""Splits whose patients chose the weights, the epoch or the threshold."""


@dataclass(frozen=True)
class Source:
    """What of a run an external validation needs.

    Attributes:
        path: Of the run folder.
        evaluation: Its own, with the frozen thresholds.
        recipe: As stored; empty for a folder that has none.
        patients: Case, patient, split and what else the run knows of its cases, as text; None
            where it has no list.
        recalibrations: What mends its probabilities.
    """

    path: Path
    evaluation: Evaluation
    recipe: Mapping[str, Any]
    patients: pd.DataFrame | None
    recalibrations: tuple[Recalibrated, ...] = ()

    @classmethod
    def of(cls, files: RunFiles, evaluation: Evaluation) -> Source:
        """Return what the run folder holds of it."""
        import pandas as pd

        recipe = load_yaml(files.recipe) if files.recipe.is_file() else {}
        lists = [file for file in (files.manifest, files.predictions) if file.is_file()]
        known = pd.read_csv(lists[0], dtype=str, keep_default_na=False) if lists else None
        return cls(files.folder, evaluation, recipe, known, recalibrations_of(files))

    @property
    def study(self) -> Mapping[str, Any]:
        """The part `study` of the recipe."""
        return self.recipe.get("study") or {}

    @property
    def exam_score(self) -> Combine | None:
        """How the run made one score of an exam's images; None where it judged images."""
        return (self.recipe.get("data") or {}).get("exam_score")


def evaluate_external(
    table: Path,
    source: Source,
    out: Path,
    options: TableOptions | None = None,
    *,
    without_known: bool = False,
    language: str = "en",
) -> Evaluation:
    """Judge a run's model on the predictions of other patients, and write all of it to a folder.

    The thresholds are those that the run froze. Written are `metrics.json`, `report.html`,
    `external.json` and the tables `source_target.csv`, `characteristics.csv`, `updating.csv` and
    `sites.csv`.

    Args:
        table: Predictions of the run's model, as for `evaluate_table`, with the run's labels.
        source: The run.
        out: Folder to write to, made when missing.
        options: What the user states of the table; a threshold and a kind are the run's.
        without_known: Leave out patients that the run was trained or tuned on.
        language: Of the report, "en" or "ko".

    Returns:
        The evaluation; its `external` has source beside target and the updating ladder.

    Raises:
        PredictionsError: If labels, scores or patients do not fit an external validation.
    """
    options = options or TableOptions()
    if options.threshold is not None or options.kind or options.unit or options.margins:
        raise PredictionsError(
            "a threshold, a kind, a unit or a margin is stated beside a run",
            expected="those of the run, which are frozen",
            fix="Leave them out, or leave out --from",
        )
    rows = read_predictions(table, one_image_per_patient=options.one_image_per_patient)
    check_options(rows, table, options)
    out.mkdir(parents=True, exist_ok=True)
    rows, notes = _fitting(rows, source, table, options.model, without_known)
    rows = with_overlaps(rows, table, RunFiles(out).overlaps)
    rows, combined = _as_judged(rows, source, options)
    notes += combined
    found = _judged(rows, source, options, notes)
    openings = count_openings(table.resolve().parent / OPENINGS, rows, "")
    found = replace(found, test_openings=openings)
    write_results(found, out)
    study = {
        **source.study,
        "external": f"patients of {table.name}, a model of {source.path.name}",
    }
    if options.prevalence is not None:
        study["prevalence"] = _prevalences(source, options, found.labels)
    found.report(out / RunFiles(out).report.name, study=study, language=language)
    return found


def is_table(data: Path) -> bool:
    """Return whether a file is a predictions table, and not a manifest, an image or a folder."""
    try:
        return data.is_file() and not {"y_score", "prediction"}.isdisjoint(read_columns(data))
    except MedtlError:
        return False


def keep_predictions(rows: pd.DataFrame, table: Path, data: str, asked: Data) -> None:
    """Write the predictions of another place as rows that can be judged.

    Args:
        rows: As `Run.predict` makes them.
        table: Where to.
        data: Name of the manifest, for the message.
        asked: Where the run's own manifest has the truth.

    Raises:
        RunError: If no image has a truth, or the images are the run's own.
    """
    if "y_true" in rows and not rows["y_true"].notna().any():
        wanted = ", ".join(map(str, dict.fromkeys(rows["label"])))
        columns = asked.targets or (asked.mask or "",)
        raise RunError(
            f"no image has a truth of {wanted}",
            expected=f"a manifest with the run's target columns: {', '.join(columns)}",
            where=data,
            fix="Add them; `medtl predict` predicts without truth",
        )
    if (rows["split"] == "val").any() and "file" not in rows:
        raise RunError(
            "this is the manifest that the run was made of",
            expected="other patients",
            where=data,
            fix="The run's own test set is in its report: medtl report RUN",
        )
    # What the other place calls its splits says nothing here: all of it is external.
    write_predictions(rows.assign(split="test"), table)


def _fitting(
    rows: pd.DataFrame, source: Source, table: Path, model: str, without_known: bool
) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows that can judge the run's model, and notes of what was left out."""
    rows, _ = without_readers(rows)
    rows = _of_one_model(rows, model)
    notes = []
    elsewhere = rows["split"] != "test"
    if elsewhere.any():
        if elsewhere.all():
            raise PredictionsError("the table has no test rows", expected="rows of split test")
        notes.append(f"{int(elsewhere.sum())} rows of the table's own train or val split left out")
        rows = rows[~elsewhere]
    rows, said = _with_labels(rows, source)
    notes += said
    rows, unjudged = _with_truth(rows, table)
    notes += unjudged
    _refuse_other_scale(rows, source)
    rows, said = _without_shared(rows, source, without_known, table)
    return rows.reset_index(drop=True), [*notes, *said]


def _of_one_model(rows: pd.DataFrame, model: str) -> pd.DataFrame:
    """Return the rows of the model that is meant."""
    if "model" not in rows:
        return rows
    names = sorted(map(str, rows["model"].unique()))
    if model not in names and (model or len(names) > 1):
        raise PredictionsError(
            f"no model {model!r}" if model else f"{len(names)} models",
            expected=f"one of {', '.join(names)}",
            fix=f"Say which is the run's: --model {names[0]}",
        )
    return rows[rows["model"].astype(str) == (model or names[0])]


def _with_labels(rows: pd.DataFrame, source: Source) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows of labels that the run knows; one that is only spelled otherwise stops."""
    known = source.evaluation.labels
    if "label" not in rows:
        if len(known) != 1:
            raise PredictionsError(
                f"no column label, and the run has {len(known)} labels",
                expected=f"one of {', '.join(known)} in every row",
            )
        return rows.assign(label=known[0]), []
    given = list(dict.fromkeys(map(str, rows["label"])))
    unknown = [name for name in given if name not in known]
    absent = [name for name in known if name not in given]
    hints = {name: nearest(name, absent) for name in unknown}
    meant = {name: hint for name, hint in hints.items() if hint}
    if meant or len(unknown) == len(given):
        listed = ", ".join(map(repr, unknown))
        renamed = ", ".join(f"{hint} for {name}" for name, hint in meant.items())
        raise PredictionsError(
            f"the run knows no label {listed}",
            expected=f"labels of the run: {', '.join(known)}",
            fix=f"Write {renamed or 'the labels of the table as the run calls them'}",
        )
    notes = [f"the run knows no label {', '.join(map(repr, unknown))}: left out"] * bool(unknown)
    notes += [f"the table has no rows of {', '.join(map(repr, absent))}"] * bool(absent)
    return rows[rows["label"].isin(known)], notes


def _with_truth(rows: pd.DataFrame, table: Path) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows of labels of which some truth is known; where none is, that is said."""
    if "y_true" not in rows:
        return rows, []
    known = rows["y_true"].notna().groupby(rows["label"]).any()
    silent = [str(label) for label in known.index[~known]]
    if len(silent) == len(known):
        raise PredictionsError(
            "no row has a truth", expected="y_true of 0 or 1 in some", where=table.name
        )
    notes = [f"no row of {label!r} has a truth: it is not judged" for label in silent]
    return rows[~rows["label"].isin(silent)], notes


def _is_scored(evaluation: Evaluation) -> bool:
    """Tell whether a run's predictions are scores of findings, which thresholds cut."""
    return any(measure.name == "auroc" for measure in evaluation.measures)


def _refuse_other_scale(rows: pd.DataFrame, source: Source) -> None:
    """Refuse scores that cannot be the probabilities that the run's thresholds are about."""
    if not _is_scored(source.evaluation) or "y_score" not in rows:
        return
    low, high = float(rows["y_score"].min()), float(rows["y_score"].max())
    cuts = [point.threshold for point in source.evaluation.operating_points]
    calibrated = any(m.name == "brier" for m in source.evaluation.measures)
    if calibrated and (low < 0 or high > 1):
        raise PredictionsError(
            f"scores from {low:g} to {high:g}",
            expected="probabilities: the run's are, and so are its thresholds "
            f"({', '.join(f'{cut:.3g}' for cut in cuts[:3])})",
            fix="Divide percent by 100; turn logits into 1 / (1 + exp(-x))",
        )


def _without_shared(
    rows: pd.DataFrame, source: Source, without_known: bool, table: Path
) -> tuple[pd.DataFrame, list[str]]:
    """Refuse patients that the run has learned from, or leave them out when that is asked for."""
    known = source.patients
    name = source.path.name
    if known is None or "patient_id" not in known:
        unchecked = f"{name!r} has no list of its patients: that none of them is here is unchecked"
        return rows, [unchecked]
    splits = dict(zip(known["patient_id"], known["split"], strict=True))
    whose = _split_of(rows["patient_id"].unique(), splits)
    seen = rows["patient_id"].map(whose).astype(object)
    if "content_sha256" in rows and "content_sha256" in known:
        pixels = dict(zip(known["content_sha256"], known["split"], strict=True))
        pixels.pop("", None)
        seen = seen.fillna(rows["content_sha256"].map(pixels))
    count = {
        split: rows["patient_id"][seen == split].nunique() for split in (*KNOWN_TO_THE_RUN, "test")
    }
    told = " and ".join(
        f"{count[split]} of its {split}" for split in KNOWN_TO_THE_RUN if count[split]
    )
    notes = []
    if count["test"]:
        notes.append(
            f"{count['test']} patients are of the test set of {name!r}: "
            "for them nothing is external"
        )
    if not told:
        return rows, notes
    if not without_known:
        raise PredictionsError(
            f"patients of {name} are among these: {told} set",
            expected="patients that the model has never seen",
            fix="Leave them out, or let it be done: "
            f"medtl evaluate {table} --from {source.path} --without-known-patients",
        )
    mine = seen.isin(KNOWN_TO_THE_RUN)
    if mine.all():
        raise PredictionsError(f"all patients are of {name}: {told} set", expected="others")
    return rows[~mine], [*notes, f"patients of {name!r} were left out: {told} set"]


def _split_of(patients: Iterable[str], splits: Mapping[str, str]) -> dict[str, str]:
    """Return patient -> split of those that the run knows, by id or by this user's pseudonym."""
    found = {one: splits[one] for one in patients if one in splits}
    if found or not any(one.startswith("p-") for one in splits):
        return found
    try:
        salt = load_salt()
    except MedtlError as error:
        log.warning("patients were compared by their id alone: %s", error)
        return found
    names = {one: pseudonym("patient", str(one), salt) for one in patients}
    return {one: splits[name] for one, name in names.items() if name in splits}


def _as_judged(
    rows: pd.DataFrame, source: Source, options: TableOptions
) -> tuple[pd.DataFrame, list[str]]:
    """Return images, or exams where the run's threshold is one of exams."""
    combine, column = options.combine or source.exam_score, options.exam or EXAM
    if combine is None:
        return rows, []
    if column not in rows:
        raise PredictionsError(
            "the run judges exams, and the table does not say which exam an image is of",
            expected="a column of the exam: the frozen threshold is one of exams",
            fix=f"Name it: --exam COLUMN --combine {combine}",
        )
    return by_exam(rows, combine, column)


def _judged(
    rows: pd.DataFrame, source: Source, options: TableOptions, notes: list[str]
) -> Evaluation:
    """Return the evaluation of the rows at the run's thresholds, with its external part."""
    own = source.evaluation
    present = set(rows["label"])
    points = [point for point in own.operating_points if point.label in present]
    classes = (source.recipe.get("data") or {}).get("classes") or ()
    strata = list(options.strata) or [name for name in KNOWN_STRATA if name in rows]
    found = evaluate(
        rows,
        operating_points=points,
        prevalence=_prevalences(source, options, present),
        acting=options.acting or source.study.get("acting"),
        strata=strata,
        classes=classes if present <= {*classes} else (),
        kind=own.kind,
        unit=own.unit,
        recalibrations=source.recalibrations,
    )
    is_scored = _is_scored(own)
    if is_scored:
        missing = sorted(present - {point.label for point in points})
        if missing:
            notes.append(
                f"the run froze no threshold of {', '.join(map(repr, missing))}: "
                "no sensitivity and no specificity"
            )
        notes = [*reversed_scores(found), *notes]
    if found.confusion is not None:
        notes.append("updates are of each class alone: the updated ones need not sum to 1")
    if found.recalibrations:
        notes.append("updates start from the probabilities that the run's recalibration mends")
    ladders = _ladders(rows, own, points, found.recalibrations, source) if is_scored else []
    known = source.patients
    shifted = []
    if known is not None:
        tested = known[known["split"] == "test"]
        shifted = characteristics(tested, rows, [name for name in strata if name != "site"])
    if "site" in rows and rows["site"].nunique() < 2:
        notes.append("one site: how the measures differ between sites cannot be seen")
    external = External(
        source.path.name,
        tuple(measures_beside(own.measures, found.measures)),
        tuple(shifted),
        tuple(ladders),
        tuple(notes),
    )
    return replace(found, external=external, notes=(*notes, *found.notes))


def _prevalences(
    source: Source, options: TableOptions, labels: Collection[str]
) -> dict[str, float]:
    """Return label -> prevalence: what is stated here comes before what the run states."""
    frozen, stated = source.study.get("prevalence"), options.prevalence
    if isinstance(frozen, Mapping):
        found = {name: share for name, share in frozen.items() if name in labels}
    else:
        found = {} if frozen is None else dict.fromkeys(labels, frozen)
    if isinstance(stated, Mapping):  # an unknown label is refused by the evaluation
        return {**found, **stated}
    return found if stated is None else dict.fromkeys(labels, stated)


def _ladders(
    rows: pd.DataFrame,
    own: Evaluation,
    points: Sequence[OperatingPoint],
    done: Sequence[Recalibrated],
    source: Source,
) -> list[Ladder]:
    """Return the updating ladder of every label, on the scale of the probabilities in use."""
    labels, _ = label_rows(rows.assign(y_score=mended(done, rows)) if done else rows, [])
    by_label = {point.label: point for point in points}
    for one in done:
        for name in {*one.labels} & {*by_label}:
            point = by_label.pop(name)
            if not one.classes and 0 <= point.threshold <= 1:  # of classes there is none
                moved = float(one.fit([point.threshold])[0])
                by_label[name] = replace(point, threshold=moved)
    rule = source.study.get("operating_point")
    prevalence = {
        m.label: m.value
        for m in own.measures
        if (m.name, m.split, m.subset) == ("prevalence", "test", "all")
    }
    return [
        ladder_of(one, by_label.get(one.label), rule or None, prevalence.get(one.label), CI95)
        for one in labels.values()
    ]

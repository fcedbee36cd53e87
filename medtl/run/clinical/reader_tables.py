"""`medtl readers TABLE`: modalities and models compared over readers, and their agreement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from medtl.evaluation.result import plain
from medtl.metrics.comparison import holm, where_known
from medtl.metrics.confusion import share_measures
from medtl.metrics.ranking import auroc
from medtl.metrics.readers.multireader import (
    Components,
    Contrast,
    Readers,
    against_readers,
    reader_study,
)
from medtl.metrics.readers.paired_shares import Noninferiority, noninferiority
from medtl.metrics.readers.rater_agreement import reader_agreement
from medtl.metrics.scores import CI95, Scores
from medtl.report.reader_page import write_reader_page
from medtl.run.clinical.marks import Marks, read_marks
from medtl.run.files import RunFiles
from medtl.storage.atomic import write_json
from medtl.storage.tables import write_table
from medtl.types import FloatArray, Measure


@dataclass(frozen=True)
class ReaderOptions:
    """What a user states of a table of readers' marks.

    Attributes:
        threshold: A mark counts as "yes" from here on; 1 where all marks are 0 or 1.
        cutoff: A model's score counts as "yes" from here on.
        margin: Of non-inferiority, fixed beforehand.
        readers: "random": about readers like these. "fixed": these alone.
        complete_cases: Keep the cases that all have read.
        without: Readers to leave out.

    Example:
        >>> ReaderOptions(margin=0.05).readers
        'random'
    """

    threshold: float | None = None
    cutoff: float | None = None
    margin: float | None = None
    readers: Readers = "random"
    complete_cases: bool = False
    without: Sequence[str] = ()


@dataclass(frozen=True)
class Compared:
    """A difference of two modalities, or of a model and the readers.

    Attributes:
        of: Figure of merit. first, second: What is compared, first minus second.
        contrast: With interval and test.
        p_holm: p within the comparisons of the same figure.
        noninferior: Where a margin was stated.
    """

    of: str
    first: str
    second: str
    contrast: Contrast
    p_holm: float | None = None
    noninferior: Noninferiority | None = None


@dataclass(frozen=True)
class ReaderResults:
    """Everything that is said of a table of marks.

    Attributes:
        cases, positives, patients: In it.
        readers, modalities: Their names.
        whose: "random" or "fixed".
        single: (figure, modality, reader, measure) of every reader.
        means: (modality, measure) over the readers, and of models alone.
        compared: Pairs of modalities, and models against readers.
        components: Figure -> variance components.
        overall: (figure, F, degrees of freedom, p) that no modality differs from another.
        agreement: (modality, measure).
        notes: In words.
    """

    cases: int
    positives: int
    patients: int
    readers: tuple[str, ...]
    modalities: tuple[str, ...]
    whose: str
    single: tuple[tuple[str, str, str, Measure], ...]
    means: tuple[tuple[str, Measure], ...]
    compared: tuple[Compared, ...]
    components: dict[str, Components]
    overall: tuple[tuple[str, float | None, float | None, float | None], ...]
    agreement: tuple[tuple[str, Measure], ...]
    notes: tuple[str, ...]


def evaluate_readers(
    table: Path, out: Path, options: ReaderOptions = ReaderOptions(), *, language: str = "en"
) -> ReaderResults:
    """Compare modalities and models over readers, and write report, JSON and tables to a folder.

    Written are `report.html`, `readers.json`, `each_reader.csv`, `means.csv`, `differences.csv`,
    `components.csv` and `agreement.csv`.

    Args:
        table: Marks, see `medtl.run.clinical.marks.read_marks`.
        out: Folder, made when missing.
        options: What the user states.
        language: Of the report, "en" or "ko".

    Raises:
        PredictionsError: For a table that is not one of marks, or marks that are missing.
    """
    marks = read_marks(table, complete_cases=options.complete_cases, without=options.without)
    found = judge_readers(marks, options)
    out.mkdir(parents=True, exist_ok=True)
    content = {"schema": "medtl-readers/1", **_finite(plain(found))}
    write_json(out / "readers.json", content)
    for name, rows in _tables(found).items():
        if rows:
            write_table(rows, out / f"{name}.csv")
    write_reader_page(RunFiles(out).report, content, title=table.stem, language=language)
    return found


def _finite(value: Any) -> Any:
    """Return the results as JSON can hold them: infinite degrees of freedom as a word."""
    if isinstance(value, Components):
        return asdict(value)
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return "inf" if isinstance(value, float) and np.isinf(value) else value


def judge_readers(marks: Marks, options: ReaderOptions) -> ReaderResults:
    """Return the comparisons of complete marks.

    Args:
        marks: Of every reader, case and modality.
        options: What the user states.

    Raises:
        PredictionsError: With one class only, or one reader that is to stand for others.
    """
    binary = bool(np.isin(marks.marks, (0, 1)).all())
    threshold = 1.0 if binary and options.threshold is None else options.threshold
    figures = [] if binary else ["auroc"]
    figures += ["sensitivity", "specificity"] if threshold is not None else []
    notes = list(marks.notes)
    if threshold is None:
        notes.append("no threshold is stated (--threshold): no sensitivity and no specificity")
    if binary:
        notes.append("all marks are 0 and 1: sensitivity and specificity, no AUROC")
    single, means, compared, overall, components = [], [], [], [], {}
    for of in figures:
        study = reader_study(
            marks.truth,
            marks.marks,
            of=of,
            threshold=threshold or 1.0,
            readers=options.readers,
            patients=np.array(marks.patients),
        )
        single += [
            (of, m, r, _of_one(marks, given, of, threshold))
            for m, row in zip(marks.modalities, marks.marks, strict=True)
            for r, given in zip(marks.readers, row, strict=True)
        ]
        means += list(zip(marks.modalities, study.means, strict=True))
        if study.components is not None:
            components[of] = study.components
            overall.append((of, study.f, study.freedom, study.p))
        pairs = combinations(marks.modalities, 2)
        of_pairs = [Compared(of, a, b, c) for (a, b), c in zip(pairs, study.contrasts, strict=True)]
        compared += _adjusted([*of_pairs, *_models(marks, of, threshold, options)], options.margin)
    if marks.models and options.cutoff is None and threshold is not None and not binary:
        notes.append("no --cutoff of the models is stated: their decisions were not compared")
    return ReaderResults(
        cases=marks.truth.size,
        positives=int(marks.truth.sum()),
        patients=len(set(marks.patients)),
        readers=marks.readers,
        modalities=marks.modalities,
        whose=options.readers,
        single=tuple(single),
        means=tuple(means),
        compared=tuple(compared),
        components=components,
        overall=tuple(overall),
        agreement=tuple(_agreement(marks, threshold, binary)),
        notes=tuple(notes),
    )


def _of_one(marks: Marks, given: FloatArray, of: str, threshold: float | None) -> Measure:
    """Return a figure of merit of one reader in one modality."""
    rows = Scores.of(marks.truth, given, np.array(marks.patients))
    if of == "auroc":
        return auroc(rows)
    shares = share_measures(rows, threshold=threshold or 1.0)[:2]
    return shares[of == "specificity"]


def _models(
    marks: Marks, of: str, threshold: float | None, options: ReaderOptions
) -> Iterator[Compared]:
    """Yield every model that reads alone against the readers of every modality."""
    patients = np.array(marks.patients)
    for name, scores in marks.models.items():
        cutoff = options.cutoff
        if cutoff is None and np.isin(scores, (0, 1)).all():
            cutoff = 1.0
        for modality, given in zip(marks.modalities, marks.marks, strict=True):
            read, score = given, scores
            if of != "auroc":
                if cutoff is None:
                    continue
                read = (given >= (threshold or 1.0)).astype(float)
                score = (scores >= cutoff).astype(float)
            contrast = against_readers(
                marks.truth, read, score, of=of, readers=options.readers, patients=patients
            )
            yield Compared(of, name, modality, contrast)


def _adjusted(found: list[Compared], margin: float | None) -> list[Compared]:
    """Return the comparisons with p of Holm, and non-inferiority where a margin is stated."""
    adjusted = where_known(holm, [one.contrast.test.p for one in found])
    return [
        replace(
            one,
            p_holm=p_holm,
            noninferior=(
                None if margin is None else noninferiority(one.contrast.test.difference, margin)
            ),
        )
        for one, p_holm in zip(found, adjusted, strict=True)
    ]


def _agreement(
    marks: Marks, threshold: float | None, binary: bool
) -> Iterator[tuple[str, Measure]]:
    """Yield how far readers agree in their decisions, in every modality."""
    if len(marks.readers) < 2 or (threshold is None and not binary):
        return
    for modality, given in zip(marks.modalities, marks.marks, strict=True):
        called = (given >= (threshold or 1.0)).T.astype(float)
        for measure in reader_agreement(called, patients=np.array(marks.patients), ci=CI95):
            yield modality, measure


def _tables(found: ReaderResults) -> dict[str, list[dict[str, Any]]]:
    """Return the results as rows of tables."""

    def ends(measure: Measure) -> dict[str, Any]:
        return {"value": measure.value, "low": measure.low, "high": measure.high}

    return {
        "each_reader": [
            {"measure": of, "modality": modality, "reader": reader, **ends(measure)}
            for of, modality, reader, measure in found.single
        ],
        "means": [
            {"modality": name, "measure": m.name, **ends(m), "method": m.method}
            for name, m in found.means
        ],
        "differences": [
            {
                "measure": one.of,
                "first": one.first,
                "second": one.second,
                **ends(one.contrast.test.difference),
                "error": one.contrast.error,
                "freedom": one.contrast.freedom if np.isfinite(one.contrast.freedom) else "inf",
                "statistic": one.contrast.test.statistic,
                "p": one.contrast.test.p,
                "p_holm": one.p_holm,
                "margin": one.noninferior and one.noninferior.margin,
                "noninferior": one.noninferior and one.noninferior.shown,
            }
            for one in found.compared
        ],
        "components": [
            {"measure": of, **asdict(found.components[of]), "f": f, "df": _finite(df), "p": p}
            for of, f, df, p in found.overall
        ],
        "agreement": [
            {"modality": name, "measure": m.name, **ends(m)} for name, m in found.agreement
        ],
    }


def summarise_readers(found: ReaderResults) -> Iterator[str]:
    """Yield what was found, a line each."""
    yield from found.notes
    yield f"{found.cases} cases, {found.positives} positive; {len(found.readers)} readers"
    for name, measure in found.means:
        yield f"{name} {measure!r}"
    for one in found.compared:
        test = one.contrast.test
        p = "no test" if test.p is None else f"p = {test.p:.4f}"
        yield f"{one.first} minus {one.second}, {test.difference!r}, {p}"
        if one.noninferior is not None:
            yield f"  {one.noninferior}"
    for name, measure in found.agreement:
        yield f"{name} {measure!r}"

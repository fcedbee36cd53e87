"""Several raters of one image: their labels become one, and how far they agree is said."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType

from medtl.cases.columns import Columns
from medtl.cases.spellings import folded
from medtl.errors import ManifestError, MedtlError
from medtl.metrics.readers.rater_agreement import reader_agreement
from medtl.storage.tables import rows_text
from medtl.types import Case, Measure

UNSURE = "-1"
"""What an uncertain label is read as."""


def with_consensus(
    cases: Sequence[Case], columns: Columns
) -> tuple[list[Case], list[MedtlError], list[str]]:
    """Return the cases with one label from all raters, what stands against it, and what was done.

    Args:
        cases: With `Case.readings`.
        columns: The rule, what to do about ties, and the words.

    >>> from pathlib import Path
    >>> read = {"r1": {"effusion": "1"}, "r2": {"effusion": "1"}, "r3": {"effusion": "0"}}
    >>> case = Case("c", "p", Path("a.png"), readings=read)
    >>> rule = Columns(targets=["effusion"], raters=["r1", "r2", "r3"], consensus="mean")
    >>> with_consensus([case], rule)[0][0].targets["effusion"]
    '0.6666666666666666'
    """
    if not columns.raters:
        return [*cases], [], []
    faults: list[MedtlError] = []
    notes: list[str] = []
    labels: dict[str, list[str]] = {}
    for target in columns.targets:
        labels[target], tied, strange = _labels(cases, target, columns)
        where = f"column {target!r}"
        if strange:
            faults.append(
                ManifestError(
                    f"readings neither present nor absent: {', '.join(sorted(strange)[:8])}",
                    expected="0 and 1, or two words with data.positive",
                    where=where,
                    fix="A mean needs a finding; several classes: consensus: majority",
                )
            )
        if tied and columns.ties == "fault":
            faults.append(
                ManifestError(
                    f"the raters have no majority in {len(tied)} of {len(cases)} images "
                    f"({rows_text(tied)})",
                    where=where,
                    fix="State ties: uncertain (such labels are then not scored), consensus: mean, "
                    "or the name of one rater",
                )
            )
        elif tied:
            notes.append(f"{target}: {len(tied)} images without a majority are uncertain")
        empty = labels[target].count("")
        notes += [_taken(target, columns), str(_told(cases, target))]
        if empty:
            notes.append(f"{target}: {empty} of {len(cases)} images have no label by that rule")
    together = [
        replace(case, targets=MappingProxyType({t: labels[t][i] for t in columns.targets}))
        for i, case in enumerate(cases)
    ]
    return together, faults, notes


def agreement(cases: Sequence[Case], target: str) -> list[Measure]:
    """Return the agreement of a target's raters beyond chance, intervals over patients."""
    names = sorted({name for case in cases for name in case.readings})
    words = [[_said(case, name, target) for name in names] for case in cases]
    codes = {word: code for code, word in enumerate(sorted({w for row in words for w in row}))}
    marks = [[codes[word] if word else math.nan for word in row] for row in words]
    return reader_agreement(marks, patients=[case.patient_id for case in cases])


def _said(case: Case, rater: str, target: str) -> str:
    """What a rater said of an image, "" for nothing."""
    return case.readings.get(rater, {}).get(target, "").strip()


def _told(cases: Sequence[Case], target: str) -> str:
    """The agreement in words."""
    raters = len({name for case in cases for name in case.readings})
    told = [
        f"{_AGREEMENT[measure.name]} {measure}"
        for measure in agreement(cases, target)
        if measure.name in _AGREEMENT
    ]
    return f"{target}: agreement of {raters} raters: {'; '.join(told)}"


_AGREEMENT = {"fleiss_kappa": "Fleiss' kappa", "gwet_ac1": "Gwet's AC1"}
"""Measures of agreement that are told, and their names."""


def _taken(target: str, columns: Columns) -> str:
    """The rule in words."""
    rule = {"majority": "what most raters say", "mean": "the mean of the raters (a soft label)"}
    said = rule.get(columns.consensus, f"what rater {columns.consensus} says")
    return f"{target}: the label is {said}"


def _labels(
    cases: Sequence[Case], target: str, columns: Columns
) -> tuple[list[str], list[int], set[str]]:
    """One label a case, the rows that are tied, and the readings that no mean can be made of."""
    labels: list[str] = []
    tied: list[int] = []
    strange: set[str] = set()
    words = {_said(case, name, target) for case in cases for name in case.readings} - {"", UNSURE}
    unsure = UNSURE if len(words) <= 2 else ""
    for case in cases:
        said = [word for name in case.readings if (word := _said(case, name, target))]
        if columns.consensus == "mean":
            present = [_present(word, columns) for word in said if word != UNSURE]
            known = [share for share in present if share is not None]
            strange |= {w for w in said if w != UNSURE and _present(w, columns) is None}
            labels.append(repr(sum(known) / len(known)) if known else unsure if said else "")
        elif columns.consensus == "majority":
            counts = Counter(said).most_common(2)
            is_tied = len(counts) == 2 and counts[0][1] == counts[1][1]
            tied += [case.row] if is_tied else []
            labels.append(unsure if is_tied else counts[0][0] if counts else "")
        else:
            of_rater = [n for n in case.readings if folded(n) == folded(columns.consensus)]
            labels.append(_said(case, of_rater[0], target) if of_rater else "")
    return labels, tied, strange


def _present(word: str, columns: Columns) -> float | None:
    """A reading as a share of certainty, None when it is none."""
    positive = columns.words[0] if columns.words else None
    if positive is not None and folded(word) == folded(positive):
        return 1.0
    try:
        number = float(word)
    except ValueError:
        return None if positive is None else 0.0
    return number if 0 <= number <= 1 else None

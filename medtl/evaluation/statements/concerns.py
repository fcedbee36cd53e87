"""What a reader must know before believing the headline, the gravest first.

Facts only; the report puts them into words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal, get_args

from medtl.evaluation.curves import Curve
from medtl.evaluation.statements.missing_scores import MissingScores
from medtl.evaluation.statements.promises import Promise
from medtl.evaluation.statements.recalibrated import Recalibrated
from medtl.metrics.temperature import SLOPES, outside
from medtl.types import Measure

Kind = Literal[
    "scores_reversed",
    "gap",
    "target_missed",
    "miscalibrated",
    "missing_scores",
    "nothing_promised",
]
"""In the order of their gravity."""

SIGNIFICANT = 0.05
"""Of p after Holm."""

RANGE_OF_USE = (0.05, 0.5)
"""Threshold probabilities at which a model must not be worse than none, where none are stated."""

STRETCH = 0.1
"""Width of threshold probabilities from which on a model that is worse than none is a limit."""


@dataclass(frozen=True)
class Concern:
    """One thing that limits what may be said.

    Attributes:
        kind: What it is.
        label: The finding.
        subset: Group that differs, "column=value"; "all" of the whole test set.
        measure: The one it is about ("sensitivity", "calibration_slope"); "" for none.
        value, low, high: Of it: of a gap the difference from the reference group.
        p: Of a gap, adjusted by Holm.
        facts: What else is known, by kind. gap: `group` and `group_value`, `reference` and
            `reference_value`. target_missed: `target`, `assurance`, `refuted`. miscalibrated:
            `harmful`, threshold probabilities [from, to] at which the model is worse than acting on
            all or on nobody, or None; `mended_by`, "temperature", "platt" or None; `after`, the
            slope then. missing_scores: `positives`, `positives_missing`, `negatives`,
            `negatives_missing`, and `worst` and
            `best` of each measure. nothing_promised: `target`, `reason`.
    """

    kind: Kind
    label: str
    subset: str = "all"
    measure: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def concerns(
    measures: Sequence[Measure],
    curves: Sequence[Curve] = (),
    promised: Sequence[Promise] = (),
    missing: Sequence[MissingScores] = (),
    mended: Sequence[Recalibrated] = (),
) -> list[Concern]:
    """Return everything of concern, the gravest first; gaps by their size.

    Args:
        measures: Of the evaluation.
        curves: Its decision curves among them.
        promised: What became of each target.
        missing: Findings whose test rows lack scores.
        mended: Recalibrations that were fitted.

    >>> [found.kind for found in concerns([Measure("auroc", 0.15, label="x", low=0.1, high=0.2)])]
    ['scores_reversed']
    """
    known = {(m.label, m.subset, m.name): m for m in measures if m.split == "test"}
    by_label = {label: done.fit.method for done in mended for label in done.labels}
    found = [
        *_reversed(measures),
        *_gaps(known),
        *_targets(promised),
        *_miscalibrated(known, curves, by_label),
        *(_missing(of) for of in missing if of.is_limit),
    ]
    order = {kind: place for place, kind in enumerate(get_args(Kind))}
    return sorted(found, key=lambda c: (order[c.kind], *_gravity(c)))


def _gravity(of: Concern) -> tuple[float, ...]:
    """What orders the concerns of one kind, the least first."""
    if of.kind == "gap":
        return (-abs(of.value or 0),)
    if of.kind == "target_missed":  # beyond chance before others, then by what lacks
        return not of.facts["refuted"], (of.value or 0) - of.facts["target"]
    return ()


def _reversed(measures: Sequence[Measure]) -> Iterator[Concern]:
    """AUROCs that lie below one half beyond chance."""
    for m in measures:
        is_whole = (m.name, m.split, m.subset) == ("auroc", "test", "all")
        if is_whole and m.high is not None and m.high < 0.5:
            yield Concern("scores_reversed", m.label, "all", m.name, m.value, m.low, m.high)


def _gaps(known: dict[tuple[str, str, str], Measure]) -> Iterator[Concern]:
    """Differences between groups that are left after Holm."""
    for (label, subset, name), of_p in known.items():
        measure = name.removesuffix("_gap_p_holm")
        if measure == name or of_p.value is None or of_p.value >= SIGNIFICANT:
            continue
        gap = known[label, subset, f"{measure}_gap"]
        column, _, group = subset.partition("=")
        reference = of_p.method.removeprefix("against ").rpartition("; family of ")[0]
        parts = [known.get((label, f"{column}={g}", measure)) for g in (group, reference)]
        values = [None if part is None else part.value for part in parts]
        facts = {"group": group, "group_value": values[0],
                 "reference": reference, "reference_value": values[1]}  # fmt: skip
        at = gap.value, gap.low, gap.high
        yield Concern("gap", label, subset, measure, *at, of_p.value, facts)


def _targets(promised: Sequence[Promise]) -> Iterator[Concern]:
    """Targets that the test rows do not reach, and promises that could not be given."""
    for of in promised:
        at = of.value, of.low, of.high
        if of.met is False:
            facts = {"target": of.target, "assurance": of.assurance, "refuted": of.refuted}
            yield Concern("target_missed", of.label, "all", of.measure, *at, facts=facts)
        if of.reason:
            why = {"target": of.target, "reason": of.reason}
            yield Concern("nothing_promised", of.label, "all", of.measure, *at, facts=why)


def _miscalibrated(
    known: dict[tuple[str, str, str], Measure], curves: Sequence[Curve], mended: dict[str, str]
) -> Iterator[Concern]:
    """Findings whose probabilities do not mean what they say."""
    harmful = {c["label"]: _harmful(c) for c in curves if c["name"] == "decision"}
    for (label, subset, name), slope in known.items():
        if (subset, name) != ("all", "calibration_slope"):
            continue
        # Where all or none have the finding, acting on all or on nobody is right by definition.
        harm = harmful.get(label) if slope.n_positive not in (0, slope.n) else None
        if harm or outside((slope.low, slope.high), SLOPES):
            facts: dict[str, Any] = {"harmful": harm, "mended_by": mended.get(label)}
            if after := known.get((label, subset, f"{name}_after_recalibration")):
                facts["after"] = {"value": after.value, "low": after.low, "high": after.high}
            at = slope.value, slope.low, slope.high
            yield Concern("miscalibrated", label, "all", name, *at, facts=facts)


def _harmful(curve: Curve) -> list[float] | None:
    """Return the ends of the thresholds at which even the band lies below all or nobody.

    The band is one of single thresholds: a stretch that is shorter than `STRETCH`, or than a
    quarter of a narrower range of use, may be chance.
    """
    low, high = curve.get("acting") or RANGE_OF_USE
    worse = [
        (x, low <= x <= high and top is not None and top < max(everybody, 0))
        for x, top, everybody in zip(curve["x"], curve["high"], curve["treat_all"], strict=True)
    ]
    runs = [[x for x, _ in run] for is_worse, run in groupby(worse, lambda of: of[1]) if is_worse]
    longest = max(runs, key=len, default=[0.0])
    ends = [longest[0], longest[-1]]
    least = min(STRETCH, (high - low) / 4)
    return ends if longest[-1] and ends[1] - ends[0] >= least else None


def _missing(of: MissingScores) -> Concern:
    """Scores that are missing, and what they could change."""
    counts = ("positives", "positives_missing", "negatives", "negatives_missing")
    facts: dict[str, Any] = {name: getattr(of, name) for name in counts}
    for end in ("worst", "best"):
        facts[end] = {bounds.measure: getattr(bounds, end) for bounds in of.bounds}
    return Concern("missing_scores", of.label, facts=facts)

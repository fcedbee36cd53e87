"""The result of an evaluation: measures that print, draw, are saved, and open again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from html import escape
from os import PathLike
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from medtl.errors import PredictionsError
from medtl.evaluation.axes import Plots
from medtl.evaluation.curves import Curve
from medtl.evaluation.model_comparison import Comparison, ReaderPoint
from medtl.evaluation.statements.concerns import Concern
from medtl.evaluation.statements.missing_scores import MissingScores
from medtl.evaluation.statements.promises import Promise
from medtl.evaluation.statements.recalibrated import Recalibrated
from medtl.evaluation.transfer.sites import SitesOf
from medtl.evaluation.transfer.source_target import External
from medtl.evaluation.variants import Variant
from medtl.metrics.catalogue import entry
from medtl.types import Measure, OperatingPoint

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "medtl-metrics/1"

Kind = Literal["classification", "regression", "segmentation"]

POOLED = frozenset({"macro", "micro", "overall"})
"""Labels of measures over several findings together."""

PARTS = ("concerns", "measures", "operating_points", "promises", "counts", "confusion", "per_1000",
         "missing_scores", "recalibrations", "curves", "variants", "worst", "comparison", "readers",
         "notes", "test_openings")  # fmt: skip
"""What a `metrics.json` holds, in its order."""

MORE = ("unmended", "sites", "external")
"""What it holds where there is some of it."""

SHOWN = 4
"""Headline measures in a `repr`."""


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Everything that may be said about a predictions table.

    A measure of the whole test set is an attribute (`evaluation.auroc`, `evaluation.mae`).

    >>> Evaluation((Measure("auroc", 0.8, label="effusion", low=0.7, high=0.9, n=50),)).auroc.value
    0.8

    Attributes:
        measures: All measures.
        operating_points: One per label for which a threshold was chosen or given.
        counts: Two-by-two tables at the operating points, with label, split, subset, threshold.
        confusion: Classes and matrix (rows are truths), for exclusive classes.
        curves: Points to draw, by name, label and split.
        per_1000: Natural frequencies per 1000 patients at the operating points; where patients have
            several images, of patients by their highest score.
        notes: What was left out or could not be done, in words.
        kind: Of study.
        variants: Measures under other choices (per patient, other label policies).
        worst: Cases to look at, the worst first of every label and kind.
        comparison: Of several models on the same cases, or None.
        readers: How human readers did on the test cases.
        unit: Of a regression other than months ("%"); "" otherwise.
        test_openings: How many models the test rows have judged in this folder, as far as it
            knows, and which of them this is.
        concerns: What limits what may be said, the gravest first.
        promises: What the thresholds aimed at, and what the test rows showed.
        missing_scores: Findings whose test rows lack scores, and what these could change.
        recalibrations: Of findings whose validation rows call for one.
        unmended: Label -> why it has no recalibration, where it is not known to need none.
        sites: Measures at every site, and over sites like these; `metrics.json` may be without.
        external: Source beside target, where a run's model is judged on other patients.
        cohort: Who is in the table; not part of `metrics.json`.
    """

    measures: tuple[Measure, ...]
    operating_points: tuple[OperatingPoint, ...] = ()
    counts: tuple[dict[str, Any], ...] = ()
    confusion: dict[str, Any] | None = None
    curves: tuple[Curve, ...] = ()
    per_1000: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    kind: Kind = "classification"
    variants: tuple[Variant, ...] = ()
    worst: tuple[dict[str, Any], ...] = ()
    comparison: Comparison | None = None
    readers: tuple[ReaderPoint, ...] = ()
    unit: str = ""
    test_openings: dict[str, int] | None = None
    concerns: tuple[Concern, ...] = ()
    promises: tuple[Promise, ...] = ()
    missing_scores: tuple[MissingScores, ...] = ()
    recalibrations: tuple[Recalibrated, ...] = ()
    unmended: Mapping[str, str] = field(default_factory=dict)
    sites: tuple[SitesOf, ...] = ()
    external: External | None = None
    cohort: dict[str, Any] | None = field(default=None, compare=False)

    @property
    def labels(self) -> tuple[str, ...]:
        """The findings, readings or structures, in their order."""
        tested = (measure.label for measure in self.measures if measure.split == "test")
        return tuple(label for label in dict.fromkeys(tested) if label not in POOLED)

    @property
    def plot(self) -> Plots:
        """Pictures of the curves: `evaluation.plot.roc()`."""
        return Plots(self.curves)

    def measure(
        self, name: str, *, label: str | None = None, split: str = "test", subset: str = "all"
    ) -> Measure:
        """Return one measure.

        Args:
            name: Of the measure; a unit may be left out ("mae" for "mae_months").
            label: The finding; None when there is one only.
            split: "test" or "val".
            subset: "all" or "column=value".

        Raises:
            PredictionsError: If there is none, or several findings have it.
        """
        found = {
            m.label: m
            for m in self.measures
            if name in _names(m)
            and (m.split, m.subset) == (split, subset)
            and (label == m.label if label is not None else m.label not in POOLED)
        }
        if len(found) == 1:
            return found.popitem()[1]
        if found:
            raise PredictionsError(
                f"{name} is known of {len(found)} findings: {', '.join(found)}",
                expected="the name of one",
                fix=f'Say which: evaluation.measure("{name}", label="{next(iter(found))}")',
            )
        names = sorted({m.name for m in self.measures if (m.split, m.subset) == (split, subset)})
        raise PredictionsError(
            f"there is no measure {name}" + (f" of {label}" if label else ""),
            expected=f"one of {', '.join(names) or 'none'}",
        )

    def __getattr__(self, name: str) -> Measure:
        known = self.__dict__.get("measures", ())
        if any(name in _names(measure) for measure in known):
            return self.measure(name)
        raise AttributeError(f"the evaluation has no measure {name!r}")

    def frame(self) -> pd.DataFrame:
        """Return the measures as a table, one row each, with the fields of `Measure` as columns."""
        import pandas as pd

        return pd.DataFrame([asdict(measure) for measure in self.measures])

    def headlines(self) -> list[Measure]:
        """Return the measures of the whole test set that stand on page one."""
        return [
            measure
            for measure in self.measures
            if (measure.split, measure.subset) == ("test", "all") and entry(measure.name).headline
        ]

    def __repr__(self) -> str:
        found = self.headlines()[:SHOWN]
        shown = "".join(f"\n  {measure!r}"[:80] for measure in found)
        return f"Evaluation({self.kind}, {len(self.measures)} measures){shown}"

    def _repr_html_(self) -> str:
        found = self.headlines()
        rows = "".join(
            f"<tr><td>{escape(m.label)}</td><td>{m.name}</td><td>{escape(str(m))}</td></tr>"
            for m in found
        )
        rest = f"{len(self.measures) - len(found)} more: .frame()"
        return f"<table>{rows}<caption>{self.kind}; {rest}</caption></table>"

    def report(
        self,
        out: str | PathLike[str],
        *,
        study: Mapping[str, Any] | None = None,
        language: str = "en",
    ) -> Path:
        """Write the clinical report of this evaluation as one HTML file; return its path.

        Args:
            out: The HTML file; a model card is left beside it.
            study: `question`, `intended_use`, `title`, `prevalence` and other facts that only a
                person knows; all optional.
            language: "en" or "ko".

        Raises:
            RunError: If the language is unknown or a file cannot be written.
        """
        from medtl.report.render import write_report

        study = study or {}
        return write_report(
            Path(out),
            metrics=self.to_json(),
            study=study,
            cohort=self.cohort,
            synthetic=study.get("synthetic") is True,
            language=language,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the content of `metrics.json`; undefined values are None."""
        content = {name: plain(getattr(self, name)) for name in PARTS}
        for point in content["operating_points"]:
            point["threshold"] = storable(point["threshold"])
        unit = {"unit": self.unit} if self.unit else {}
        more = {name: plain(getattr(self, name)) for name in MORE if getattr(self, name)}
        return {"schema": SCHEMA, "kind": self.kind, **unit, **content, **more}

    @classmethod
    def from_json(cls, source: str | PathLike[str] | Mapping[str, Any]) -> Evaluation:
        """Return the evaluation that a `metrics.json` holds: equal to the one that wrote it.

        Args:
            source: The file, or its parsed content; files of earlier versions open too.

        Raises:
            PredictionsError: If it is not of this schema.
        """
        content = (
            source
            if isinstance(source, Mapping)
            else json.loads(Path(source).read_text(encoding="utf-8"))
        )
        if content.get("schema") != SCHEMA:
            stated = content.get("schema")
            raise PredictionsError(
                f"statistics of the schema {stated!r}" if stated else "statistics without a schema",
                expected=f"{SCHEMA!r}, as this version writes",
                fix="Evaluate the predictions again with this version",
            )
        found: Evaluation = built(cls, content)
        points = (
            replace(point, threshold=float(point.threshold)) for point in found.operating_points
        )
        return replace(found, operating_points=tuple(points))


def _names(measure: Measure) -> tuple[str, ...]:
    """Return the names by which a measure is asked for; no "after_temperature" is left out."""
    of = entry(measure.name)
    return (measure.name,) if of.ending else (measure.name, of.base)


def plain(value: Any) -> Any:
    """Return dataclasses as dictionaries and tuples as lists, all the way down.

    >>> plain((OperatingPoint("x", 0.5, "given", "given", 0, 0),))[0]["threshold"]
    0.5
    """
    if is_dataclass(value):
        return {part.name: plain(getattr(value, part.name)) for part in fields(value)}
    return [plain(item) for item in value] if isinstance(value, tuple) else value


def built(kind: Any, value: Any) -> Any:
    """Return what `plain` made as a value of its type again; keys that it does not know are left.

    >>> built(tuple[int, ...], [1, 2])
    (1, 2)
    """
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        known = {part.name for part in fields(kind)} & value.keys()
        return kind(**{name: built(hints[name], value[name]) for name in known})  # type: ignore[operator]
    if get_origin(kind) is tuple:
        return tuple(built(get_args(kind)[0], item) for item in value or ())
    if get_origin(kind) is UnionType and value is not None:
        return built(get_args(kind)[0], value)
    return value


def storable(threshold: float) -> float | str:
    """Return a threshold as JSON can hold it.

    >>> storable(0.5), storable(float("inf"))
    (0.5, 'inf')
    """
    return "inf" if math.isinf(threshold) else threshold

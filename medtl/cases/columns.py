"""Which columns of a manifest a study reads, and as what: stated once, for every reading of it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from medtl.cases.spellings import folded
from medtl.errors import ManifestError

DEMOGRAPHICS = ("age", "sex")
"""Columns that are read where a table has them: who the patients are, and how old."""


@dataclass(frozen=True)
class Columns:
    """The columns of a manifest that a study uses.

    Training, check, prediction and export ask for the same: what training tells the network,
    prediction must tell it too.

    Attributes:
        targets: Columns whose cells become `Case.targets`, as text.
        mask: Column with the path of each mask.
        strata: Columns that results are broken down by. Their cells, and those of `inputs` and
            `described`, become `Case.strata`; ages above 89 become "90+".
        inputs: Columns that the network is told besides the image (the sex).
        described: Columns that only the description of the cohort shows.
        ids: "pseudonymise" replaces patient and case ids by keyed hashes; "pseudonymous" says
            that they identify nobody and keeps them.
        one_image_per_patient: The user's statement that a table without `patient_id` has no
            patient twice.
        meanings: Cell of a target column -> what a study takes for it ("1", "0", "-1" uncertain,
            "" missing, or the name of a class). Cells that read alike are taken alike.
        words: Words that cells are read as when they differ in case, blanks or a trailing ".0".
        listed_in: Column whose cells list the findings that are present; the targets are then
            the names of findings, "1" where listed.
        separator: What stands between two listed findings.
        where: The rows that a study takes, "view in [AP, PA]"; "" takes all.
        called: Name that medtl knows ("image", "patient_id") -> column of the table.
        raters: Columns with the labels of several raters, or the one column that says who read
            (then an image has a row for each rater).
        consensus: How their labels become one: "majority", "mean" (a soft label), or a rater.
        ties: Whether a majority that does not exist is a fault or an uncertain label.
        soft: Whether the cells of the targets are probabilities.
        exam: Column of the examination that an image is of; its images have one label.
        drops_duplicates: Whether a second row of one image, with the same label, is left out.

    Example:
        >>> columns = Columns.of({"target": "age_months", "sex": "male", "strata": ["site"]})
        >>> columns.names
        ('age_months', 'site', 'male')
        >>> columns.missing_from(["image", "age_months", "male"])
        {'strata': ['site']}
        >>> columns.within(["image", "age_months", "male"]).about
        ('male',)
    """

    targets: Sequence[str] = ()
    mask: str | None = None
    strata: Sequence[str] = ()
    inputs: Sequence[str] = ()
    described: Sequence[str] = ()
    ids: Literal["pseudonymise", "pseudonymous"] = "pseudonymise"
    one_image_per_patient: bool = False
    meanings: Mapping[str, str] = field(default_factory=dict)
    words: Sequence[str] = ()
    listed_in: str | None = None
    separator: str = "|"
    called: Mapping[str, str] = field(default_factory=dict)
    where: str = ""
    raters: Sequence[str] = ()
    consensus: str = ""
    ties: str = "fault"
    soft: bool = False
    exam: str | None = None
    drops_duplicates: bool = False

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Columns:
        """Return the columns that the section `data` of a recipe names, read leniently.

        Args:
            data: `target`, `mask`, `strata`, `sex`, `ids`, `one_image_per_patient`, `labels`,
                `positive`, `classes`, `listed_in`, `separator`, `columns`, `where`, `raters`,
                `consensus`, `ties`, `soft`, `exam` and `duplicates`, each of which may be missing.
                What is no text names no column: the schema reports it.
        """

        def text(key: str) -> str | None:
            return next(iter(_texts(data.get(key))), None)

        raters = _texts(data.get("raters"))
        return cls(
            targets=_texts(data.get("target")),
            mask=text("mask"),
            strata=_texts(data.get("strata")),
            inputs=_texts(data.get("sex")),
            ids="pseudonymous" if data.get("ids") == "pseudonymous" else "pseudonymise",
            one_image_per_patient=data.get("one_image_per_patient") is True,
            meanings={str(word): str(value) for word, value in _mapping(data.get("labels"))},
            words=(*_texts(data.get("positive")), *_texts(data.get("classes"))),
            listed_in=text("listed_in"),
            separator=text("separator") or "|",
            called={str(name): str(column) for name, column in _mapping(data.get("columns"))},
            where=text("where") or "",
            raters=raters,
            consensus=text("consensus") or "",
            ties=text("ties") or "fault",
            soft=data.get("soft") is True or (bool(raters) and data.get("consensus") == "mean"),
            exam=text("exam"),
            drops_duplicates=data.get("duplicates") == "drop",
        )

    def known_names(self, present: Iterable[str]) -> tuple[str, ...]:
        """Return a table's columns under medtl's names for them."""
        names = {column: name for name, column in self.called.items()}
        return tuple(names.get(column, column) for column in present)

    @property
    def about(self) -> tuple[str, ...]:
        """Columns whose cells become `Case.strata`, each once."""
        return tuple(dict.fromkeys([*self.strata, *self.described, *self.inputs]))

    @property
    def names(self) -> tuple[str, ...]:
        """All columns that a table must have, each once."""
        others = [name for name in (self.mask, self.exam, self.reader) if name is not None]
        return tuple(dict.fromkeys([*self.read_as_targets, *others, *self.about]))

    @property
    def reader(self) -> str | None:
        """Column that says which rater a row is of, None where a row holds all raters."""
        return self.raters[0] if len(self.raters) == 1 else None

    @property
    def read_as_targets(self) -> tuple[str, ...]:
        """Columns of the table that the targets are read from."""
        if len(self.raters) > 1:
            return tuple(self.raters)
        return tuple(self.targets) if self.listed_in is None else (self.listed_in,)

    def missing_from(self, present: Collection[str]) -> dict[str, list[str]]:
        """Return key of the recipe -> columns it names that a table does not have."""
        of_targets = "target" if self.listed_in is None else "listed_in"
        by_key = {
            of_targets: () if len(self.raters) > 1 else self.read_as_targets,
            "raters": self.raters,
            "exam": () if self.exam is None else (self.exam,),
            "mask": () if self.mask is None else (self.mask,),
            "strata": self.strata,
            "sex": self.inputs,
        }
        absent = {key: [n for n in names if n not in present] for key, names in by_key.items()}
        return {key: names for key, names in absent.items() if names}

    def described_by(self, present: Iterable[str]) -> Columns:
        """Return these, and those of `DEMOGRAPHICS` that a table has."""
        return replace(self, described=[name for name in DEMOGRAPHICS if name in {*present}])

    def within(self, present: Iterable[str]) -> Columns:
        """Return those of these that a table has, for tables that need not have all of them."""
        has = {*present}
        raters = self.raters if has.issuperset(self.raters) else ()
        return replace(
            self,
            targets=[
                n for n in self.targets if n in has or self.listed_in in has or len(raters) > 1
            ],
            raters=raters,
            exam=self.exam if self.exam in has else None,
            listed_in=self.listed_in if self.listed_in in has else None,
            mask=self.mask if self.mask in has else None,
            strata=[name for name in self.strata if name in has],
            inputs=[name for name in self.inputs if name in has],
        )


@dataclass(frozen=True)
class Where:
    """A condition on one column: "view in [AP, PA]", "view not in [LL]", "site = north".

    >>> Where.parse("view in [AP, PA]").holds("pa"), Where.parse("view not in [LL]").holds("")
    (True, True)
    """

    column: str
    values: tuple[str, ...]
    is_negated: bool

    @classmethod
    def parse(cls, text: str) -> Where:
        """Return the condition that a text states.

        Raises:
            ManifestError: When it states none.
        """
        written = _CONDITION.fullmatch(text.strip())
        if written is None:
            raise ManifestError(
                f"the condition {text!r} cannot be read",
                expected="column in [value, ...], column not in [value, ...] or column = value",
                where="data.where",
            )
        values = written["list"] if written["list"] is not None else written["value"]
        cells = tuple(value.strip().strip("\"'") for value in values.split(","))
        return cls(written["column"].strip(), cells, "not" in (written["verb"] or ""))

    def holds(self, cell: str) -> bool:
        """Return whether a cell of the column fulfils it; case and blanks do not count."""
        return (folded(cell) in map(folded, self.values)) != self.is_negated


_CONDITION = re.compile(
    r"(?P<column>.+?)\s*(?:(?P<verb>\bnot\s+in|\bin)\s*\[(?P<list>[^\]]*)\]|=+\s*(?P<value>.+))"
)

NO_COLUMNS = Columns()
"""Images and ids alone."""


def _mapping(value: object) -> Iterable[tuple[object, object]]:
    """The pairs of a mapping; anything else has none."""
    return value.items() if isinstance(value, Mapping) else ()


def _texts(value: object) -> tuple[str, ...]:
    """One text or a list of them as a tuple; anything else names nothing."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return tuple(value)
    return ()

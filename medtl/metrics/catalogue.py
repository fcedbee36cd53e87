"""Every measure in one line: how its value is written, which way is better, and where it is shown.

A name in `metrics.json` is a base name of `CATALOGUE`, perhaps with a unit (`mae_months`), a number
(`within_12_months`) or an ending (`dice_median`, `auroc_gap_p`); `entry` takes it apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from medtl.storage.yaml import load_yaml

Form = Literal["share", "score", "number", "unit"]
"""Written in percent, with three decimals, with two, or as a value with its unit."""

Better = Literal["higher", "lower", ""]
"""Direction of improvement; "" where a value of its own is right (a slope of 1, a bias of 0)."""

Place = Literal["primary", "headline", "row", ""]
"""Where it is shown: studies compare a "primary", the command line says it and a "headline", the
table of a study's runs holds these and a "row"; all others are in the file."""


@dataclass(frozen=True)
class Entry:
    """What is known of a measure.

    Attributes:
        form: How the value is written.
        better: Direction of improvement.
        place: Where it is shown.
        title: Short name for a line of text; the base name where it has none.
        base: Name in `CATALOGUE`, "" for a measure that is not in it.
        unit: Of the value, as in the name ("months"); "" without one.
        at: The number in the name ("12" of `within_12_months`).
        ending: What follows the base name ("median", "gap_p").
        size: "volume" or "area", when the measure is of a structure's size.
        function: Where it is computed ("calibration.brier"), for a measure of truth and score that
            an evaluation takes from its line alone: called with a `Scores` and `ci`.
    """

    form: Form = "number"
    better: Better = ""
    place: Place = ""
    title: str = ""
    base: str = ""
    unit: str = ""
    at: str = ""
    ending: str = ""
    size: str = ""
    function: str = ""

    @property
    def headline(self) -> bool:
        """Whether the command line says it."""
        return self.place in ("primary", "headline")

    def write(self, value: float) -> str:
        """Return a value with its unit.

        >>> entry("mae_months").write(6.149), entry("auroc").write(0.81449)
        ('6.1 months', '0.814')
        """
        unit = f" {symbol(self.unit)}" if self.unit else ""
        return f"{value:{DIGITS[self.form]}}{unit}"


DIGITS: Mapping[Form, str] = {"share": ".3f", "score": ".3f", "number": ".2f", "unit": ".1f"}
"""Format of a value in a line of text."""

CATALOGUE: dict[str, Entry] = {
    name: Entry(**line)
    for name, line in load_yaml(Path(__file__).with_name("catalogue.yaml")).items()
}
"""Base name -> what is known of it: `catalogue.yaml`, where a new measure is one line."""

ENDINGS = ("after_recalibration", "after_temperature", "if_calibrated", "mean_of_folds", "median",
           "p05", "p25", "p75", "difference", "gap_p_holm", "gap_p", "gap")  # fmt: skip
"""Endings of names that say something about the measure itself."""

_NUMBERED = (
    r"(?P<base>within)_(?P<at>[\d.]+)_(?P<unit>\w+)",
    r"(?P<base>nsd)_(?P<at>[\d.]+)_?mm",
    r"(?P<base>partial_auc_specificity)_(?P<at>[\d.]+)_to_100",
    r"(?P<base>sensitivity_at_specificity|specificity_at_sensitivity)_(?P<at>[\d.]+)",
    r"(?P<size>volume|area)_(?P<base>bias|loa_low|loa_high)_(?P<unit>ml|cm2)",
)


@cache
def entry(name: str) -> Entry:
    """Return what is known of a measure; an unknown one is a number without a direction.

    >>> entry("within_12_months").at, entry("dice_median").ending, entry("mae_percent").better
    ('12', 'median', 'lower')
    """
    if name in CATALOGUE:
        return replace(CATALOGUE[name], base=name)
    for ending in ENDINGS:
        stem = name.removesuffix(f"_{ending}")
        if stem != name and (of := entry(stem)).base:
            is_p = ending.startswith("gap_p")
            better = "" if is_p or ending in ("gap", "difference") else of.better
            return replace(
                of,
                form="score" if is_p else of.form,
                better=better,
                place="",
                ending=f"{of.ending}_{ending}".strip("_"),
            )
    for pattern in _NUMBERED:
        if found := re.fullmatch(pattern, name):
            parts: dict[str, Any] = found.groupdict()
            return replace(CATALOGUE[found["base"]], **parts)
    for base, of in CATALOGUE.items():
        if of.form == "unit" and name.startswith(f"{base}_"):
            return replace(of, base=base, unit=name.removeprefix(f"{base}_"))
    return Entry()


def unit_word(unit: str) -> str:
    """Return a unit as it stands in the name of a measure.

    >>> unit_word("%"), unit_word("ml/min"), unit_word("months")
    ('percent', 'ml_per_min', 'months')
    """
    spelled = unit.replace("%", "percent").replace("/", "_per_").replace("²", "2").replace("³", "3")
    return re.sub(r"\W+", "_", spelled).strip("_")


def symbol(word: str) -> str:
    """Return the unit of a measure's name as it is written.

    >>> symbol("percent"), symbol("ml_per_min"), symbol("months")
    ('%', 'ml/min', 'months')
    """
    return word.replace("percent", "%").replace("_per_", "/").replace("_", " ")

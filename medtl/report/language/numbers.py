"""Numbers and names as a reader wants them: percent, "of 100", intervals, names of measures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from medtl.metrics.catalogue import ENDINGS, entry, symbol
from medtl.report.language.texts import known_finding, knows, plain, translated

Kind = str
"""Form of a value: "share", "score", "number" or "count", or else its unit ("months")."""

_DIGITS: Mapping[Kind, str] = {"score": ".3f", "mm": ".2f", "number": ".2f", "count": ",.0f"}
"""Format of a value without its unit, where it is not one decimal."""


BARE = ("share", "score", "number", "count")
"""Kinds of values that have no unit."""


def describe(name: str) -> tuple[str, Kind]:
    """Reader's name and kind of a measure; an unknown name keeps its words and its unit."""
    of = entry(name)
    kind = of.unit if of.form == "unit" else of.form
    if knows(f"measure.{name}"):
        return plain(f"measure.{name}"), kind
    for ending in ENDINGS:
        base = name.removesuffix(f"_{ending}")
        if base != name and knows(f"ending.{ending}"):
            title, kind = describe(base)
            return plain("measure.of", measure=title, which=plain(f"ending.{ending}")), kind
    if of.base == "within":
        return plain("measure.within", n=_with_unit(of.at, of.unit)), kind
    if of.base == "nsd":
        return plain("measure.nsd_at", n=of.at), kind
    if of.size:
        title, size = plain(f"measure.{of.base}"), plain(f"measure.{of.size}")
        return plain("measure.of", measure=title, which=size), kind
    known = of.base and not of.ending
    if known and knows(f"measure.{of.base}"):
        return plain(f"measure.{of.base}"), kind
    words, _, unit = name.rpartition("_")
    if known or not knows(f"value.{unit}"):
        words, unit = name, kind if known else "number"
    return words.replace("_", " ").capitalize() or name, unit


def finding_name(label: object) -> str:
    """A label as words inside a sentence ("pleural_effusion" -> "pleural effusion")."""
    words = str(label).removesuffix("_months")  # the unit stands with the value
    words = words.replace("_", " ").strip()
    return known_finding(words) or words or plain("finding.unnamed")


def of_100(share: float) -> str:
    """A share in [0, 1] as a count of 100, never rounded to none or all when it is not."""
    rounded = math.floor(100 * share + 0.5)
    if rounded == 0 and share > 0:
        return "<1"
    if rounded == 100 and share < 1:
        return ">99"
    return str(rounded)


def percent(share: float) -> str:
    """A share in [0, 1] in percent; two figures below 10%, down to 0.1%."""
    if 0 < share < 0.0005:
        return "<0.1%"
    if 0 < share < 0.0995:
        return f"{100 * share:.2g}%"
    return f"{of_100(share)}%"


def threshold_text(threshold: object) -> str:
    """A threshold with three decimals, or in words when it is above every score."""
    value = number(threshold)
    if value is None or math.isinf(value):
        return plain("threshold.inf")
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"


def number(value: object) -> float | None:
    """`value` as a float, "inf" included; None when it is missing or not a number."""
    if value is None or isinstance(value, bool):
        return None
    try:
        result = float(str(value))
    except ValueError:
        return None
    return None if math.isnan(result) else result


def value_text(value: float, kind: Kind) -> str:
    """One value in the form of its kind: "87%", "0.912", "6.1 months"."""
    digits = bare_text(value, kind)
    return digits if kind in BARE else _with_unit(digits, kind)


def _with_unit(digits: str, unit: str) -> str:
    """A number and its unit in the order of the language."""
    known = knows(f"value.{unit}")
    return plain(f"value.{unit}", n=digits) if known else f"{digits} {symbol(unit)}"


def unit_words(name: str) -> str:
    """The unit of a measure as it follows the name of an axis (", months"), or ""."""
    kind = describe(name)[1]
    return "" if kind in BARE else ", " + _with_unit("", kind).strip()


def bare_text(value: float, kind: Kind) -> str:
    """One value without its unit: "6.1", but "87%"."""
    if kind == "share":
        return percent(value)
    return format(value, _DIGITS.get(kind, ".1f")).replace("-", "−")


def interval_text(measure: Mapping[str, Any], kind: Kind) -> str:
    """The interval of a measure ("79% to 92%"), or "" when there is none."""
    low, high = number(measure.get("low")), number(measure.get("high"))
    if low is None or high is None:
        return ""
    return plain("interval", low=bare_text(low, kind), high=value_text(high, kind))


def reason_of(measure: Mapping[str, Any]) -> str:
    """The reason why a measure is not "ok", never empty."""
    return translated(measure.get("reason") or "").rstrip(".") or plain("no_reason")


def level_text(measure: Mapping[str, Any]) -> str:
    """The level of the interval in percent, without the sign ("95")."""
    return f"{100 * (number(measure.get('confidence')) or 0.95):g}"


def count_text(value: object) -> str:
    """A count with thousands separators, or an en dash when it is missing."""
    result = number(value)
    return "–" if result is None else f"{result:,.0f}"


def of_1000(counts: Mapping[str, int]) -> dict[str, str]:
    """What is said of 1000 patients: `tp`, `fn`, `fp`, `tn`, and `positive`, who have it.

    A prevalence so low that nobody of 1000 has the finding is "<1", not 0.

    >>> said = of_1000({"tp": 0, "fn": 0, "fp": 186, "tn": 814})
    >>> said["positive"], said["tp"], said["fp"]
    ('<1', '<1', '186')
    """
    with_it = counts["tp"] + counts["fn"]
    known = {**{name: counts[name] for name in ("tp", "fn", "fp", "tn")}, "positive": with_it}
    few = () if with_it else ("tp", "fn", "positive")
    return {name: "<1" if name in few else str(count) for name, count in known.items()}


def cell(value: object) -> str:
    """A cell of the table beside a figure: text, four figures of a number, or an en dash."""
    if isinstance(value, str):
        return value
    result = number(value)
    return "–" if result is None else f"{result:.4g}".replace("-", "−")


def shortened(text: str, most: int) -> str:
    """A text of at most `most` letters, the last one an ellipsis where some are left out."""
    return text if len(text) <= most else text[: most - 1] + "…"


def subset_words(subset: str) -> tuple[str, str]:
    """Column and value of a subset in words ("sex=F"); the whole set has no column."""
    if subset == "all":
        return "", plain("word.all")
    column, _, value = subset.partition("=")
    title = plain(f"column.{column}") if knows(f"column.{column}") else column.replace("_", " ")
    return title, plain("sub.unknown") if value in ("", "unknown") else value


def subset_text(subset: str) -> str:
    """A subset in words ("sex=F" as "sex: F"); an empty value is said to be unknown."""
    return ": ".join(word for word in subset_words(subset) if word)


def share(part: float, whole: float) -> str:
    """A share in percent, or an en dash when there is nothing to divide by."""
    return percent(part / whole) if whole else "–"


def per_100(part: float, whole: float) -> str:
    """A share as a count of 100, or an en dash when there is nothing to divide by."""
    return of_100(part / whole) if whole else "–"


def title_of(name: str) -> str:
    """Reader's name of a measure, of which a difference may be told."""
    return describe(name.removesuffix("_gap").removesuffix("_difference"))[0]


def difference_text(row: Mapping[str, Any]) -> str:
    """A difference with its sign and interval; shares differ by points of 100."""
    kind = describe(str(row["name"]).removesuffix("_gap").removesuffix("_difference"))[1]
    value, low, high = (number(row.get(name)) for name in ("value", "low", "high"))
    if value is None:
        return plain("not_estimable", reason=reason_of(row))
    factor, digits = (100, ".1f") if kind == "share" else (1, ".3f" if kind == "score" else ".2f")

    def signed(difference: float) -> str:
        return format(factor * difference, f"+{digits}").replace("-", "−")

    shown = signed(value)
    if low is not None and high is not None:
        shown += f" ({plain('interval', low=signed(low), high=signed(high))})"
    if kind == "share":
        return plain("value.points", n=shown)
    return shown if kind in BARE else _with_unit(shown, kind)


def sentence(text: str) -> str:
    """Return a label as the start of a sentence: only its first letter changes ("NA" stays)."""
    return text[:1].upper() + text[1:]


def p_text(p: object) -> str:
    """A p value with three decimals, or a dash when there is no test."""
    value = number(p)
    return "–" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"

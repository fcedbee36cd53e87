"""The page about a model in use: what `medtl monitor` found, in the report's style."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medtl.report.language.numbers import finding_name, interval_text, number, p_text
from medtl.report.language.texts import fill, plain, speaking, translated
from medtl.report.render import write_page
from medtl.report.svg import plot
from medtl.report.svg.plot import Axis, Figure, Frame, Line, Mark, Plot, Words

Row = Mapping[str, Any]


def write_drift_page(out: Path, content: Row, *, language: str = "en") -> Path:
    """Write what was found as one HTML file; return its path.

    Args:
        out: The HTML file; its folder must exist.
        content: What `monitor.json` holds ("medtl-monitor/1").
        language: One of `texts.LANGUAGES`.

    Raises:
        RunError: When the language is unknown or the file cannot be written.
    """
    with speaking(language):
        checks = [_check(row, content["accounts"]) for row in content["checks"]]
        compared = [row for row in content["checks"] if row["p"] is not None]
        return write_page(
            out,
            "monitor.html.j2",
            {
                "found": content,
                "checks": checks,
                "changed": [check for check in checks if check["changed"]],
                "compared": len(compared),
                "has_truth": any(row["what"] in ("prevalence", "error") for row in compared),
                "figures": list(_figures(content)),
                "tables": [
                    (row["table"], finding_name(row["label"]), _measure(row["now"]))
                    for row in content["by_table"]
                ],
                "unlike": [(translated(name), n) for name, n in content["unlike"].items()],
                "notes": [translated(note) for note in content["notes"]],
            },
        )


def _check(row: Row, accounts: Row) -> dict[str, Any]:
    """A comparison as the cells of its row."""
    what = plain(f"drift.what.{row['what']}")
    name = f"{what}: {finding_name(row['label'])}" if row["label"] else what
    then, now = ("" if row[side] is None else _measure(row[side]) for side in ("then", "now"))
    account = accounts.get(row["label"]) if row["what"] == "misses" else None
    if account is not None and account["alarm"] is not None:
        now = plain("drift.alarm", n=account["alarm"], total=len(account["path"]))
    if row["reason"]:
        verdict = fill("drift.not_compared", reason=translated(row["reason"]))
    elif row["p"] is None:
        verdict = fill("drift.beside")
    else:
        verdict = fill("drift.changed" if row["changed"] else "drift.same")
    numbers = ["" if row[key] is None else f"{row[key]:.3g}" for key in ("distance", "usual")]
    p = "" if row["p_holm"] is None else p_text(row["p_holm"])
    return {
        "name": name,
        "cells": [then, now, *numbers, p],
        "verdict": verdict,
        "changed": row["changed"],
        "from_to": " \N{RIGHTWARDS ARROW} ".join(filter(None, (then, now))),
    }


def _measure(measure: Row) -> str:
    """A share or AUROC with its interval and number."""
    value = number(measure["value"])
    if value is None:
        return plain("undefined.short")
    interval = interval_text(measure, "score")
    return f"{value:.3f} ({interval}), n = {measure['n']}" if interval else f"{value:.3f}"


def _figures(content: Row) -> Iterator[Figure]:
    """Yield the scores of each finding then and now, and the account of its misses."""
    for place, curve in enumerate(content["curves"]):
        yield _scores(curve).draw(f"drift-{place}", finding=finding_name(curve["label"]))
        account = content["accounts"].get(curve["label"])
        if account is not None:
            name = finding_name(curve["label"])
            yield _account(account).draw(f"account-{place}", finding=name)


def _scores(curve: Row) -> Plot:
    """Shares of cases at or below a score: two curves, the threshold as a line."""
    rows = list(zip(curve["x"], curve["then"], curve["now"], strict=True))
    lines = [
        Line([(x, then) for x, then, _ in rows], "line reference"),
        Line([(x, now) for x, _, now in rows], "line main"),
    ]
    names = [("reference", plain("fig.drift.then")), ("main", plain("fig.drift.now"))]
    frame = Frame(x_low=curve["x"][0], x_high=curve["x"][-1])
    marks = [*lines, *plot.legend(names, at=(frame.x_high, 0.0), shift=(-104, -36))]
    if curve["threshold"] is not None:
        marks.append(Line([(curve["threshold"], 0.0), (curve["threshold"], 1.0)], "cut"))
    head = ("fig.drift.x", "fig.drift.then", "fig.drift.now")
    return Plot("drift", frame, marks, head, rows, y=Axis("fig.drift.y"))


def _account(account: Row) -> Plot:
    """The running account of misses, and the limit that it should stay below."""
    path, limit = account["path"], account["limit"]
    frame = Frame(0.0, float(len(path)), 0.0, 1.15 * max(limit, *path))
    rows = [(float(place), value) for place, value in enumerate(path, 1)]
    marks: list[Mark] = [
        Line([(0.0, limit), (float(len(path)), limit)], "line reference"),
        Words((0.0, limit), plain("fig.account.limit"), shift=(6, -6)),
        Line([(0.0, 0.0), *rows], "line main"),
    ]
    head = ("fig.account.x", "fig.account.y")
    return Plot("account", frame, marks, head, rows)

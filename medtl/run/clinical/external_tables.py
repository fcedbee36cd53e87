"""What an external validation found, as JSON, as tables and as lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medtl.evaluation.result import Evaluation, plain
from medtl.evaluation.transfer.sites import SitesOf
from medtl.evaluation.transfer.source_target import External
from medtl.run.files import RunFiles
from medtl.storage.atomic import write_json
from medtl.storage.tables import write_table
from medtl.types import Measure


def write_results(found: Evaluation, out: Path) -> None:
    """Write the statistics of an external validation as JSON and its parts as tables."""
    external = found.external or External("")
    content = found.to_json()
    write_json(RunFiles(out).metrics, content)
    write_json(out / "external.json", plain(external))
    tables: dict[str, list[dict[str, Any]]] = {
        "source_target": [
            {
                "label": row.label,
                "measure": row.target.name,
                **_columns("source", row.source),
                **_columns("target", row.target),
                **_columns("difference", row.difference),
                "reason": row.difference.reason,
            }
            for row in external.beside
        ],
        "characteristics": [
            {
                "column": row.column,
                "group": row.group or "mean",
                "source": row.source,
                "target": row.target,
                **_columns("standardised_difference", row.difference),
            }
            for row in external.characteristics
        ],
        "updating": [
            {
                "label": ladder.label,
                "step": step.name,
                "intercept": step.intercept,
                "slope": step.slope,
                "threshold": step.threshold,
                **{k: v for m in step.measures for k, v in _columns(m.name, m).items()},
                "advised": ladder.advice is not None and ladder.advice.step == step.name,
                "reason": step.reason,
            }
            for ladder in external.ladders
            for step in ladder.steps
        ],
        "sites": [
            {
                "label": one.label,
                "measure": one.pooled.name,
                "site": measure.subset.partition("=")[2] if measure is not one.pooled else "pooled",
                "n": measure.n,
                **_columns("value", measure),
                **({} if measure is not one.pooled else _between(one)),
                "reason": measure.reason,
            }
            for one in found.sites
            for measure in (*one.sites, one.pooled)
        ],
    }
    for name, rows in tables.items():
        if rows:
            write_table(rows, out / f"{name}.csv")


def _between(one: SitesOf) -> dict[str, Any]:
    """Return what differs between sites, by column."""
    names = ("predict_low", "predict_high", "tau2", "i2", "q", "p")
    return {name: getattr(one, name) for name in names}


def _columns(name: str, measure: Measure) -> dict[str, float | None]:
    """Return value and interval of a measure by column."""
    return {name: measure.value, f"{name}_low": measure.low, f"{name}_high": measure.high}


def summarise_external(found: Evaluation) -> Iterator[str]:
    """Yield what an external validation found, a line each, what is wrong first."""
    external = found.external or External("")
    yield from external.notes
    for row in external.beside:
        name = f"{row.label} {row.target.name}".strip()
        if row.difference.value is None:
            yield f"{name}: {row.difference.reason}"
            continue
        before, moved = row.source.value, row.difference.value
        yield f"{name}: {before:.3f} in {external.source}, here {row.target}; {moved:+.3f}"
    for ladder in external.ladders:
        if ladder.advice is not None:
            yield f"{ladder.label}: {ADVICE[ladder.advice.step]}".removeprefix(": ")
    for one in found.sites:
        if one.pooled.name == "auroc" and one.pooled.value is not None:
            new = ""
            if one.predict_low is not None and one.predict_high is not None:
                new = f"; a new site: {one.predict_low:.3f} to {one.predict_high:.3f}"
            yield f"{one.label} over {len(one.sites)} sites: {one.pooled}{new}"


ADVICE = {
    "none": "these rows do not show that the probabilities need an update",
    "intercept": "update the intercept: probabilities are too high or too low throughout",
    "platt": "update intercept and slope: probabilities are too extreme or too timid",
}
"""Step that the closed test keeps -> what it means."""

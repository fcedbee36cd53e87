"""What was asked of a run besides its test: checks, controls, more patients, what breaks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medtl.metrics.catalogue import entry
from medtl.report.language.numbers import difference_text, number
from medtl.report.language.texts import knows, plain
from medtl.report.page.breaking import breaking_view
from medtl.report.page.finding import show
from medtl.report.svg.learning_figures import controls_figure, curve_figure

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Checked:
    """One check before the training.

    Attributes:
        name: Of the check.
        state: "passed", "failed" or "none".
        text: What was tried and seen.
        advice: One suggestion where it failed.
    """

    name: str
    state: str
    text: str
    advice: str


def views(given: Row) -> dict[str, Any]:
    """Return all that the report shows of it.

    Args:
        given: The records of a run, by their names.
    """
    return {
        "shortcuts": shortcuts_view(given.get("shortcuts")),
        "curve": curve_view(given.get("curve")),
        "forgetting": forgetting_view(given.get("forgetting")),
        "checked": checks(given.get("sanity")),
        "lessons": lessons(given.get("learning"), given.get("history") or ()),
        "breaking": breaking_view(given.get("stress")),
        "members": (given.get("environment") or {}).get("members"),
    }


def lessons(learning: Row | None, history: Sequence[Row] = ()) -> list[str]:
    """Return from what a run learns besides its labels; [] where from nothing else.

    Args:
        learning: Content of learning.json.
        history: Rows of history.csv.

    Example:
        >>> lessons(None)
        []
    """
    if learning is None:
        return []
    kept = [row for row in history if row["best"] == "1"]
    if learning["method"] == "adversarial":
        percent = f"{100 * learning['eps']:g}"
        shares = {"steps": learning["steps"], "weight": f"{learning['weight']:g}"}
        return [plain("learning.adversarial", percent=percent, **shares)]
    if learning["method"] != "distill":
        return _of_unlabelled(learning, kept)
    shares = {name: f"{learning[name]:g}" for name in ("temperature", "weight")}
    said = [plain("learning.distill", **{**learning, **shares})]
    if learning["models"] > 1:
        said.append(plain("learning.distill.folds", **learning))
    known, patients = learning["validation_patients_known"], learning["validation_patients"]
    said.append(plain("learning.distill.known", known=known, patients=patients))
    if kept and kept[-1].get("teacher_agreement"):
        share = round(100 * float(kept[-1]["teacher_agreement"]))
        said.append(plain("learning.distill.agrees", share=share))
    return said


def _of_unlabelled(learning: Row, kept: Sequence[Row]) -> list[str]:
    """What was learned from images without labels, and how much of it was sure in the end."""
    named = ("threshold", "weight", "temperature", "alpha")
    numbers = {name: f"{learning[name]:g}" for name in named if name in learning}
    said = [plain(f"learning.{learning['method']}", **{**learning, **numbers})]
    known, patients = learning["validation_patients_known"], learning["validation_patients"]
    said.append(plain("learning.unlabelled.known", known=known, patients=patients))
    if kept and kept[-1].get("sure_answers"):
        share = round(100 * float(kept[-1]["sure_answers"]))
        said.append(plain("learning.unlabelled.sure", share=share))
    return said


def checks(sanity: Row | None) -> list[Checked]:
    """Return the checks of a sanity.json in the language of the block; [] without any.

    Args:
        sanity: Content of sanity.json.

    Example:
        >>> facts = {"start": 0.7, "end": 0.05, "steps": 20, "images": 16}
        >>> done = {"checks": [{"name": "one_batch", "passed": True, "facts": facts}]}
        >>> checks(done)[0].text
        'Overfits one batch: on 16 images the loss goes from 0.700 to 0.050 in 20 steps.'
    """
    found = []
    for check in (sanity or {}).get("checks", []):
        name, facts = check["name"], check["facts"]
        state = {True: "passed", False: "failed", None: "none"}[check["passed"]]
        if "reason" in facts:
            text = plain(
                "sanity.without", check=plain(f"sanity.{name}.name"), reason=plain(facts["reason"])
            )
        else:
            shown = {key: _shown(value) for key, value in facts.items()}
            text = f"{plain(f'sanity.{name}.name')}: {plain(f'sanity.{name}', **shown)}"
        advice = plain(f"sanity.{name}.failed") if state == "failed" else ""
        if state == "none" and "reason" not in facts:
            advice = plain("sanity.few_to_tell")
        found.append(Checked(name, state, text, advice))
    return found


def shortcuts_view(shortcuts: Row | None) -> dict[str, Any] | None:
    """Return what controls reach beside the recipe, label by label; None without any.

    Args:
        shortcuts: Content of shortcuts.json.
    """
    if not shortcuts:
        return None
    parts: list[dict[str, Any]] = []
    for own in shortcuts.get("recipe") or []:
        label, subset = own["label"], own["subset"]
        mine = [c for c in shortcuts["controls"] if (c["label"], c["subset"]) == (label, subset)]
        rows = [_row("fine_tuned", own["reaches"], None)]
        rows += [_row(c["name"], c["reaches"], c["gain"]) for c in mine]
        figure = controls_figure(rows, f"learned-{len(parts)}") if subset == "all" else None
        parts.append({"label": label, "subset": subset, "rows": rows, "figure": figure})
    metadata = ", ".join(shortcuts.get("metadata") or ())
    return {"folds": shortcuts["folds"], "metadata": metadata, "parts": parts}


def _row(name: str, reaches: Row, gain: Row | None) -> dict[str, Any]:
    """One model: its name, its own measure, and what the recipe adds to it."""
    measure = {**reaches, "name": reaches["name"].replace("_mean_of_folds", "")}
    key = f"learned.{name}"
    row = {
        "name": plain(key) if knows(key) else name.replace("_", " "),
        "measure": measure,
        "shown": show(measure),
        "gain": "",
        "verdict": "",
    }
    if gain is not None:
        gain = {**gain, "name": gain["name"].replace("_mean_of_folds", "")}
        row["gain"] = difference_text(gain)
        about = "pretraining" if name.startswith("random_weights") else "recipe"
        row["verdict"] = plain(f"learned.{about}.{_sign(gain, measure['name'])}")
    return row


def _sign(gain: Row, name: str) -> str:
    """Whether the recipe adds something: "adds", "worse" or "open"."""
    low, high = number(gain["low"]), number(gain["high"])
    if low is None or high is None:
        return "open"
    if entry(name).better == "lower":
        low, high = -high, -low
    return "adds" if low > 0 else "worse" if high < 0 else "open"


def curve_view(curve: Row | None) -> dict[str, Any] | None:
    """Return a learning curve as a picture and in words; None without any.

    Args:
        curve: Content of learning_curve.json.
    """
    if not curve:
        return None
    gain = {**curve["gain"], "name": f"{curve['measure']}_difference"}
    key = "learned.error" if curve["lower_is_better"] else "learned.gain"
    return {
        "figure": curve_figure(curve),
        "text": plain(key, more=curve["more"], gain=difference_text(gain)),
        "limit": plain(f"learned.limit.{curve['limit']}"),
        "seeds": len(next(iter(curve["values"].values()))[0]),
    }


def forgetting_view(forgetting: Row | None) -> dict[str, Any] | None:
    """Return what tuning kept of the start network's task; None without any.

    Args:
        forgetting: Content of forgetting.json.
    """
    if not forgetting:
        return None
    rows = [
        {
            "label": row["label"],
            "start": show(row["start"]),
            "tuned": show(row["tuned"]),
            "change": difference_text(row["change"]),
            "verdict": plain(f"learned.forgetting.{row['verdict']}"),
        }
        for row in forgetting["labels"]
    ]
    names = {key: forgetting[key] for key in ("start", "tuned", "images", "patients", "left_out")}
    return {**names, "rows": rows, "is_start": forgetting["is_start"]}


def _shown(value: object) -> str:
    """A count as it is, any other number in three decimals."""
    known = number(value)
    return str(value) if isinstance(value, int) or known is None else f"{known:.3f}"

"""What a study's data can show, said before anything is trained."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from medtl.cases.columns import Columns
from medtl.cases.manifest import manifest_columns
from medtl.metrics.planning.sample_size import (
    patients_for_promise,
    patients_for_share,
    range_of_share,
)
from medtl.recipe.schema import Recipe
from medtl.run.build import build_manifest
from medtl.run.kinds import KINDS
from medtl.run.prepare import Prepared
from medtl.types import Case

EXPECTED = 0.80
"""Sensitivity or specificity for which the test part's interval is said, where none is aimed at."""

LATERAL = frozenset({"LL", "RL", "LATERAL", "LAT", "LLD", "RLD", "L"})
"""Views of a chest from the side, as DICOM (0018,5101) and tables spell them."""


def describe_expectations(prepared: Prepared) -> Iterator[str]:
    """Yield what the parts can show, how many views are lateral, and what may be forgotten.

    Args:
        prepared: The study.
    """
    yield from _test_lines(prepared)
    yield from _promise_lines(prepared)
    yield from _view_lines(prepared)
    recipe = prepared.recipe
    yield from KINDS[recipe.task.kind].hints(recipe, manifest_columns(Path(recipe.data.manifest)))


def patients_by_label(prepared: Prepared, split: str) -> dict[str, tuple[int, int]]:
    """Return label -> patients of a split with the finding, and those known to be without it.

    Args:
        prepared: The study; of a quantity or of masks, nothing is returned.
        split: "train", "val" or "test".
    """
    if prepared.task.encode is not None:
        return {}
    images: dict[str, list[Case]] = defaultdict(list)
    for case in prepared.split(split):
        images[case.patient_id].append(case)
    having: Counter[str] = Counter()
    without: Counter[str] = Counter()
    for of_patient in images.values():
        for label, tally in prepared.task.tally(of_patient).items():
            having[label] += tally.get("positive", 0) > 0
            without[label] += not tally.get("positive", 0) and tally.get("negative", 0) > 0
    numbers = {label: (having[label], without[label]) for label in having}
    return {label: of for label, of in numbers.items() if any(of)}


def _aims(recipe: Recipe) -> tuple[float, float]:
    """The sensitivity and the specificity that are aimed at or, where none is, looked for."""
    rule = recipe.study.operating_point
    return rule.sensitivity or EXPECTED, rule.specificity or EXPECTED


def _test_lines(prepared: Prepared) -> Iterator[str]:
    """The width of what will be found on the test part, with the numbers that would narrow it."""
    aims = _aims(prepared.recipe)
    for label, numbers in patients_by_label(prepared, "test").items():
        parts = []
        for name, aim, patients in zip(("sensitivity", "specificity"), aims, numbers, strict=True):
            whose = f"patient{'' if patients == 1 else 's'} with"
            whose += "" if name == "sensitivity" else "out"
            if not patients:
                parts.append(f"no {whose} it, so no {name}")
                continue
            low, high = range_of_share(aim, patients)
            parts.append(
                f"{patients} {whose} it, so a {name} of {aim:.0%} would be known to "
                f"{low:.0%}-{high:.0%} ({patients_for_share(aim)} narrow it to +-5 points)"
            )
        yield f"Test part, {label}: {'; '.join(parts)}"


def _promise_lines(prepared: Prepared) -> Iterator[str]:
    """Whether the validation part is enough to promise what is aimed at."""
    rule = prepared.recipe.study.operating_point
    validation = patients_by_label(prepared, "val")
    for label, numbers in validation.items():
        if not all(numbers):
            yield (
                f"Validation part, {label}: no patient with{'out' if numbers[0] else ''} it, so no "
                "threshold can be chosen, and the report will have no sensitivity or specificity"
            )
    for place, (name, aim) in enumerate(
        (("sensitivity", rule.sensitivity), ("specificity", rule.specificity))
    ):
        for label, numbers in validation.items():
            needed = 0 if aim is None else patients_for_promise(aim)
            if all(numbers) and numbers[place] < needed:
                whose = "without" if place else "with"
                yield (
                    f"Validation part, {label}: patients {whose} it, by whom the threshold is "
                    f"chosen: {numbers[place]}; to promise a {name} of {aim:.0%} with 90 % "
                    f"certainty takes {needed}"
                )


def _view_lines(prepared: Prepared) -> Iterator[str]:
    """How many images show a chest from the side, where headers or the manifest say the view."""
    told = {r.case_id: str(r.facts.get("view_position", "")) for r in prepared.records}
    stated = _stated_views(prepared.recipe)
    views = [stated.get(c.case_id, "") or told.get(c.case_id, "") for c in prepared.cases]
    lateral = sum(view.strip().upper() in LATERAL for view in views)
    if lateral:
        unknown = views.count("")
        rest = f", {unknown} of no stated view" if unknown else ""
        yield (
            f"{lateral} of {len(views)} images are lateral views{rest}. Frontal ones alone: "
            "data.where='view in [AP, PA]'"
        )


def _stated_views(recipe: Recipe) -> dict[str, str]:
    """Case -> what the manifest's column `view` says, also where results are not broken by it."""
    columns = Columns.of(dict(recipe.data))
    if "view" not in columns.known_names(manifest_columns(Path(recipe.data.manifest))):
        return {}
    data = recipe.data.model_copy(update={"strata": (*recipe.data.strata, "view")})
    manifest = build_manifest(recipe.model_copy(update={"data": data}))
    return {case.case_id: case.strata["view"] for case in manifest.cases}

"""Would more patients help? One recipe on nested shares of its training patients.

Validation and test patients stay; the training patients of a smaller share are among those of a
larger one with the same seed. Beside the network, where it applies, a linear model on frozen
features learns from the same patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path

import numpy as np

from medtl.errors import PredictionsError, RunError
from medtl.metrics.catalogue import entry
from medtl.metrics.planning.learning_curve import (
    LEAST_SIZES,
    Limit,
    PowerLaw,
    fit_power_law,
    gain_of_more,
    limited_by,
)
from medtl.metrics.scores import CI
from medtl.recipe.schema import Recipe
from medtl.run.build import build_manifest, build_task
from medtl.run.files import RunFiles
from medtl.run.prepare import split_cases
from medtl.storage.atomic import read_json, write_json, write_text
from medtl.studies.conditions import Plan, load_plan, seeded
from medtl.studies.judgement import markdown_table
from medtl.studies.kfold import CONTESTS, FROZEN, shown
from medtl.studies.learned.controls import control_images, frozen_features
from medtl.studies.plots import draw_curves
from medtl.studies.rows import Row, finished, lower_is_better, primary_measure, read_rows
from medtl.types import Measure, Progress, silent

SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)
"""Of the training patients, unless the user says otherwise."""

MORE = 200
"""Patients more, for whom the curve is carried on."""

NETWORK = "fine_tuned"


@dataclass(frozen=True)
class LearningCurve:
    """The findings of a study of shares.

    Attributes:
        measure: Test measure that is drawn.
        lower_is_better: Its direction.
        patients: Training patients of each share, ascending.
        values: Model -> for each share, the measure of each seed.
        law: Error against patients, or None with fewer than three shares.
        more: Patients of the question that `gain` answers.
        gain: By how much the error falls with so many more.
        losses: Training and validation loss at the largest share, means over seeds.
        limit: What keeps the validation loss up.
    """

    measure: str
    lower_is_better: bool
    patients: tuple[int, ...]
    values: Mapping[str, tuple[tuple[float, ...], ...]]
    law: PowerLaw | None
    more: int
    gain: Measure
    losses: tuple[float, float]
    limit: Limit


def curve_plan(recipe: Recipe, shares: Sequence[float], seeds: int) -> Plan:
    """Return the plan of a learning curve: all seeds share validation and test patients.

    Args:
        recipe: Of the study.
        shares: Of the training patients, in (0, 1]; the largest is the reference.
        seeds: How many.

    Raises:
        RunError: For shares outside (0, 1] or fewer than two of them.
    """
    wanted = sorted(set(shares))
    if len(wanted) < 2 or not 0 < wanted[0] <= wanted[-1] <= 1:
        raise RunError(
            f"shares {', '.join(f'{share:g}' for share in shares) or 'none'}",
            expected="two or more in (0, 1]",
            fix="State them: --shares 0.1,0.25,0.5,0.75,1",
        )
    conditions = {_name(share): (f"data.split.train_share={share:g}",) for share in wanted}
    return Plan(
        conditions,
        _name(wanted[-1]),
        tuple(range(seeds)),
        vary=("init", "order", "augment"),
        question=f"How does {', '.join(recipe.data.targets) or 'it'} improve with more patients?",
    )


def _name(share: float) -> str:
    return f"share-{share:g}"


def frozen_curve(
    recipe: Recipe, out: str | PathLike[str], *, progress: Progress = silent
) -> tuple[tuple[float, ...], ...] | None:
    """Return, for each share and seed of a study, the test measure of a model on frozen features.

    Args:
        recipe: Of the study.
        out: Its folder.
        progress: Told of reading and computing.

    Returns:
        None for several findings, and where no linear model on features does the task.
    """
    plan, measure = load_plan(Path(out)), primary_measure(read_rows(Path(out)))
    contest = CONTESTS.get(entry(measure).base)
    if contest is None or len(recipe.data.targets) != 1:
        return None
    manifest = build_manifest(recipe)
    images = control_images(recipe, manifest, progress=progress)
    cases, task = images.cases, build_task(recipe, images.cases)
    truth = task.truth_matrix(cases)[:, 0]
    features = np.concatenate([frozen_features(images), task.inputs(cases)], axis=1)
    found = []
    for name in plan.conditions:
        share = float(name.removeprefix("share-"))
        by_seed = []
        for seed in plan.seeds:
            chosen = seeded(with_share(recipe, share), seed, plan.vary)
            split = {c.case_id: c.split for c in split_cases(chosen, manifest, task).cases}
            train = np.array([split.get(case.case_id) == "train" for case in cases])
            test = np.array([split.get(case.case_id) == "test" for case in cases])
            groups = [case.patient_id for case in cases]
            scores = contest.linear(features, truth, groups, train=train, seed=seed)
            known = test & ~np.isnan(truth)
            fold = np.zeros(known.sum())
            one = contest.measure(truth[known], [scores[known]], fold, ci=CI(resamples=2))[0]
            by_seed.append(np.nan if one.value is None else one.value)
        found.append(tuple(by_seed))
    return tuple(found)


def with_share(recipe: Recipe, share: float) -> Recipe:
    """Return the recipe that learns from a share of its training patients."""
    split = recipe.data.split.model_copy(update={"train_share": share})
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"split": split})})


def summarise_curve(
    out: str | PathLike[str],
    *,
    more: int = MORE,
    frozen: Sequence[Sequence[float]] | None = None,
) -> LearningCurve:
    """Sum a study of shares up; leaves `learning_curve.json`, `.md` and `.svg` in the folder.

    Args:
        out: A folder of `medtl study learning-curve`; all its runs have ended.
        more: Patients more, for whom the curve is carried on.
        frozen: Of `frozen_curve`; what the folder already has when not given.

    Raises:
        RunError: When runs are missing.
    """
    out = Path(out)
    plan, rows = load_plan(out), read_rows(out)
    done = finished(rows)
    missing = [pair for pair in plan.pairs if pair not in done]
    if missing:
        raise RunError(
            f"{len(missing)} of {len(plan.pairs)} runs have not ended well",
            where=str(out),
            fix="Go on with --resume",
        )
    stored = RunFiles(out).curve
    if frozen is None and stored.is_file():
        frozen = read_json(stored)["values"].get(FROZEN)
    curve = learning_curve(plan, done, more=more, frozen=frozen)
    write_json(stored, {"schema": "medtl-learning-curve/1", **asdict(curve)})
    names = {NETWORK: "the recipe", FROZEN: "frozen features"}
    lines = {names[name]: by_share for name, by_share in curve.values.items()}
    draw_curves(curve.patients, lines, curve.measure, out / "learning_curve.svg")
    write_text(out / "learning_curve.md", curve_markdown(curve))
    return curve


def learning_curve(
    plan: Plan,
    done: Mapping[tuple[str, int], Row],
    *,
    more: int = MORE,
    frozen: Sequence[Sequence[float]] | None = None,
) -> LearningCurve:
    """Return what the rows of a study of shares say.

    Args:
        plan: Of `curve_plan`.
        done: (condition, seed) -> row of its run.
        more: Patients more, for whom the curve is carried on.
        frozen: Of `frozen_curve`.
    """
    measure = primary_measure(list(done.values()))
    lower = lower_is_better(measure)
    rows = [[done[name, seed] for seed in plan.seeds] for name in plan.conditions]
    values = {NETWORK: tuple(tuple(row[measure] for row in own) for own in rows)}
    if frozen is not None:
        values[FROZEN] = tuple(tuple(own) for own in frozen)
    patients = tuple(int(np.mean([row["train_patients"] for row in own])) for own in rows)
    errors = [np.array(own) if lower else 1 - np.array(own) for own in values[NETWORK]]
    train, val = (
        float(np.mean([row[loss] for row in rows[-1]])) for loss in ("train_loss", "val_loss")
    )
    try:
        law = fit_power_law(np.repeat(patients, len(plan.seeds)), np.concatenate(errors))
        gain = gain_of_more(patients, errors, more)
    except PredictionsError as error:
        law = None
        gain = Measure("gain_of_more", None).undefined(f"{error.found}; {LEAST_SIZES} are needed")
    return LearningCurve(
        measure=measure,
        lower_is_better=lower,
        patients=patients,
        values=values,
        law=law,
        more=more,
        gain=replace(gain, n=sum(map(len, errors))),
        losses=(train, val),
        limit=limited_by(train, val),
    )


ADVICE: dict[Limit, str] = {
    "bias": "training has nearly all of the validation loss too (bias): more steps, a larger "
    "network or larger images can help, more patients hardly",
    "variance": "training has little of the validation loss (variance): more patients, stronger "
    "augmentation or fewer trained layers can help",
    "both": "training has a good part of the validation loss, not all (bias and variance)",
    "nothing": "nothing limits it",
}


def curve_markdown(curve: LearningCurve) -> str:
    """Return a learning curve in words and as a Markdown table."""
    rows = []
    for place, patients in enumerate(curve.patients):
        for name, by_share in curve.values.items():
            own = np.array(by_share[place])
            spread = f"{own.std(ddof=1):.3f}" if len(own) > 1 else ""
            rows.append([str(patients), name.replace("_", " "), f"{own.mean():.3f}", spread])
    better = "the error falls by" if curve.lower_is_better else f"{curve.measure} rises by"
    train, val = curve.losses
    lines = [
        f"Test {curve.measure} against training patients, {len(curve.values[NETWORK][0])} seeds; "
        "validation and test patients are the same throughout.",
        "",
        *markdown_table("rlrr", ("training patients", "model", "mean", "SD"), rows),
        "",
        f"- {curve.more} more patients: {better} {shown(curve.gain)}, if the fitted inverse power "
        "law goes on; the interval holds the variation between runs, not that of test patients.",
        f"- Loss in training {train:.3f}, under augmentation; in validation {val:.3f}: "
        f"{ADVICE[curve.limit]}.",
    ]
    return "\n".join(lines) + "\n"

"""What breaks a run's model: its test images under corruptions, probes and attacks, measured.

Hendrycks and Dietterich 2019 (corruptions in severities), Geirhos et al. 2019 (shape and texture),
Goodfellow et al. 2015 and Madry et al. 2018 (attacks), Finlayson et al. 2019 (medical images).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medtl.data.store import ImageStore
from medtl.errors import MedtlError
from medtl.metrics.confusion import share_measures
from medtl.metrics.scores import Scores
from medtl.run.files import refuse_existing
from medtl.run.folder import Run
from medtl.storage.atomic import sha256_file
from medtl.studies.stress.changed import Robustness, Row
from medtl.studies.stress.corruption_error import mean_corruption_error
from medtl.studies.stress.corruptions import AlteredStore, Corruption, corruptions_of
from medtl.studies.stress.robustness_files import CLEAN, write_robustness
from medtl.studies.subject import Subject, measured, read_subject
from medtl.types import Measure, Progress, silent

FAMILIES = ("corruptions", "probes", "attacks")

EPSILONS = (0.002, 0.005, 0.01, 0.02, 0.05)
"""Largest changes of intensity: half a grey level of 256 to thirteen of them."""

PGD_STEPS = 10
PATCH_SHARES = (0.05, 0.1, 0.15, 0.2, 0.25)
"""Sides of the attacker's patch, of the picture's."""

QUICK_SEVERITIES = (1, 3, 5)
QUICK_CASES = 100
"""Images of a quick look, drawn by seed 0."""


@dataclass(frozen=True)
class Condition:
    """One way in which all images are changed.

    Attributes:
        family: One of `FAMILIES`.
        name: Of the corruption, probe or attack.
        level: 1 to the number of strengths.
        strength: Its parameter.
        words: Language -> what happens.
        store: From the images to the changed ones.
    """

    family: str
    name: str
    level: int
    strength: float
    words: Mapping[str, str]
    store: Callable[[], ImageStore] = field(repr=False)


@dataclass(frozen=True)
class Asked:
    """What a model is put to.

    Attributes:
        families: Of `FAMILIES`.
        quick: Three of five severities, at most `QUICK_CASES` images, attacks by one step alone.
        against: Folder of a stress test of another model on the same images, for the mean
            corruption error.
    """

    families: Sequence[str] = FAMILIES
    quick: bool = False
    against: Path | None = None


def stress_run(
    run: Run,
    data: str | PathLike[str],
    out: str | PathLike[str],
    asked: Asked = Asked(),
    *,
    announce: Callable[[str], None] = lambda _line: None,
    progress: Progress = silent,
) -> Robustness:
    """Put a run's model to changed images; leave `robustness.json`, `.csv`, `.md` and pictures.

    Args:
        run: Finished, or at least evaluated.
        data: The run's own manifest, of which the test cases are taken, or new cases with truth.
        out: A new folder.
        asked: What to try.
        announce: Told how long it will take, after the first pass.
        progress: Told of reading and of each condition.

    Raises:
        RunError: When there are no cases with truth, `out` exists, or the other stress test is of
            other images.
    """
    refuse_existing(out := Path(out), resume=False)
    subject = read_subject(run, data, most=QUICK_CASES if asked.quick else None, progress=progress)
    conditions, left_out = _conditions(subject, asked)
    found = _tested(run, subject, conditions, left_out, announce=announce, progress=progress)
    if asked.against is not None:
        found = replace(found, against=mean_corruption_error(found.rows, asked.against))
    out.mkdir(parents=True, exist_ok=True)
    write_robustness(found, out)
    return found


def _conditions(subject: Subject, asked: Asked) -> tuple[list[Condition], list[str]]:
    """What is tried, and what cannot be."""
    modality = subject.trained.recipe.image.modality
    found: list[Condition] = []
    left_out: list[str] = []
    for family in ("corruptions", "probes"):
        if family in asked.families:
            for one in corruptions_of(modality, family[:-1]):
                if subject.is_of_masks and one.moves:
                    left_out.append(f"{one.words['en']}: the masks would have to move too")
                    continue
                levels = range(1, len(one.strengths) + 1)
                is_whole = not asked.quick or family == "probes"
                kept = [n for n in levels if is_whole or n in QUICK_SEVERITIES]
                found += [_changed(subject.store, one, level, family) for level in kept]
    if "attacks" in asked.families:
        try:
            found += list(_attacks(subject, left_out, quick=asked.quick))
        except MedtlError as error:
            left_out.append(f"attacks: {error}")
    return found, left_out


def _changed(store: ImageStore, one: Corruption, level: int, family: str) -> Condition:
    """A line of the table of corruptions at a severity."""
    altered = AlteredStore(
        store.case_ids, store.units, store.masks, alter=lambda _row, unit: one(unit, level)
    )
    strength = one.strengths[level - 1]
    return Condition(family, one.name, level, strength, one.words, lambda: altered)


def _attacks(subject: Subject, left_out: list[str], *, quick: bool) -> Iterator[Condition]:
    """White box (FGSM, PGD, a patch) and black box (from the public start weights)."""
    from medtl.losses.adversarial import Attack
    from medtl.studies.stress.attacks import patch_of
    from medtl.studies.stress.victims import Victim, start_network

    victim = Victim.of(subject.trained, subject.cases, subject.store)
    own = partial(victim.attacked, victim.own_loss)
    for level, eps in enumerate(EPSILONS, start=1):
        yield _attack("fgsm", level, eps, partial(own, Attack(eps)))
    if quick:
        return
    for level, eps in enumerate(EPSILONS, start=1):
        pgd = Attack(eps, steps=PGD_STEPS, random_start=True)
        yield _attack("pgd", level, eps, partial(own, pgd))
    shape = victim.shape[1:]
    if len(shape) == 2:
        for level, share in enumerate(PATCH_SHARES, start=1):
            paint = Attack(1.0, steps=PGD_STEPS, random_start=True)
            mask = patch_of((shape[0], shape[1]), share)
            yield _attack("patch", level, share, partial(own, paint, mask=mask))
    start = start_network(subject.trained)
    if isinstance(start, str):
        left_out.append(f"transfer from the start weights: {start}")
        return
    loss = partial(victim.feature_loss, start)
    for level, eps in enumerate(EPSILONS, start=1):
        pgd = Attack(eps, steps=PGD_STEPS, random_start=True)
        yield _attack("transfer", level, eps, partial(victim.attacked, loss, pgd))


def _attack(name: str, level: int, strength: float, store: Callable[[], ImageStore]) -> Condition:
    """A condition of the family of attacks."""
    return Condition("attacks", name, level, strength, ATTACK_WORDS[name], store)


ATTACK_WORDS: Mapping[str, Mapping[str, str]] = {
    "fgsm": {"en": "attack in one step, the model known", "ko": "모델을 아는 한 단계 공격"},
    "pgd": {"en": f"attack in {PGD_STEPS} steps, the model known", "ko": "모델을 아는 반복 공격"},
    "patch": {"en": "a painted square, the model known", "ko": "모델을 아는 사각형 조각 공격"},
    "transfer": {
        "en": "attack built from the public start weights alone",
        "ko": "공개된 초기 가중치만으로 만든 공격",
    },
}


def _tested(
    run: Run,
    subject: Subject,
    conditions: Sequence[Condition],
    left_out: Sequence[str],
    *,
    announce: Callable[[str], None],
    progress: Progress,
) -> Robustness:
    """Score every condition and judge it."""
    import time

    trained, cases = subject.trained, subject.cases
    started = time.monotonic()
    numbers = [subject.numbers(subject.store)]
    once = time.monotonic() - started
    gradients = 3 * PGD_STEPS  # a step costs about three passes
    passes = sum(
        1 if one.family != "attacks" else 4 if one.name == "fgsm" else 1 + gradients
        for one in conditions
    )
    announce(
        f"{len(cases)} images, {len(conditions)} conditions: about "
        f"{max(1, round(passes * once / 60))} minutes on this machine"
    )
    example = _example(subject, numbers[0])
    row = int(subject.store.rows(cases)[example])
    first = subject.store.unit(row)
    pictures = {CLEAN: first} if first.ndim == 3 else {}  # a volume is no picture
    for done, one in enumerate(conditions):
        progress("Conditions", done, len(conditions))
        store = one.store()
        numbers.append(subject.numbers(store))
        if pictures:
            pictures[f"{one.name}_{one.level}"] = store.unit(row)
    progress("Conditions", len(conditions), len(conditions))
    point = trained.recipe.study.operating_point
    rows = _judged(subject, conditions, np.stack(numbers), example)
    return Robustness(
        rows=tuple(rows),
        words={one.name: dict(one.words) for one in conditions},
        modality=trained.recipe.image.modality,
        images=len(cases),
        patients=len({case.patient_id for case in cases}),
        least_sensitivity=getattr(point, "sensitivity", None) if subject.thresholds else None,
        left_out=tuple(left_out),
        thresholds=dict(subject.thresholds),
        tuned=run.path.name,
        tuned_sha256=sha256_file(run.checkpoint),
        example=cases[example].case_id if pictures else "",
        pictures=pictures,
    )


def _example(subject: Subject, numbers: NDArray[np.float64]) -> int:
    """The place of the case that is shown: the first whose finding is found, else the first."""
    label = next(iter(subject.thresholds), None)
    if label is None or subject.is_of_masks:
        return 0
    column = subject.trained.task.labels.index(label)
    truth = subject.trained.task.truth_matrix(subject.cases)[:, column]
    found = (truth == 1) & (numbers[:, column] >= subject.thresholds[label])
    return int(found.argmax())


def _judged(
    subject: Subject,
    conditions: Sequence[Condition],
    numbers: NDArray[np.float64],
    example: int,
) -> Iterator[Row]:
    """Yield the measures of every condition, label by label; `numbers` is `(conditions, n, K)`."""
    places = {label: column for column, label in enumerate(subject.trained.task.labels)}
    for label, truth, values, who, measures in measured(subject, numbers):
        reaches, drops = measures[: len(values)], [None, *measures[len(values) :]]
        threshold = subject.thresholds.get(label)
        for number, (reach, drop) in enumerate(zip(reaches, drops, strict=True)):
            one = conditions[number - 1] if number else None
            shares = {}
            if threshold is not None:
                shares = _shares(truth, values[number], values[0], threshold, who)
            place = (
                (one.family, one.name, one.level, one.strength)
                if one
                else ("clean",) * 2 + (0, 0.0)
            )
            own = float(numbers[number, example, places[label]])
            yield Row(*place, label, reach, drop, shares, None if np.isnan(own) else own)


def _shares(
    truth: NDArray[np.float64],
    score: NDArray[np.float64],
    clean: NDArray[np.float64],
    threshold: float,
    patients: NDArray[np.str_],
) -> dict[str, Measure]:
    """Sensitivity and specificity at the frozen threshold, and decisions unlike the clean ones."""
    found = share_measures(truth, score, threshold, patients=patients)[:2]
    flipped = (score >= threshold) != (clean >= threshold)
    # The share of flips is a sensitivity among rows that are all positive: same intervals.
    share = share_measures(Scores.of(np.ones(len(truth)), flipped.astype(float), patients))[0]
    return {m.name: m for m in [*found, replace(share, name="flipped")]}

"""Teachers: trained runs whose outputs for the training cases another network learns from."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from medtl.data.reader import check_readable
from medtl.errors import LeakError, RunError
from medtl.losses.distillation import Distillation
from medtl.recipe.schema import Recipe
from medtl.run.build import build_decoder
from medtl.run.folder import Run
from medtl.run.prepare import Prepared
from medtl.storage.atomic import read_json, sha256_file
from medtl.training.checkpoint import load_checkpoint
from medtl.types import Case

log = logging.getLogger(__name__)

WHERE = "finetune.learn.teacher"

LEARNED = ("train", "val")
"""Splits whose patients chose weights, epoch or threshold of a run."""


BESIDE = "validation_patients_known"
"""What `learning.json` says of a run that learned from more than the cases of its manifest."""


@dataclass(frozen=True)
class Teachers:
    """Who teaches which training cases.

    Attributes:
        runs: The trained runs.
        lessons: Of each run, the cases that it teaches.
        facts: What the study's record says of it, as JSON types.
    """

    runs: tuple[Run, ...]
    lessons: tuple[tuple[Case, ...], ...]
    facts: Mapping[str, Any]

    def outputs(self, prepared: Prepared) -> Tensor:
        """Return what they say of the training cases: `(n, K)` logits, the mean of several.

        Each reads the images by its own preprocessing, without augmentation. What it cannot read
        is NaN.

        Args:
            prepared: The study that is taught.

        Raises:
            RunError: When too many images cannot be read by a teacher.
        """
        cases = prepared.split("train")
        place = {case.case_id: number for number, case in enumerate(cases)}
        total = torch.zeros(len(cases), prepared.task.outputs)
        count = torch.zeros(len(cases), 1)
        for run, lesson in zip(self.runs, self.lessons, strict=True):
            if not lesson:
                continue
            log.info("teacher %s: %d training images", run.path.name, len(lesson))
            names, outputs = _said(run, lesson, prepared)
            rows = torch.tensor([place[name] for name in names], dtype=torch.long)
            total[rows] += outputs
            count[rows] += 1
        return torch.where(count > 0, total / count, torch.nan)


def find_teachers(recipe: Recipe, prepared: Prepared) -> Teachers | None:
    """Return who teaches a study; None when nobody does.

    Of a study of folds each case is taught by the models that did not train on its patient: those
    that tested it, else those that validated by it.

    Args:
        recipe: Names the teacher.
        prepared: The study that is taught.

    Raises:
        RunError: When there is no trained run, it has other outputs or was taught itself, or every
            model of a study has trained on a case.
        LeakError: When a teacher was trained or tuned on a test patient of this study.
    """
    learn = recipe.finetune.learn
    if not isinstance(learn, Distillation):
        return None
    folder = Path(learn.teacher)
    runs = _trained_runs(folder)
    for run in runs:
        _require_outputs(run, prepared)
        _require_known_patients(run)
    known = [_Seen.by(run) for run in runs]
    hashes = {record.case_id: record.sha256 for record in prepared.records}
    _refuse_leak(folder.name, known, prepared.split("test"), hashes)
    cases = prepared.split("train")
    lessons = _lessons(folder.name, known, cases, hashes) if len(runs) > 1 else (tuple(cases),)
    validated = {case.patient_id for case in prepared.split("val")}
    tuned = {
        case.patient_id
        for case in prepared.split("val")
        if any(one.split_of(case, hashes) in LEARNED for one in known)
    }
    digests = "".join(sha256_file(run.checkpoint) for run in runs)
    facts = {
        "schema": "medtl-learning/1",
        "method": learn.method,
        "teacher": folder.name,
        "teacher_sha256": hashlib.sha256(digests.encode()).hexdigest(),
        "models": len(runs),
        "temperature": learn.temperature,
        "weight": learn.weight,
        "cases": len(cases),
        "validation_patients": len(validated),
        BESIDE: len(tuned),
    }
    return Teachers(runs, lessons, facts)


@dataclass(frozen=True)
class _Seen:
    """The cases of a run: by patient, and by pixels where the ids are of another table.

    Attributes:
        patients, pixels: Patient, or hash of the decoded image -> split.
    """

    patients: Mapping[str, str]
    pixels: Mapping[str, str]

    @classmethod
    def by(cls, run: Run) -> _Seen:
        """Return the cases of a run."""
        rows = run.manifest
        pixels = dict(zip(rows["content_sha256"], rows["split"], strict=True))
        pixels.pop("", None)
        return cls(dict(zip(rows["patient_id"], rows["split"], strict=True)), pixels)

    def split_of(self, case: Case, hashes: Mapping[str, str]) -> str:
        """Return the split that the run has a case's patient in, "" when it does not know it."""
        by_pixels = self.pixels.get(hashes.get(case.case_id, ""), "")
        return self.patients.get(case.patient_id, by_pixels)


def _trained_runs(folder: Path) -> tuple[Run, ...]:
    """The run in a folder, or those of its folds."""
    found = [folder] if Run(folder).files.best.is_file() else sorted(folder.glob("fold_*"))
    runs = tuple(map(Run, found))
    unfinished = [run.path.name for run in runs if not run.is_finished]
    if unfinished or not runs:
        said = f"{', '.join(unfinished)}: not finished" if unfinished else "no trained run there"
        raise RunError(
            f"{folder.name}: {said}",
            expected="a finished run, or a study of folds: medtl study kfold --ensemble",
            where=WHERE,
        )
    return runs


def _require_outputs(run: Run, prepared: Prepared) -> None:
    """Refuse a teacher of other questions."""
    theirs = load_checkpoint(run.checkpoint)[1]["task"]
    ours = prepared.task.to_dict()
    said = [(task["kind"], *task.get("labels", ())) for task in (theirs, ours)]
    if said[0] != said[1]:
        raise RunError(
            f"the teacher {run.path.name} answers {', '.join(said[0])}",
            expected=", ".join(said[1]),
            where=WHERE,
            fix="Name a teacher of the same findings in the same order",
        )


def _require_known_patients(run: Run) -> None:
    """Refuse a teacher that learned from patients whom its folder does not list."""
    learning = read_json(run.files.learning) if run.files.learning.is_file() else {}
    if BESIDE in learning:
        raise RunError(
            f"the teacher {run.path.name} learned by {learning['method']}, from patients whom its "
            "manifest does not list: nobody can tell whether this study tests on them",
            expected="a teacher that learned from the cases of its manifest alone",
            where=WHERE,
            fix=f"Teach by whom it learned from ({learning.get('teacher', 'labels alone')})",
        )


def _refuse_leak(
    name: str, known: Sequence[_Seen], test: Sequence[Case], hashes: Mapping[str, str]
) -> None:
    """Refuse teachers that know patients on whom their pupil is to be tested."""
    tested = {case.patient_id for case in test}
    leaked = {
        case.patient_id
        for case in test
        if any(seen.split_of(case, hashes) in LEARNED for seen in known)
    }
    if leaked:
        raise LeakError(
            f"leak: the teacher {name} was trained or tuned on {len(leaked)} of {len(tested)} test "
            "patients of this study",
            where=WHERE,
            fix="Teach by a run with the same test patients, or by medtl study kfold --ensemble, "
            "which keeps them apart",
        )


def _lessons(
    name: str, known: Sequence[_Seen], cases: Sequence[Case], hashes: Mapping[str, str]
) -> tuple[tuple[Case, ...], ...]:
    """Of each model of a study, the cases that it teaches because it did not train on them."""
    lessons: list[list[Case]] = [[] for _ in known]
    untaught = 0
    for case in cases:
        splits = [seen.split_of(case, hashes) for seen in known]
        asked = next((s for s in ("test", "val", "") if s in splits), None)
        untaught += asked is None
        for lesson, split in zip(lessons, splits, strict=True):
            if split == asked:
                lesson.append(case)
    if untaught:
        raise RunError(
            f"every model of {name} has trained on {untaught} of {len(cases)} training cases",
            expected="for each case a model that did not",
            where=WHERE,
        )
    return tuple(map(tuple, lessons))


def _said(run: Run, lesson: Sequence[Case], prepared: Prepared) -> tuple[list[str], Tensor]:
    """The cases that a teacher can read, and its outputs `(n, K)`."""
    trained = run.trained
    reader = replace(trained.reader, root=prepared.manifest.root)
    # Windows keeps a mapped file for as long as the store lives.
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        store, records = build_decoder(prepared.recipe)(lesson, reader, file=Path(folder, "units"))
        check_readable(records, prepared.recipe.data.max_unreadable)
        cases = [case for case in lesson if case.case_id in set(store.case_ids)]
        return [case.case_id for case in cases], torch.cat([*trained.outputs(store, cases)])

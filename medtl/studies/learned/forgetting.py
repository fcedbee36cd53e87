"""Did tuning cost what the start network could? Both networks on the same test cases, paired.

It has a meaning where the start network already does the task: a run that went on from the
checkpoint of an earlier run (Goodfellow et al. 2014, arXiv 1312.6211: what is learned later
overwrites what was learned before).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path

import numpy as np

from medtl.errors import RunError
from medtl.run.files import RunFiles, refuse_existing
from medtl.run.folder import Run
from medtl.storage.atomic import sha256_file, write_json, write_text
from medtl.studies.judgement import markdown_table
from medtl.studies.kfold import shown
from medtl.studies.rows import lower_is_better
from medtl.studies.subject import Subject, measured, read_subject
from medtl.types import Case, Measure, Progress, silent

LEARNED_FROM = ("train", "val")
"""Splits whose patients chose the weights, the epoch or the threshold of a run."""


@dataclass(frozen=True)
class Kept:
    """One label before and after tuning.

    Attributes:
        label: A finding, a class, a structure or a quantity.
        start, tuned: What each network reaches on the same cases.
        change: Tuned less start, paired by patient; of an error, above 0 is worse.
        verdict: "better", "forgotten", "open" or "undefined".
    """

    label: str
    start: Measure
    tuned: Measure
    change: Measure
    verdict: str


@dataclass(frozen=True)
class Forgetting:
    """The start network and the tuned one on the same cases.

    Attributes:
        start, tuned: Names of their runs.
        images, patients: That both were tried on.
        left_out: Images of patients that one of the two learned from.
        is_start: Whether the tuned run started from this very checkpoint.
        tuned_sha256: Of the tuned run's checkpoint.
        labels: One row a label.
    """

    start: str
    tuned: str
    images: int
    patients: int
    left_out: int
    is_start: bool
    tuned_sha256: str
    labels: tuple[Kept, ...]


def forgetting_guard(
    start: Run,
    tuned: Run,
    data: str | PathLike[str],
    out: str | PathLike[str],
    *,
    progress: Progress = silent,
) -> Forgetting:
    """Try a start network and the one tuned from it on the same cases.

    Each reads the images with its own preprocessing. Cases of patients that one of the two learned
    from are left out. Leaves `forgetting.json` and `forgetting.md` in a new folder.

    Args:
        start: The earlier run.
        tuned: The run that went on from it.
        data: The manifest of one of the two, of which its test cases are taken, or another one with
            truth. That of the earlier run asks what was forgotten, that of the later one what
            tuning brought.
        out: A new folder.
        progress: Told of reading.

    Raises:
        RunError: When `out` exists, the start network does another task, or no case is left that
            neither learned from.
    """
    refuse_existing(out := Path(out), resume=False)
    subjects = [read_subject(run, data, progress=progress) for run in (tuned, start)]
    _refuse_other_task(*subjects)
    cases, left_out = _unseen(subjects, (tuned, start), Path(data))
    known = _on(subjects[0], cases)
    numbers = [known.numbers(known.store)]
    known = _on(subjects[1], cases)
    numbers.append(known.numbers(known.store))
    found = Forgetting(
        start=start.path.name,
        tuned=tuned.path.name,
        images=len(cases),
        patients=len({case.patient_id for case in known.cases}),
        left_out=left_out,
        is_start=sha256_file(start.checkpoint) == tuned.environment.get("weights_sha256"),
        tuned_sha256=sha256_file(tuned.checkpoint),
        labels=tuple(
            _kept(label, *measures)
            for label, _, _, _, measures in measured(known, np.stack(numbers))
        ),
    )
    out.mkdir(parents=True, exist_ok=True)
    content = {"schema": "medtl-forgetting/1", **asdict(found)}
    write_json(RunFiles(out).forgetting, content)
    write_text(out / "forgetting.md", forgetting_markdown(found))
    return found


def forgetting_markdown(found: Forgetting) -> str:
    """Return what tuning kept and what it cost, as Markdown.

    Args:
        found: Of `forgetting_guard`.
    """
    rows = [
        [one.label, shown(one.start), shown(one.tuned), shown(one.change), VERDICTS[one.verdict]]
        for one in found.labels
    ]
    lines = [
        f"{found.labels[0].tuned.name} of {found.start} (start) and {found.tuned} (tuned) on the "
        f"same {found.images} images of {found.patients} patients; intervals by bootstrap of "
        "patients.",
        "",
        *markdown_table("lllll", ("label", "start", "tuned", "tuned - start", "verdict"), rows),
        "",
    ]
    if found.left_out:
        said = "images of patients that one of them learned from are left out"
        lines.append(f"- {found.left_out} {said}.")
    if not found.is_start:
        lines.append(
            f"- {found.tuned} did not start from the best checkpoint of {found.start}: the "
            "difference is one of two trainings, not of tuning alone."
        )
    return "\n".join(lines).rstrip() + "\n"


VERDICTS: Mapping[str, str] = {
    "better": "tuning made it better",
    "forgotten": "tuning cost some of it",
    "open": "no change is shown",
    "undefined": "not estimable",
}


def _refuse_other_task(tuned: Subject, start: Subject) -> None:
    """Refuse a start network that does not do what the tuned one does."""
    mine, theirs = tuned.trained.task, start.trained.task
    if (mine.labels, mine.watched) != (theirs.labels, theirs.watched):
        raise RunError(
            f"the start network does another task: {theirs.watched} of {', '.join(theirs.labels)}",
            expected=f"{mine.watched} of {', '.join(mine.labels)}, as the tuned one does",
            fix="There is nothing that tuning could have forgotten; compare with medtl study "
            "shortcuts instead",
        )


Place = tuple[Path, int | None]
"""File and frame: what two runs call the same image, whatever their pseudonyms."""


def _place(case: Case) -> Place:
    return case.image, case.frame


def _unseen(
    subjects: Sequence[Subject], runs: Sequence[Run], data: Path
) -> tuple[list[Place], int]:
    """The places of the images that both can read and neither learned from, and how many it did."""
    wanted = [dict.fromkeys(_place(case) for case in own.cases) for own in subjects]
    common = [place for place in wanted[0] if place in wanted[1]]
    seen: set[Place] = set()
    for own, run in zip(subjects, runs, strict=True):
        if not own.is_own:
            seen |= _learned_from(own, run)
    kept = [place for place in common if place not in seen]
    if not kept:
        raise RunError(
            f"none of {len(common)} cases is of a patient that neither run learned from",
            expected="the test cases of one of the two runs, or other patients",
            where=data.name,
        )
    return kept, len(common) - len(kept)


def _learned_from(own: Subject, run: Run) -> set[Place]:
    """The images of patients, or with pixels, that a run trained or chose its epoch by."""
    table = run.manifest
    table = table[table["split"].isin(LEARNED_FROM)]
    patients, pixels = set(table["patient_id"]), set(table["content_sha256"]) - {""}
    known = {
        case.patient_id
        for case in own.cases
        if case.patient_id in patients or own.hashes.get(case.case_id) in pixels
    }
    return {_place(case) for case in own.cases if case.patient_id in known}


def _on(subject: Subject, places: Sequence[Place]) -> Subject:
    """A network's subject on some images, in their order."""
    by_place = {_place(case): case for case in subject.cases}
    return replace(subject, cases=tuple(by_place[place] for place in places))


def _kept(label: str, tuned: Measure, start: Measure, change: Measure) -> Kept:
    """One label in words."""
    before, after = (
        replace(one, name=one.name.replace("_mean_of_folds", "")) for one in (start, tuned)
    )
    if change.low is None or change.high is None:
        verdict = "undefined"
    else:
        sign = -1 if lower_is_better(before.name) else 1
        low, high = sorted((sign * change.low, sign * change.high))
        verdict = "better" if low > 0 else "forgotten" if high < 0 else "open"
    return Kept(label, before, after, change, verdict)

"""A trained model and the cases it is tried on, and what several sets of numbers reach on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtl.data.reader import decode_cases
from medtl.data.store import ImageStore
from medtl.errors import RunError
from medtl.metrics.paired_runs import mean_of_folds_mae
from medtl.prediction.sink import TrainedModel
from medtl.run.folder import Run
from medtl.run.use.cases_to_predict import find_cases
from medtl.studies.kfold import contest_of
from medtl.types import Case, Measure, Progress, silent


@dataclass(frozen=True)
class Subject:
    """A trained model and the test images it is put to.

    Attributes:
        trained: The model.
        cases: Read and with truth.
        store: Their images.
        thresholds: Label -> frozen threshold.
        hashes: Case id -> hash of the decoded image.
        is_own: Whether they are the run's own test cases.
    """

    trained: TrainedModel[Any, Any]
    cases: tuple[Case, ...]
    store: ImageStore
    thresholds: Mapping[str, float]
    hashes: Mapping[str, str] = field(default_factory=dict)
    is_own: bool = False

    @property
    def is_of_masks(self) -> bool:
        """Whether the truth of a case is a mask, which the task then encodes."""
        return self.trained.task.encode is not None

    def numbers(self, store: ImageStore) -> NDArray[np.float64]:
        """`(n, K)` scores, values or Dice of the images of a store."""
        batches = self.trained.scores(store, self.cases)
        if not self.is_of_masks:
            return np.concatenate(list(batches)).astype(np.float64).reshape(len(self.cases), -1)
        found, rows = [], iter(self.store.rows(self.cases))
        for batch in batches:
            found += [self._dice(scores, int(next(rows))) for scores in batch]
        return np.array(found)

    def _dice(self, scores: NDArray[np.float32], row: int) -> list[float]:
        """Dice of each structure on the network's grid; NaN where neither mask shows it."""
        task, mask = self.trained.task, self.store.mask(row)
        taken = scores.argmax(axis=0) if task.exclusive else scores >= 0.5
        found = []
        for number in range(len(task.labels)):
            mine = taken == number + 1 if task.exclusive else taken[number]
            truth = mask == number + 1 if task.exclusive else mask[number] == 1
            size = int(mine.sum()) + int(truth.sum())
            found.append(2 * int((mine & truth).sum()) / size if size else np.nan)
        return found


def read_subject(
    run: Run,
    data: str | PathLike[str],
    *,
    most: int | None = None,
    progress: Progress = silent,
) -> Subject:
    """Read a run's model and the cases to try it on.

    Args:
        run: Finished, or at least evaluated.
        data: The run's own manifest, of which the test cases are taken, or new cases with truth.
        most: Images, drawn by seed 0; None for all.
        progress: Told of reading.

    Raises:
        RunError: When no case could be read and has a truth.
    """
    trained, data = run.trained, Path(data)
    trained.reader.require_images()
    found = find_cases(run.files.manifest, data, trained)
    manifest, is_own = found.manifest, found.is_own
    wanted = [case for case in manifest.cases if not is_own or case.split == "test"]
    if most is not None and len(wanted) > most:
        drawn = np.random.default_rng(0).choice(len(wanted), most, replace=False)
        wanted = [wanted[number] for number in sorted(drawn)]
    store, records = decode_cases(
        wanted,
        replace(trained.reader, root=manifest.root),
        encode=trained.task.encode,
        progress=lambda done, total: progress("Reading", done, total),
    )
    readable, told = set(store.case_ids), trained.task.inputs
    cases = tuple(
        told.completed(case, record.facts)
        for case, record in zip(wanted, records, strict=True)
        if case.case_id in readable
    )
    targets = trained.columns.targets
    is_known = trained.task.encode is not None or (
        all(label in case.targets for case in cases for label in targets)
        and not np.isnan(trained.task.truth_matrix(cases)).all()
    )
    if not (cases and is_known):
        raise RunError(
            "no test case could be read and has a truth",
            where=data.name,
            fix="Give the run's own manifest, or one with its target columns",
        )
    hashes = {record.case_id: record.sha256 for record in records}
    return Subject(trained, cases, store, run.thresholds, hashes, is_own)


def measured(
    subject: Subject, numbers: NDArray[np.float64]
) -> Iterator[tuple[str, NDArray[Any], NDArray[np.float64], NDArray[np.str_], list[Measure]]]:
    """Yield what several sets of numbers reach on the same cases, label by label.

    Args:
        subject: Whose cases and task.
        numbers: `(m, n, K)` scores, values or Dice, as `Subject.numbers`.

    Yields:
        Label, `(n,)` truth, `(m, n)` values and `(n,)` patients of the cases where all is known,
        and the measures: of each set, then the first less each other one, paired by patient.
    """
    task = subject.trained.task
    patients = np.array([case.patient_id for case in subject.cases])
    is_mask = subject.is_of_masks
    truths = np.zeros(numbers.shape[1:]) if is_mask else task.truth_matrix(subject.cases)
    for column, label in enumerate(task.labels):
        mine = numbers[:, :, column]
        known = ~np.isnan(truths[:, column]) & ~np.isnan(mine).any(axis=0)
        truth, values, who = truths[known, column], mine[:, known], patients[known]
        if is_mask:
            measures = mean_of_folds_mae(truth, list(values), np.zeros(len(who)), patients=who)
            measures = [replace(measure, name="dice") for measure in measures]
        else:
            contest = contest_of(subject.trained.recipe, task)
            measures = contest.measure(truth, list(values), np.zeros(len(who)), patients=who)
        yield label, truth, values, who, [replace(one, label=label) for one in measures]

"""The chain: prepare -> train -> predict -> evaluate -> report, each step leaving files to open."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from medtl.data.reader import ImageReader
from medtl.errors import MedtlError, RunError
from medtl.losses.adversarial import AdversarialTraining
from medtl.networks.capacity import capacity
from medtl.prediction.likeness import training_profile
from medtl.prediction.mask_writer import sink_of
from medtl.prediction.sink import Evaluated
from medtl.preprocess.feature_scaler import FeatureScaler
from medtl.recipe.schema import Recipe
from medtl.run import record
from medtl.run.build import (
    build_cache,
    build_network,
    build_objective,
    build_options,
    build_stages,
    build_surgery,
)
from medtl.run.files import RunFiles, portable
from medtl.run.folder import Run
from medtl.run.learning.teacher import Teachers, find_teachers
from medtl.run.learning.unlabelled import Unlabelled, find_unlabelled
from medtl.run.prepare import Prepared, prepare, read_study
from medtl.run.use.mending import keep_recalibrations
from medtl.storage.atomic import write_json
from medtl.training import fit as loop
from medtl.training.callbacks import (
    Callback,
    csv_listener,
    mlflow_listener,
    tensorboard_listener,
)
from medtl.training.checkpoint import join_checkpoints
from medtl.training.layers import Layers
from medtl.training.options import Training, WatchedMetric
from medtl.training.runtime import Runtime, explained_failures, refuse_lost_processes
from medtl.types import Manifest, Progress, silent

if TYPE_CHECKING:
    from medtl.networks.weights import WeightsReport

log = logging.getLogger(__name__)


def run_study(
    recipe: Recipe,
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    manifest: Manifest | None = None,
    progress: Progress = silent,
    callbacks: Sequence[Callback] = (),
    metric: WatchedMetric | None = None,
) -> Run:
    """Run the whole chain into a run folder, and return the finished run.

    Args:
        recipe: What to do.
        out: The run folder; it must not exist unless `resume`.
        resume: Go on from wherever an earlier run of this recipe stopped.
        manifest: Already split, for a fold of a study; None reads the recipe's own.
        progress: Told of decoding and predicting.
        callbacks: Told of training.
        metric: Watched by early stopping in place of the task's statistic.

    Raises:
        MedtlError: For any fault of recipe, manifest, images or training.
    """
    if helps_another():
        return _help_train(recipe, out, resume=resume, manifest=manifest, metric=metric)
    with _working_in(recipe, out, resume=resume) as run:
        prepared = prepare(recipe, run, manifest=manifest, progress=progress)
        fit(prepared, run, resume=resume, callbacks=callbacks, metric=metric)
        predict(prepared, run, progress=progress)
        keep_recalibrations(run.files.best, run.evaluate().recalibrations)
        illustrate(prepared, run, progress=progress)
        run.report()
        run.seal()
    return run


def train_study(
    recipe: Recipe,
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    progress: Progress = silent,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Do the first half of the chain. Arguments and errors as `run_study`."""
    if helps_another():
        return _help_train(recipe, out, resume=resume)
    with _working_in(recipe, out, resume=resume) as run:
        prepared = prepare(recipe, run, progress=progress)
        fit(prepared, run, resume=resume, callbacks=callbacks)
    return run


def helps_another() -> bool:
    """Tell whether a launcher started this process beside the one that owns the run folder."""
    return os.environ.get("RANK", "0") != "0"


def _help_train(
    recipe: Recipe,
    out: str | os.PathLike[str],
    *,
    resume: bool,
    manifest: Manifest | None = None,
    metric: WatchedMetric | None = None,
) -> Run:
    """Take this process's part of every batch and write nothing."""
    run = Run(out)
    with explained_failures(_demands(recipe)):
        prepared = read_study(recipe, manifest=manifest)
        for member, files in _members(prepared, run, resume=resume):
            training, _ = build_training(member, files.checkpoints, metric=metric)
            stages = build_stages(recipe, [group.name for group in training.groups])
            loop.fit(training, stages, resume=resume)
    return run


@contextmanager
def _working_in(recipe: Recipe, out: str | os.PathLike[str], *, resume: bool) -> Iterator[Run]:
    """Own a run folder while the block runs; remove a new one that says nothing of the data yet.

    Raises:
        RunError: When the folder is not free, or another process works in it.
    """
    refuse_lost_processes(Runtime(recipe.run.device, recipe.run.precision))
    is_new = not Path(out).exists()
    run = Run.start(recipe, out, resume=resume)
    with run.locked():  # before anything is removed: the folder may be another process's
        try:
            with run.logged(), explained_failures(_demands(recipe)):
                yield run
        except MedtlError:
            if is_new and not run.files.quality.exists():
                shutil.rmtree(run.path, ignore_errors=os.name == "nt")
            raise


def _demands(recipe: Recipe) -> str:
    """Name what asks for memory, for the message when there is not enough."""
    tuning = recipe.finetune
    size = " x ".join(map(str, recipe.image.shape))
    return f"batches of {tuning.batch_size} images of {size}, {recipe.run.workers} workers"


def fit(
    prepared: Prepared,
    run: Run,
    *,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    metric: WatchedMetric | None = None,
) -> None:
    """Train in stages; leaves checkpoints, `history.csv`, `layers.json`, `environment.json`.

    Raises:
        RunError: When a split is empty or the loss stops being finite.
    """
    for number, (member, files) in enumerate(_members(prepared, run, resume=resume), start=1):
        if prepared.recipe.run.members > 1:
            log.info("network %d of %d", number, prepared.recipe.run.members)
        _fit_one(member, run, files, resume=resume, callbacks=callbacks, metric=metric)
    if prepared.recipe.run.members > 1:
        _join_members(prepared.recipe, run)


def _members(prepared: Prepared, run: Run, *, resume: bool) -> Iterator[tuple[Prepared, RunFiles]]:
    """The networks that are to be trained: the study with their seeds, and where their files go."""
    recipe = prepared.recipe
    if recipe.run.members == 1:
        yield prepared, run.files
    elif not (resume and run.files.best.is_file()):
        for number in range(recipe.run.members):
            yield replace(prepared, recipe=recipe.member(number)), run.files.member(number)


def _fit_one(
    prepared: Prepared,
    run: Run,
    files: RunFiles,
    *,
    resume: bool,
    callbacks: Sequence[Callback],
    metric: WatchedMetric | None,
) -> None:
    """Train one network into its checkpoints."""
    recipe = prepared.recipe
    listeners = [*_history_listeners(recipe, run, files), *callbacks]
    given = [*recipe.given, *([] if metric is None else [f"metric: {metric.name}"])]
    files.checkpoints.mkdir(parents=True, exist_ok=True)
    training, loaded = build_training(prepared, files.checkpoints, listeners, metric)
    record.keep_learning(run.files, training.meta.get("learning"))
    for line in str(loaded).splitlines():
        log.info("weights: %s", line)
    facts = record.environment(
        run.recipe.run.seed,
        {**prepared.hashes, "weights_sha256": loaded.sha256}
        | ({"given_in_python": "; ".join(given)} if given else {}),
        precision=training.runtime.precision,
        device=training.runtime.device.type,
    )
    choices = training.runtime.choices
    log.info("computing: %s", "; ".join(str(choice) for choice in choices))
    if training.runtime.processes > 1:
        log.info("%d processes train together", training.runtime.processes)
    computing = {choice.name: choice.value for choice in choices}
    members = run.recipe.run.members
    network = {"network": describe_network(prepared, training)}
    several = {"members": members} if members > 1 else {}
    write_json(run.files.environment, {**facts, **network, **several, "computing": computing})
    start = Layers.of(training.model, training.val)
    loop.fit(training, build_stages(recipe, [g.name for g in training.groups]), resume=resume)
    write_json(files.layers, start.changed(training.model, training.val))


def _join_members(recipe: Recipe, run: Run) -> None:
    """Make one checkpoint of the best ones of all members, and remove theirs."""
    members = [run.files.member(number) for number in range(recipe.run.members)]
    if not run.files.best.is_file():
        run.files.checkpoints.mkdir(exist_ok=True)
        join_checkpoints(
            [files.best for files in members], run.files.best, portable(recipe).to_dict()
        )
    for files in members:
        shutil.rmtree(files.checkpoints, ignore_errors=True)


def describe_network(prepared: Prepared, training: Training) -> str:
    """Return parameters, operations and receptive field in one line, in mm where that is known.

    Args:
        prepared: The study, whose images say how many millimetres a pixel of the network is.
        training: Of it.
    """
    read = [r.facts for r in prepared.records if r.facts]
    known = [float(facts["unit_mm"]) for facts in read if "unit_mm" in facts]
    mm = float(np.median(known)) if len(known) > len(read) / 2 else None
    return capacity(training.model, training.train[0, 0].images.shape).words(mm)


def build_training(
    prepared: Prepared,
    folder: Path,
    callbacks: Sequence[Callback] = (),
    metric: WatchedMetric | None = None,
    *,
    rehearsal: bool = False,
) -> tuple[Training, WeightsReport]:
    """Return the training of a study, and what its initial weights were.

    Args:
        prepared: The study.
        folder: Where the checkpoints go.
        callbacks: Told of steps and epochs.
        metric: Watched in place of the task's statistic.
        rehearsal: Nothing is to be learned: a teacher is examined, and not asked, and of images
            without labels a few are read.

    Raises:
        RunError: When the training or the validation split holds fewer than two images, or there is
            no such teacher. LeakError: When a teacher, or images without labels, know test
            patients.
    """
    recipe = prepared.recipe
    parts = {name: prepared.split(name) for name in ("train", "val")}
    for name, cases in parts.items():
        if len(cases) < 2:
            raise RunError(f"the {name} split holds {len(cases)} images", expected="at least 2")
    task = prepared.task.weighted(parts["train"])
    teachers, taught = find_teachers(recipe, prepared), None
    if teachers is not None:
        shape = len(parts["train"]), task.outputs
        taught = torch.zeros(shape) if rehearsal else teachers.outputs(prepared)
    unlabelled = find_unlabelled(recipe, prepared, rehearsal=rehearsal)
    model, loaded = build_network(
        recipe, task.outputs, extra=task.inputs.width + prepared.reader.features
    )
    model.set_bias(task.head_bias(parts["train"]).tolist())
    runtime = Runtime(recipe.run.device, recipe.run.precision)
    runtime.place(model)
    samples = prepared.samples(parts["train"], seed=recipe.seed_of("augment"))
    train = samples if unlabelled is None else unlabelled.beside(samples)
    surgery = build_surgery(recipe, model, runtime.to_device(samples[0, 0].images[None]))
    if surgery is not None:
        surgery.remove_blocks(model)
    training = Training(
        model=model,
        task=task,
        train=train,
        val=prepared.samples(parts["val"]),
        can_watch=task.can_watch(parts["val"]),
        options=build_options(recipe),
        runtime=runtime,
        folder=folder,
        objective=build_objective(recipe, task, prepared.reader, taught),
        callbacks=callbacks,
        metric=metric,
        surgery=surgery,
        cache=build_cache(recipe),
        meta=_checkpoint_meta(prepared, _learning_facts(recipe, teachers or unlabelled)),
        extra=_extra_tensors(prepared.reader),
    )
    return training, loaded


def predict(prepared: Prepared, run: Run, *, progress: Progress = silent) -> None:
    """Predict validation and test cases with the best checkpoint; leaves `predictions.csv`."""
    cases, sink, trained = prepared.split("val", "test"), sink_of(prepared.task), run.trained
    scores = trained.scores(prepared.store, cases, progress)
    table = sink.predict(trained, scores, cases, prepared.reader, run.files.masks)
    sink.write(table, trained.task, run.files.predictions)


def illustrate(prepared: Prepared, run: Run, *, progress: Progress = silent) -> None:
    """Draw the test cases that are worth a look; leaves `gallery/`."""
    found, store = run.evaluation, prepared.store
    rows = {case_id: row for row, case_id in enumerate(store.case_ids)}
    study = Evaluated(
        cases={case.case_id: case for case in prepared.cases},
        reader=prepared.reader,
        unit_of=lambda case_id: store.unit(rows[case_id]),
        predictions=run.files.predictions,
        overlaps=run.files.overlaps,
        points=found.operating_points,
        worst=found.worst,
        trained=lambda: run.trained,
        gallery=run.files.gallery,
        exams=prepared.recipe.data.exam_score,
    )
    sink_of(prepared.task).illustrate(study, progress=progress)


def _learning_facts(recipe: Recipe, source: Teachers | Unlabelled | None) -> dict[str, Any] | None:
    """What the record says of how a run learns besides from its images and labels."""
    learn = recipe.finetune.learn
    if isinstance(learn, AdversarialTraining):
        return {"schema": "medtl-learning/1", "method": learn.method, **asdict(learn)}
    return None if source is None else dict(source.facts)


def _checkpoint_meta(prepared: Prepared, learning: dict[str, Any] | None) -> dict[str, Any]:
    """Return the content of a checkpoint besides the weights."""
    training = {case.case_id for case in prepared.split("train")}
    facts = [r.facts for r in prepared.records if r.case_id in training]
    return {
        "recipe": portable(prepared.recipe).to_dict(),
        "task": dict(prepared.task.to_dict()),
        "preprocessor": prepared.reader.preprocessor.to_dict(),
        "profile": training_profile(facts),
        **prepared.hashes,
        **({} if learning is None else {"learning": learning}),
    }


def _extra_tensors(reader: ImageReader) -> dict[str, torch.Tensor]:
    """Arrays that the preprocessing fitted and that a checkpoint must hold."""
    if isinstance(reader.preprocessor, FeatureScaler):
        assert reader.preprocessor.moments is not None
        return {"moments": torch.from_numpy(reader.preprocessor.moments)}
    mean = reader.preprocessor.pixel_mean
    return {} if mean is None else {"pixel_mean": torch.from_numpy(mean)}


def _history_listeners(recipe: Recipe, run: Run, files: RunFiles) -> Iterator[Callback]:
    """The files and trackers of the history that the recipe asks for."""
    yield csv_listener(files.history)
    if recipe.run.tensorboard:
        yield tensorboard_listener(files.tensorboard)
    if recipe.run.mlflow is not None:
        yield mlflow_listener(recipe.run.mlflow, run.path.name)

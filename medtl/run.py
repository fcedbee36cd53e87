"""The chain: prepare -> train -> predict -> evaluate -> report, each step leaving files to open."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from medtl import record
from medtl.build import (
    Decode,
    PairAugment,
    UnitAugment,
    build_augmenter,
    build_cache,
    build_contract,
    build_decoder,
    build_manifest,
    build_network,
    build_options,
    build_reader,
    build_stages,
    build_task,
    check_contract,
    load_trained,
)
from medtl.errors import MedtlError, RunError
from medtl.evaluate import evaluate_run
from medtl.io.atomic import write_json, write_text
from medtl.io.labels import one_value_notes
from medtl.io.leaks import check_patients, check_pixels
from medtl.io.predictions import read_predictions, write_predictions
from medtl.io.split import assign_splits, split_hash
from medtl.io.table import write_table
from medtl.io.yaml12 import dump_yaml, load_yaml
from medtl.networks.backbones import Classifier
from medtl.outputs import (
    Progress,
    draw_worst_masks,
    encode_of,
    observed,
    predict_masks,
    predict_scores,
    silent,
)
from medtl.prediction.gallery import (
    Entry,
    Reading,
    choose_cases,
    worst_readings,
    write_gallery,
)
from medtl.prediction.gradcam import grad_cam
from medtl.prediction.likeness import training_profile
from medtl.prediction.masks import write_mask_table
from medtl.prediction.table import predictions_table
from medtl.recipe import Recipe
from medtl.report.build import report_from_run
from medtl.tasks.segmentation import Structures
from medtl.tasks.task import Task
from medtl.training.batches import Samples
from medtl.training.images import (
    ImageReader,
    ReadRecord,
    check_readable,
)
from medtl.training.journal import csv_listener, mlflow_listener, tensorboard_listener
from medtl.training.loop import Trainer
from medtl.training.masked import MaskedSamples
from medtl.training.options import Watcher
from medtl.training.runtime import Runtime, explained_failures
from medtl.training.store import ImageStore
from medtl.types import Case, Manifest, OperatingPoint

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from medtl.networks.weights import WeightsReport

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A study whose images have been read and whose splits have been checked.

    Attributes:
        recipe: With absolute paths.
        manifest: With a split for every case.
        cases: The readable cases.
        task: What the targets mean.
        reader: How files become unit images, fitted on the training cases.
        store: The unit images.
        records: One per case of the manifest.
        hashes: Of recipe, manifest and split.
    """

    recipe: Recipe
    manifest: Manifest
    cases: tuple[Case, ...]
    task: Task
    reader: ImageReader
    store: ImageStore
    records: tuple[ReadRecord, ...]
    hashes: Mapping[str, str]

    def split(self, *names: str) -> list[Case]:
        """The readable cases of some splits, in file order."""
        return [case for case in self.cases if case.split in names]

    def samples(self, cases: Sequence[Case], *, seed: int | None = None) -> Samples | MaskedSamples:
        """Some cases as network input; augmented, and cut to patches, when a seed is given."""
        augmenter = build_augmenter(self.recipe) if seed is not None else None
        if self.store.masks is not None:
            return MaskedSamples(
                store=self.store,
                rows=self.store.rows(cases),
                standardise=self.reader.preprocessor.standardise,
                patch=self.recipe.image.patch if seed is not None else None,
                augment=None if augmenter is None else PairAugment(augmenter),
                seed=seed or 0,
            )
        return Samples(
            store=self.store,
            rows=self.store.rows(cases),
            targets=self.task.targets(cases),
            inputs=self.task.inputs(cases),
            standardise=self.reader.preprocessor.standardise,
            augment=None if augmenter is None else UnitAugment(augmenter),
            seed=seed or 0,
        )


def run_study(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    manifest: Manifest | None = None,
    progress: Progress = silent,
    watcher: Watcher | None = None,
) -> Path:
    """Run the whole chain into a run folder.

    Args:
        recipe: What to do.
        out: The run folder; it must not exist unless `resume`.
        resume: Go on from wherever an earlier run of this recipe stopped.
        manifest: Already split, for a fold of a study; None reads the recipe's own.
        progress: Told of decoding and predicting.
        watcher: Told of training.

    Returns:
        The path of `report.html`.

    Raises:
        MedtlError: For any fault of recipe, manifest, images or training.
    """
    if _helps_another():
        return _help_train(recipe, out, resume=resume, manifest=manifest) / "report.html"
    with _working_in(recipe, out, resume=resume):
        prepared = prepare(recipe, out, manifest=manifest, progress=progress)
        train(prepared, out, resume=resume, watcher=watcher)
        predict_run(prepared, out, progress=progress)
        evaluate_run(out)
        illustrate(prepared, out, progress=progress)
        return report_run(out)


def train_study(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    progress: Progress = silent,
    watcher: Watcher | None = None,
) -> Path:
    """Do the first half of the chain; return the best checkpoint. Arguments as `run_study`."""
    best = Path("checkpoints", "best.safetensors")
    if _helps_another():
        return _help_train(recipe, out, resume=resume) / best
    with _working_in(recipe, out, resume=resume):
        prepared = prepare(recipe, out, progress=progress)
        train(prepared, out, resume=resume, watcher=watcher)
    return out / best


def _helps_another() -> bool:
    """Whether a launcher started this process beside the one that owns the run folder."""
    return os.environ.get("RANK", "0") != "0"


def _help_train(
    recipe: Recipe, out: Path, *, resume: bool, manifest: Manifest | None = None
) -> Path:
    """Take this process's part of every batch, write nothing, and return the run folder."""
    trainer, _ = build_trainer(
        read_study(recipe, manifest=manifest), out / "checkpoints", Watcher()
    )
    trainer.fit(build_stages(recipe, [group.name for group in trainer.groups]), resume=resume)
    return out


@contextmanager
def _working_in(recipe: Recipe, out: Path, *, resume: bool) -> Iterator[None]:
    """Own a run folder while the block runs; remove a new one that says nothing of the data yet.

    Raises:
        RunError: When the folder is not free, or another process works in it.
    """
    Runtime(recipe.run.device, recipe.run.precision)  # refuses what this machine lacks
    is_new = not out.exists()
    claim(recipe, out, resume=resume)
    with record.locked(out):  # before anything is removed: the folder may be another process's
        try:
            with record.logged(out), explained_failures(_demands(recipe)):
                yield
        except MedtlError:
            if is_new and not (out / "data_quality.json").exists():
                shutil.rmtree(out)
            raise


def _demands(recipe: Recipe) -> str:
    """What of a recipe asks for memory, for the message when there is not enough."""
    image, tuning = recipe.image, recipe.finetune
    shape = image.patch or (image.size, image.size)
    size = " x ".join(str(side) for side in shape)
    return f"batches of {tuning.batch_size} images of {size}, {recipe.run.workers} workers"


def prepare(
    recipe: Recipe,
    out: Path,
    *,
    manifest: Manifest | None = None,
    decode: Decode | None = None,
    progress: Progress = silent,
) -> Prepared:
    """Read the study into a run folder that `claim` has opened, and write down who is in it.

    Raises:
        ManifestError: For faults of the manifest; LeakError for a patient or pixels in two splits.
        RunError: When too many images are unreadable, or a run to go on with had another split.
    """
    (out / "cache").mkdir(exist_ok=True)
    units = out / "cache" / "units"
    prepared = read_study(recipe, manifest=manifest, file=units, decode=decode, progress=progress)
    refuse_other_manifest(out, prepared.manifest)
    quality = record.data_quality(prepared.manifest.cases, prepared.records)
    write_json(out / "data_quality.json", quality)
    check_readable(prepared.records, recipe.data.max_unreadable)
    _write_study(prepared, out)
    log.info("%d of %d images are readable", len(prepared.cases), len(prepared.records))
    return prepared


def read_study(
    recipe: Recipe,
    *,
    manifest: Manifest | None = None,
    file: Path | None = None,
    decode: Decode | None = None,
    progress: Progress = silent,
) -> Prepared:
    """Read manifest and images; check labels, splits and leaks. Writes nothing but `file`.

    Args:
        recipe: After the first pass of `check`.
        manifest: Already split, for a fold of a study; None reads the recipe's own.
        file: Where to memory-map the unit images; None keeps them in memory.
        decode: Reads the images, None as the recipe says; a study's runs share what it returns.
        progress: Told of reading.

    Raises:
        ManifestError: For faults of the manifest; LeakError for a patient or pixels in two splits.
    """
    is_split = manifest is not None
    manifest = manifest or build_manifest(recipe)
    task = build_task(recipe, manifest.cases)
    if not is_split:
        spec, strata = recipe.data.split, task.strata(manifest.cases)
        seed = recipe.seed_of("split")
        manifest = assign_splits(manifest, strata, fractions=spec.fractions, seed=seed)
    check_patients(manifest)
    reader = build_reader(recipe, build_contract(recipe), manifest.root)
    check_contract(recipe, reader)
    store, records = (decode or build_decoder(recipe))(
        manifest.cases,
        reader,
        encode=encode_of(task),
        file=file,
        progress=lambda done, total: progress("Reading images", done, total),
    )
    if store.masks is not None:
        task = observed(task, store)
    notes = check_pixels({r.case_id: r.sha256 for r in records if not r.cause}, manifest)
    notes = (*notes, *one_value_notes(manifest.cases, recipe.data.targets))
    readable = set(store.case_ids)
    cases = tuple(case for case in manifest.cases if case.case_id in readable)
    return Prepared(
        recipe=recipe,
        manifest=replace(manifest, notes=(*manifest.notes, *notes)),
        cases=cases,
        task=task,
        reader=fit_reader(reader, store, [c for c in cases if c.split == "train"]),
        store=store,
        records=tuple(records),
        hashes={
            "recipe_sha256": portable(recipe).fingerprint,
            "manifest_sha256": manifest.sha256,
            "split_sha256": split_hash(manifest),
        },
    )


def claim(recipe: Recipe, out: Path, *, resume: bool) -> None:
    """Make the run folder, or check that an existing one belongs to this recipe.

    Raises:
        RunError: When the folder exists without `resume`, or holds another recipe's run.
    """
    stored = portable(recipe).to_dict()
    path = out / "recipe.yaml"
    refuse_existing(out, resume=resume)
    if resume and path.is_file() and load_yaml(path) != stored:
        raise RunError(
            "the folder holds a run of another recipe",
            where=str(out),
            fix="Resume with the recipe and overrides it was started with, or choose another --out",
        )
    try:
        (out / "checkpoints").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"the folder cannot be made: {error.strerror}",
            where=str(out),
            fix="Choose an --out that may be written",
        ) from error
    write_text(path, dump_yaml(stored))


def refuse_other_manifest(out: Path, manifest: Manifest) -> None:
    """Refuse to go on when the manifest has changed: a case of training could be tested on.

    Args:
        out: A run folder, or a folder in which no run was started.
        manifest: With a split for every case.

    Raises:
        RunError: When the folder's study had other rows or was split otherwise.
    """
    path = out / "cohort.json"
    if not path.is_file():
        return
    started = json.loads(path.read_text("utf-8"))
    if (started["manifest_sha256"], started["split_hash"]) != (
        manifest.sha256,
        split_hash(manifest),
    ):
        raise RunError(
            "the manifest or its split has changed since this run was started",
            where=str(out),
            fix="Restore the manifest, or start again with another --out",
        )


def refuse_existing(out: Path, *, resume: bool) -> None:
    """Refuse to write into a folder that holds something, unless a run in it is to go on.

    Raises:
        RunError: When `out` is a file, or holds files and `resume` is not asked for.
    """
    if out.exists() and not out.is_dir():
        raise RunError("this is a file", where=str(out), fix="Choose another --out")
    if not resume and out.exists() and any(out.iterdir()):
        raise RunError(
            "the folder exists and is not empty",
            where=str(out),
            fix="Add --resume to go on with it, or choose another --out",
        )


def portable(recipe: Recipe) -> Recipe:
    """The recipe without the folders of this machine: a path can name a person."""
    data = recipe.data.model_copy(update={"manifest": Path(recipe.data.manifest).name})
    weights = recipe.model.weights
    if weights.path is not None:
        weights = weights.model_copy(update={"path": Path(weights.path).name})
    model = recipe.model.model_copy(update={"weights": weights})
    return recipe.model_copy(update={"data": data, "model": model})


def fit_reader(reader: ImageReader, store: ImageStore, train: Sequence[Case]) -> ImageReader:
    """Fit what the preprocessing learns from the training images (a pixel mean)."""
    units = (store.unit(int(row)) for row in store.rows(train))
    return replace(reader, preprocessor=reader.preprocessor.fit(units))


def train(
    prepared: Prepared, out: Path, *, resume: bool = False, watcher: Watcher | None = None
) -> None:
    """Train in stages; leaves `checkpoints/best.safetensors`, `history.csv`, `environment.json`.

    Raises:
        RunError: When a split is empty or the loss stops being finite.
    """
    recipe = prepared.recipe
    listening = _listening(recipe, out, watcher or Watcher())
    trainer, loaded = build_trainer(prepared, out / "checkpoints", listening)
    for line in str(loaded).splitlines():
        log.info("weights: %s", line)
    facts = record.environment(
        recipe.run.seed,
        {**prepared.hashes, "weights_sha256": loaded.sha256},
        precision=trainer.runtime.precision,
        device=trainer.runtime.device.type,
    )
    choices = trainer.runtime.choices
    log.info("computing: %s", "; ".join(str(choice) for choice in choices))
    computing = {choice.name: choice.value for choice in choices}
    write_json(out / "environment.json", {**facts, "computing": computing})
    names = [group.name for group in trainer.groups]
    trainer.fit(build_stages(recipe, names), resume=resume)


def build_trainer(
    prepared: Prepared, folder: Path, watcher: Watcher
) -> tuple[Trainer, WeightsReport]:
    """Return the trainer of a study, and what its initial weights were.

    Raises:
        RunError: When the training or the validation split holds fewer than two images.
    """
    recipe = prepared.recipe
    parts = {name: prepared.split(name) for name in ("train", "val")}
    for name, cases in parts.items():
        if len(cases) < 2:
            raise RunError(f"the {name} split holds {len(cases)} images", expected="at least 2")
    task = prepared.task.weighted(parts["train"])
    model, loaded = build_network(recipe, task.outputs, extra=task.extra)
    model.set_bias(task.head_bias(parts["train"]).tolist())
    trainer = Trainer(
        model=model,
        task=task,
        train=prepared.samples(parts["train"], seed=recipe.seed_of("augment")),
        val=prepared.samples(parts["val"]),
        can_watch=task.can_watch(parts["val"]),
        options=build_options(recipe),
        runtime=Runtime(recipe.run.device, recipe.run.precision),
        folder=folder,
        meta=_checkpoint_meta(prepared),
        extra=_extra_tensors(prepared.reader),
        watcher=watcher,
        cache=build_cache(recipe),
    )
    return trainer, loaded


def predict_run(prepared: Prepared, out: Path, *, progress: Progress = silent) -> None:
    """Predict validation and test cases with the best checkpoint; leaves `predictions.csv`."""
    trained = load_trained(out / "checkpoints" / "best.safetensors")
    cases = prepared.split("val", "test")
    samples = prepared.samples(cases)
    if isinstance(samples, MaskedSamples):
        rows = predict_masks(trained, samples, cases, prepared.reader, out, progress=progress)
        write_mask_table(rows, cast(Structures, trained.task), out / "predictions.csv")
        return
    scores = predict_scores(trained, samples, progress=progress)
    table = predictions_table(trained.task, cases, scores, strata=prepared.recipe.data.strata)
    write_predictions(table, out / "predictions.csv")


def illustrate(prepared: Prepared, out: Path, *, progress: Progress = silent) -> None:
    """Draw the most wrong and the least certain test cases; leaves `gallery/`."""
    if prepared.store.masks is not None:
        draw_worst_masks(out, {case.case_id: case for case in prepared.cases}, prepared.reader)
        return
    metrics = json.loads((out / "metrics.json").read_text("utf-8"))
    points = [
        OperatingPoint(**{**point, "threshold": float(point["threshold"])})
        for point in metrics["operating_points"]
    ]
    entries: list[Entry | Reading] = [
        *choose_cases(read_predictions(out / "predictions.csv"), points),
        *worst_readings(metrics["worst"]),
    ]
    trained = load_trained(out / "checkpoints" / "best.safetensors")
    rows = {case_id: row for row, case_id in enumerate(prepared.store.case_ids)}
    cases = {case.case_id: case for case in prepared.cases}
    drawn = 0

    def heat_of(case_id: str, label: str) -> NDArray[np.float32]:
        nonlocal drawn
        drawn += 1
        progress("Drawing cases", drawn, len(entries))
        unit = prepared.store.unit(rows[case_id])
        image = torch.from_numpy(prepared.reader.preprocessor.standardise(unit))[None]
        extra = torch.from_numpy(trained.task.inputs([cases[case_id]]))
        model = cast(Classifier, trained.model)
        return grad_cam(model, image, lambda out: trained.task.explain(out, label), extra)

    write_gallery(
        out / "gallery",
        entries,
        unit_of=lambda case_id: prepared.store.unit(rows[case_id]),
        heat_of=heat_of,
    )


def report_run(out: Path) -> Path:
    """Render `report.html` from the files of a run folder and seal the folder with checksums."""
    path = report_from_run(out)
    shutil.rmtree(out / "cache", ignore_errors=True)
    record.write_checksums(out)
    return path


def _checkpoint_meta(prepared: Prepared) -> dict[str, Any]:
    """What a checkpoint says besides the weights."""
    training = {case.case_id for case in prepared.split("train")}
    facts = [r.facts for r in prepared.records if r.case_id in training]
    return {
        "recipe": portable(prepared.recipe).to_dict(),
        "task": dict(prepared.task.to_dict()),
        "preprocessor": prepared.reader.preprocessor.to_dict(),
        "profile": training_profile(facts),
        **prepared.hashes,
    }


def _extra_tensors(reader: ImageReader) -> dict[str, torch.Tensor]:
    """Arrays that the preprocessing fitted and that a checkpoint must hold."""
    mean = reader.preprocessor.pixel_mean
    return {} if mean is None else {"pixel_mean": torch.from_numpy(mean)}


def _listening(recipe: Recipe, out: Path, watcher: Watcher) -> Watcher:
    """The watcher, and the files and trackers that the recipe asks for."""
    listeners = [csv_listener(out / "history.csv")]
    if recipe.run.tensorboard:
        listeners.append(tensorboard_listener(out / "tensorboard"))
    if recipe.run.mlflow is not None:
        listeners.append(mlflow_listener(recipe.run.mlflow, out.name))

    def on_epoch(history: Sequence[Mapping[str, Any]]) -> None:
        for listen in (*listeners, watcher.on_epoch):
            listen(history)

    return Watcher(on_step=watcher.on_step, on_epoch=on_epoch)


def _write_study(prepared: Prepared, out: Path) -> None:
    """Write `manifest.csv` and `cohort.json`."""
    hashes = {r.case_id: r.sha256 for r in prepared.records}
    rows = [
        {
            "case_id": case.case_id,
            "patient_id": case.patient_id,
            "split": case.split,
            **case.targets,
            **case.strata,
            "content_sha256": hashes[case.case_id],
        }
        for case in prepared.manifest.cases
    ]
    write_table(rows, out / "manifest.csv")
    unreadable = sum(bool(r.cause) for r in prepared.records)
    facts = record.cohort(
        prepared.cases,
        prepared.task,
        excluded={"unreadable": unreadable} if unreadable else {},
        manifest_sha256=prepared.hashes["manifest_sha256"],
        split_hash=prepared.hashes["split_sha256"],
        notes=prepared.manifest.notes,
    )
    write_json(out / "cohort.json", facts)

"""The second pass of `medtl check`: build everything, try a batch, show plan, time and memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from medtl.cases.paths import path_below
from medtl.data.reader import ImageReader, ReadRecord, check_readable
from medtl.data.store import ImageStore
from medtl.networks.freeze import plan_table
from medtl.preprocess.safety import safety
from medtl.preprocess.sheet import contact_sheet
from medtl.recipe.schema import Recipe
from medtl.report.page.learned import lessons
from medtl.run.build import Decode, build_augmenter, build_decoder, build_stages
from medtl.run.chain import build_training, describe_network
from medtl.run.prepare import Prepared, read_study
from medtl.run.words.expectation import describe_expectations
from medtl.training.activations import plan_cache
from medtl.training.fit import rehearse
from medtl.training.options import Training
from medtl.training.stage import enter_stage, recalibrated_groups
from medtl.types import SPLITS, Case, Progress, Stage, silent

SAMPLED = 400
"""Images that are read for a plan: of so many, 2 % unreadable ones are seen with p > 0.999."""

SHEET_CASES = 6
"""Images on the contact sheet."""


def describe_plan(
    recipe: Recipe,
    *,
    sheet: Path | None = None,
    every_image: bool = False,
    progress: Progress = silent,
) -> Iterator[str]:
    """Yield what a run of this recipe would do, line by line, after trying a batch of each stage.

    Args:
        recipe: After the first pass.
        sheet: PNG to draw what the network will see to, or None.
        every_image: Read all images, not `SAMPLED` of them.
        progress: Told of reading.

    Raises:
        LeakError: For a patient or identical pixels in two splits.
        RunError: When too many images are unreadable, or a split is empty.
    """
    decode = build_decoder(recipe)
    decode = decode if every_image else partial(_decode_some, decode, recipe.seed_of("order"))
    prepared = read_study(recipe, decode=decode, progress=progress)
    read = [record for record in prepared.records if record.sha256 or record.cause]
    check_readable(read, recipe.data.max_unreadable)
    if len(read) < len(prepared.records):
        yield (
            f"{len(read)} of {len(prepared.records)} images were read, drawn by chance; faults of "
            "the others, and equal pixels in two splits, are found by --all or by the run"
        )
    yield from _describe_cohort(prepared)
    yield from _describe_augmentation(recipe)
    if sheet is not None:
        _draw(prepared, sheet)
        yield f"Contact sheet: {sheet}"
    with TemporaryDirectory() as folder:
        training, loaded = build_training(prepared, Path(folder), rehearsal=True)
        yield from str(loaded).splitlines()
        yield from lessons(training.meta.get("learning"))
        yield f"Network: {describe_network(prepared, training)}"
        yield from _describe_surgery(training)
        total = 0.0
        for stage in build_stages(recipe, [group.name for group in training.groups]):
            optimizer = enter_stage(training, stage)
            yield from _describe_stage(training, stage, optimizer)
            plan = plan_cache(training, stage)
            yield f"  frozen layers: {plan}"
            total += rehearse(training, stage, optimizer, None if isinstance(plan, str) else plan)
    if training.cache is not None:
        limit_gb = training.cache.limit_bytes / 2**30
        yield f"Cache: at most {limit_gb:.1f} GB in {training.cache.folder}; safe to delete"
    yield from (f"Computing: {choice}" for choice in training.runtime.choices)
    device, members = training.runtime.device.type, recipe.run.members
    if members > 1:
        total *= members
        yield f"Networks: {members}, one after another; their outputs are averaged"
    yield f"Training takes at most {_duration(total)} on {device}, less when it stops early."
    yield f"Peak memory so far: {_peak_memory():.1f} GB."


def _decode_some(
    decode: Decode, seed: int, cases: Sequence[Case], reader: ImageReader, **options: Any
) -> tuple[ImageStore, list[ReadRecord]]:
    """Read a sample of many images; the others stand in the store with the pixels of one of them.

    So the plan has all cases with their truths, and its two batches have images. Images with masks
    are all read: what they show is counted.
    """
    if options.get("encode") is not None or len(cases) <= SAMPLED:
        return decode(cases, reader, **options)
    drawn = np.sort(np.random.default_rng(seed).choice(len(cases), SAMPLED, replace=False))
    store, records = decode([cases[int(i)] for i in drawn], reader, **options)
    found = {record.case_id: record for record in records}
    own = {case_id: row for row, case_id in enumerate(store.case_ids)}
    all_records = [found.get(c.case_id, ReadRecord(c.case_id)) for c in cases]
    if not own:
        return store, all_records
    shown = [c.case_id for c in cases if c.case_id in own or c.case_id not in found]
    rows = [own.get(case_id, number % len(own)) for number, case_id in enumerate(shown)]
    units = replace(
        store.units,
        shapes=tuple(store.units.shapes[row] for row in rows),
        places=tuple(store.units.places[row] for row in rows),
    )
    return ImageStore(tuple(shown), units), all_records


def _describe_cohort(prepared: Prepared) -> Iterator[str]:
    """Images, patients and labels of each split, and what was noticed."""
    for name in SPLITS:
        cases = prepared.split(name)
        patients = len({case.patient_id for case in cases})
        said = prepared.task.summary(cases)
        yield f"{name:>5}: {len(cases)} images of {patients} patients; {said}"
    yield from describe_expectations(prepared)
    yield from prepared.manifest.notes
    root, images = prepared.manifest.root, {c.case_id: c.image for c in prepared.manifest.cases}
    causes = [
        f"  {path_below(images[r.case_id], root)} ({r.case_id}): {r.cause}"
        for r in prepared.records
        if r.cause
    ]
    if causes:
        yield f"{len(causes)} images cannot be read and would be left out:"
        yield from causes[:10]


def _describe_augmentation(recipe: Recipe) -> Iterator[str]:
    """Each transform with its verdict for this modality."""
    for name in () if recipe.finetune.mix is None else recipe.finetune.mix.asked:
        verdict = safety(name, recipe.image.modality)
        yield f"Batches are mixed, {name}: {verdict.level}, {verdict.reason}"
    policy = build_augmenter(recipe)
    if policy is None:
        yield "Augmentation: none"
        return
    yield f"Augmentation for {recipe.image.modality}:"
    for row in policy.describe():
        use = f"used, {row.strength}" if row.used else "not used"
        yield f"  {row.transform:<18} {row.level:<8} {use:<28} {row.reason}"


def _describe_stage(
    training: Training, stage: Stage, optimizer: torch.optim.Optimizer
) -> Iterator[str]:
    """Yield the layers that train in a stage, their rates and batch-norm policies."""
    rates: dict[str, float] = {}
    for group in optimizer.param_groups:
        name, _, kind = group["name"].partition("/")
        if kind != "gamma" or name not in rates:
            rates[name] = group["peak_lr"]
    surgery = training.surgery
    rows = plan_table(
        training.model,
        training.groups,
        rates=rates,
        gamma={} if surgery is None else surgery.actions,
        recalibrated=recalibrated_groups(training.groups, stage),
    )
    yield f"Stage {stage.name}: {stage.epochs} epochs, {stage.schedule}"
    for row in rows:
        state = "frozen" if row.rate is None else f"trains at {row.rate:.2g}"
        norms = f"batch norm {row.batch_norm}" if row.batch_norm else ""
        line = f"  {row.group:<12} {row.parameters:>10,} parameters  {state:<18} {norms:<24}"
        yield f"{line} {row.gamma}".rstrip()


def _describe_surgery(training: Training) -> Iterator[str]:
    """Yield the residual blocks that zero-gamma treats, and their gammas before."""
    surgery = training.surgery
    if surgery is None:
        return
    yield f"Zero-gamma, before stage {surgery.plan.when}:".replace("stage start", "the first stage")
    sizes = surgery.sizes(training.model)
    for block in surgery.blocks:
        size = f"mean |gamma| {sizes[block.name]:.3g}, " if block.name in sizes else ""
        note = " (its shortcut is a layer too: the width it adds stays)" if block.shortcut else ""
        yield f"  {block.name:<18} {size}{surgery.plan}{note}"


def _draw(prepared: Prepared, path: Path) -> None:
    """Draw training images beside augmented versions of themselves."""
    read = {record.case_id for record in prepared.records if record.sha256}
    cases = [case for case in prepared.split("train") if case.case_id in read][:SHEET_CASES]
    rows = prepared.store.rows(cases)
    titled = [
        (case.case_id, prepared.store.unit(int(row))) for case, row in zip(cases, rows, strict=True)
    ]
    policy = build_augmenter(prepared.recipe)
    contact_sheet(titled, path, augment=policy, seed=prepared.recipe.run.seed)


def _duration(seconds: float) -> str:
    """Seconds as a person says them."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def _peak_memory() -> float:
    """Peak memory of this process in GB."""
    import psutil

    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):
        return float(memory.peak_wset) / 1024**3
    import resource  # Linux and macOS: psutil knows the present there, not the peak

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1024**3

"""The second pass of `medtl check`: build everything, try a batch, show plan, time and memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from medtl.data.reader import check_readable
from medtl.networks.freeze import plan_table
from medtl.preprocess.contact_sheet import contact_sheet as draw_contact_sheet
from medtl.recipe.schema import Recipe
from medtl.run.build import build_augmenter, build_stages
from medtl.run.chain import build_training
from medtl.run.prepare import Prepared, read_study
from medtl.run.words.expectation import describe_expectations
from medtl.training.activations import plan_cache
from medtl.training.fit import rehearse
from medtl.training.options import Training
from medtl.training.stage import enter_stage, recalibrated_groups
from medtl.types import SPLITS, Progress, Stage, silent

SHEET_CASES = 6
"""Images on the contact sheet."""


def describe_plan(
    recipe: Recipe, *, sheet: Path | None = None, progress: Progress = silent
) -> Iterator[str]:
    """Yield what a run of this recipe would do, line by line, after trying a batch of each stage.

    Args:
        recipe: After the first pass.
        sheet: PNG to draw what the network will see to, or None.
        progress: Told of reading.

    Raises:
        LeakError: For a patient or identical pixels in two splits.
        RunError: When too many images are unreadable, or a split is empty.
    """
    prepared = read_study(recipe, progress=progress)
    check_readable(prepared.records, recipe.data.max_unreadable)
    yield from _describe_cohort(prepared)
    yield from _describe_augmentation(recipe)
    if sheet is not None:
        _draw(prepared, sheet)
        yield f"Contact sheet: {sheet}"
    with TemporaryDirectory() as folder:
        training, loaded = build_training(prepared, Path(folder))
        yield from str(loaded).splitlines()
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


def _describe_cohort(prepared: Prepared) -> Iterator[str]:
    """Images, patients and labels of each split, and what was noticed."""
    for name in SPLITS:
        cases = prepared.split(name)
        counts = "; ".join(
            f"{label} {tally.get('positive', 0)}+ {tally.get('negative', 0)}-"
            for label, tally in prepared.task.tally(cases).items()
        )
        patients = len({case.patient_id for case in cases})
        yield f"{name:>5}: {len(cases)} images of {patients} patients; {counts}"
    yield from describe_expectations(prepared)
    yield from prepared.manifest.notes
    causes = [f"  {r.case_id}: {r.cause}" for r in prepared.records if r.cause]
    if causes:
        yield f"{len(causes)} images cannot be read and would be left out:"
        yield from causes[:10]


def _describe_augmentation(recipe: Recipe) -> Iterator[str]:
    """Each transform with its verdict for this modality."""
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
    cases = prepared.split("train")[:SHEET_CASES]
    rows = prepared.store.rows(cases)
    titled = [
        (case.case_id, prepared.store.unit(int(row))) for case, row in zip(cases, rows, strict=True)
    ]
    policy = build_augmenter(prepared.recipe)
    draw_contact_sheet(titled, path, augment=policy, seed=prepared.recipe.run.seed)


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

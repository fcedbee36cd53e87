"""One run of a study: the chain without what a study does not need, and the row it leaves."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import medtl
from medtl.data.reader import Encode, ImageReader, ReadRecord
from medtl.recipe.schema import Recipe
from medtl.run.build import Decode, build_decoder, build_manifest, build_task
from medtl.run.chain import fit, illustrate, predict
from medtl.run.files import portable
from medtl.run.folder import Run
from medtl.run.prepare import Prepared, prepare, split_cases
from medtl.studies.rows import measures_row
from medtl.training.checkpoint import load_checkpoint, without_prefix
from medtl.types import Case, Manifest, Progress, silent

if TYPE_CHECKING:
    from medtl.data.store import ImageStore
    from medtl.training.callbacks import Callback

LOSSES = ("train_loss", "val_loss", "val_metric")
"""Columns of the history that a row keeps of the best epoch."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SharedImages:
    """Images that the runs of one worker share: read once for every way of preparing them.

    Attributes:
        folder: Where they are memory-mapped while the worker lives; None keeps them in memory.
    """

    folder: Path | None = None
    _read: dict[object, tuple[ImageStore, list[ReadRecord]]] = field(default_factory=dict)

    def decoder(self, recipe: Recipe) -> Decode:
        """Return what reads the images of a run: as the recipe says, but once."""
        return partial(self._decode, build_decoder(recipe))

    def _decode(
        self,
        decode: Decode,
        cases: Sequence[Case],
        reader: ImageReader,
        *,
        encode: Encode | None = None,
        file: Path | None = None,  # noqa: ARG002 - a run's own file; the images are in `folder`
        progress: Any = None,
    ) -> tuple[ImageStore, list[ReadRecord]]:
        """Return what `decode` returns, read now or before."""
        key = (repr(reader), tuple((c.case_id, c.image, c.frame, c.mask) for c in cases))
        if key not in self._read:
            own = None
            if self.folder is not None:
                self.folder.mkdir(parents=True, exist_ok=True)
                own = self.folder / f"units-{len(self._read)}"
            self._read[key] = decode(cases, reader, encode=encode, file=own, progress=progress)
        return self._read[key]


@contextmanager
def shared_images(out: Path) -> Iterator[SharedImages]:
    """Give the images that the runs of one worker share, on disk in the study while it lives.

    Args:
        out: The study folder.
    """
    folder = out / "cache" / str(os.getpid())
    try:
        yield SharedImages(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class SingleRun:
    """One run of a study, as a function: call it with a recipe and a folder.

    Attributes:
        images: Shared between the runs.
        own_split: Split the patients anew by the recipe's split seed, whatever the manifest says.
        keep_checkpoints: Keep the best model of a finished run.
        reports: Draw the gallery and render the report, as `medtl run` does.
        tests: Predict and evaluate; without it the test cases are not looked at.
        progress, callbacks: Told of the work.
    """

    images: SharedImages = field(default_factory=SharedImages)
    own_split: bool = True
    keep_checkpoints: bool = False
    reports: bool = False
    tests: bool = True
    progress: Progress = silent
    callbacks: Sequence[Callback] = ()

    def __call__(self, recipe: Recipe, folder: Path) -> dict[str, Any]:
        """Run the chain in a folder that the caller has locked; return the measures.

        Raises:
            MedtlError: For any fault of recipe, manifest, images or training.
        """
        _drop_other_run(recipe, folder)
        run = Run.start(recipe, folder, resume=True)
        with run.logged():
            manifest = split_anew(recipe) if self.own_split else None
            prepared = prepare(
                recipe,
                run,
                manifest=manifest,
                decode=self.images.decoder(recipe),
                progress=self.progress,
            )
            forget_peak()
            fit(prepared, run, resume=True, callbacks=self.callbacks)
            row = {
                "network": run.environment["network"],
                "peak_gb": peak_gb(),
                "split_sha256": prepared.hashes["split_sha256"],
                "train_patients": len({case.patient_id for case in prepared.split("train")}),
                **(self._test(prepared, run) if self.tests else {}),
                **training_row(run.history_rows),
                **gamma_row(run.checkpoint),
                "medtl": medtl.__version__,
                "commit": _commit(),
            }
        self._tidy(run)
        return row

    def _test(self, prepared: Prepared, run: Run) -> dict[str, float]:
        """Predict, evaluate and, if asked for, report; return the test measures."""
        predict(prepared, run, progress=self.progress)
        metrics = run.evaluate().to_json()
        if self.reports:
            illustrate(prepared, run, progress=self.progress)
            run.report()
        return measures_row(metrics)

    def _tidy(self, run: Run) -> None:
        """Remove what only a running run needs, and seal the folder."""
        for checkpoint in run.files.checkpoints.iterdir():
            if not (self.keep_checkpoints and checkpoint == run.files.best):
                checkpoint.unlink()
        run.seal()


def split_anew(recipe: Recipe) -> Manifest:
    """Return the recipe's manifest, split by patient with the recipe's split seed.

    A split that the manifest gives is not used: a study that has one split per seed cannot.

    Raises:
        ManifestError: For faults of the manifest, or too few patients.
    """
    manifest = build_manifest(recipe)
    cases = tuple(replace(case, split="") for case in manifest.cases)
    return split_cases(recipe, replace(manifest, cases=cases), build_task(recipe, cases))


def training_row(history: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Return what a row says of the training of a run: its best epoch, and what it took.

    Args:
        history: Of the run, one row per epoch.
    """
    best = ([row for row in history if row["best"] == "1"] or history)[-1]
    return {
        **{key: float(best[key]) if best[key] else None for key in LOSSES},
        "best_stage": best["stage"],
        "best_epoch": int(best["epoch"]),
        "epochs": len(history),
        "seconds": round(sum(float(row["seconds"]) for row in history), 1),
    }


PEAK, PEAK_RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
"""Where Linux tells this process its peak memory, and where it forgets the peak before now."""


def forget_peak() -> None:
    """Let the peak of memory begin anew: on the GPU, and of the process where Linux allows it."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        PEAK_RESET.write_text("5")


def peak_gb() -> float | None:
    """Return the peak of memory since `forget_peak`, of the GPU where there is one.

    On the CPU it is that of the process, its images included; None where only the peak of all runs
    together is known.
    """
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**30, 2)
    if not (PEAK.is_file() and os.access(PEAK_RESET, os.W_OK)):
        return None
    lines = dict(line.split(":", 1) for line in PEAK.read_text().splitlines() if ":" in line)
    return round(int(lines["VmHWM"].split()[0]) / 2**20, 2)


def gamma_row(checkpoint: Path) -> dict[str, float]:
    """Return the mean |gamma| that zero-gamma found and that the best model has; {} without it.

    Args:
        checkpoint: `best.safetensors` of a run.
    """
    tensors, _ = load_checkpoint(checkpoint)
    before = without_prefix("gamma", tensors)
    gammas = [name for name in before if not name.endswith(".bias")]
    if not gammas:
        return {}
    sizes = {"gamma_before": before, "gamma_after": without_prefix("model", tensors)}
    return {
        column: float(torch.cat([found[name].flatten() for name in gammas]).abs().mean())
        for column, found in sizes.items()
    }


def _drop_other_run(recipe: Recipe, folder: Path) -> None:
    """Empty the folder of an unfinished run whose recipe an earlier medtl resolved otherwise."""
    run = Run(folder)
    if not run.files.recipe.is_file() or run.stored_recipe == portable(recipe).to_dict():
        return
    log.warning("%s was begun by another version; it starts again", folder.name)
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry != run.files.lock:
            entry.unlink()


def _commit() -> str:
    """The commit of medtl's checkout, with a + when it has changes; "" where there is none."""
    where = Path(medtl.__file__).parent
    command = ["git", "-C", str(where), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()

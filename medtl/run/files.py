"""Places of the parts of a run: no other module spells the names of its files."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import date
from pathlib import Path

from medtl.errors import RunError
from medtl.losses.distillation import Distillation
from medtl.losses.mixmatch import FromUnlabelled
from medtl.recipe.schema import Recipe

UNSEALED = frozenset({"checksums.json", ".lock", "log.txt", "tensorboard", "cache"})
"""Files and folders without a checksum: they may still grow, or hold no result."""


class RunFiles:
    """The paths of a run folder, whether or not something is there yet.

    Args:
        folder: The run folder. An evaluated table and an average of models leave a folder with
            some of the same files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recipe = folder / "recipe.yaml"
        self.environment = folder / "environment.json"
        self.manifest = folder / "manifest.csv"
        self.cohort = folder / "cohort.json"
        self.quality = folder / "data_quality.json"
        self.history = folder / "history.csv"
        self.layers = folder / "layers.json"
        self.learning = folder / "learning.json"
        self.sanity = folder / "sanity.json"
        self.shortcuts = folder / "shortcuts.json"
        self.curve = folder / "learning_curve.json"
        self.forgetting = folder / "forgetting.json"
        self.stress = folder / "stress"
        self.checkpoints = folder / "checkpoints"
        self.best = self.checkpoints / "best.safetensors"
        self.predictions = folder / "predictions.csv"
        self.masks = folder / "masks"
        self.overlaps = folder / "overlap.csv"
        self.metrics = folder / "metrics.json"
        self.gallery = folder / "gallery"
        self.gallery_list = self.gallery / "gallery.json"
        self.report = folder / "report.html"
        self.log = folder / "log.txt"
        self.lock = folder / ".lock"
        self.checksums = folder / "checksums.json"
        self.tensorboard = folder / "tensorboard"
        self.cache = folder / "cache"
        self.portable = folder / "onnx"
        self.contract = folder / "contract.json"

    def member(self, number: int) -> RunFiles:
        """The files of one network of several; the history of number 0 is the run's."""
        files = RunFiles(self.folder / "members" / str(number))
        if number == 0:
            files.history, files.tensorboard = self.history, self.tensorboard
            files.layers = self.layers
        return files


def refuse_existing(out: Path, *, resume: bool) -> None:
    """Refuse to write into a folder that holds something, unless a run in it is to go on.

    Raises:
        RunError: When `out` is a file, or holds files and `resume` is not asked for.
    """
    if out.exists() and not out.is_dir():
        raise RunError("this is a file", where=str(out), fix="Choose another --out")
    files = RunFiles(out)
    # Windows keeps the lock while it is held, also where a run was taken back.
    before = {files.lock, files.sanity}
    if not resume and out.exists() and not before.issuperset(out.iterdir()):
        raise RunError(
            "the folder exists and is not empty",
            where=str(out),
            fix="Add --resume to go on with it, or choose another --out",
        )


def portable(recipe: Recipe) -> Recipe:
    """Return the recipe without the folders of this machine: a path can name a person."""
    data = recipe.data.model_copy(update={"manifest": Path(recipe.data.manifest).name})
    weights = recipe.model.weights
    if weights.path is not None:
        weights = weights.model_copy(update={"path": Path(weights.path).name})
    model = recipe.model.model_copy(update={"weights": weights})
    tuning, learn = recipe.finetune, recipe.finetune.learn
    if isinstance(learn, Distillation):
        learn = replace(learn, teacher=Path(learn.teacher).name)
    elif isinstance(learn, FromUnlabelled):
        learn = replace(learn, unlabelled=Path(learn.unlabelled).name)
    if learn is not None:
        tuning = tuning.model_copy(update={"learn": learn})
    return recipe.model_copy(update={"data": data, "model": model, "finetune": tuning})


def fresh_folder(name: str) -> Path:
    """Return `runs/DATE-NAME`, or with a number where there is something already.

    Args:
        name: Of the recipe.
    """
    stem = f"{date.today().isoformat()}-{name}"
    endings = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    return next(p for end in endings if not (p := Path("runs", f"{stem}{end}")).exists())


def unfinished_runs(name: str) -> list[Path]:
    """Return the folders that `fresh_folder` named and whose runs did not reach their end."""
    found = sorted(path for path in Path("runs").glob(f"*-{name}*") if path.is_dir())
    return [path for path in found if not RunFiles(path).checksums.is_file()]

"""A run folder before anything is in it: whose it is, and what may go on in it."""

from __future__ import annotations

import json
from pathlib import Path

from medtl.cases.splits import split_hash
from medtl.errors import RunError
from medtl.recipe.schema import Recipe
from medtl.storage.atomic import write_text
from medtl.storage.yaml import dump_yaml, load_yaml
from medtl.types import Manifest


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

"""A study as an object: its recipe, checked against its data, and what can be done with it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from html import escape
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtl.cases.columns import Columns
from medtl.cases.manifest import manifest_columns, read_manifest
from medtl.errors import ManifestError, extras_named
from medtl.recipe.overrides import change, read_data
from medtl.recipe.schema import Recipe, with_objects
from medtl.run.check import check_recipe
from medtl.run.folder import Run
from medtl.storage.atomic import sha256_file
from medtl.storage.tables import write_table
from medtl.types import Manifest, Progress, silent

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from medtl.training.callbacks import Callback
    from medtl.training.options import WatchedMetric

PathText = str | PathLike[str]


class Study:
    """A question put to some images: what is learned from which cases, and how.

    Every fault of the recipe and the manifest is said when the study is made.

    Args:
        recipe: A YAML file, its content as a mapping, or a `Recipe`. None takes the defaults, and
            asks for `manifest`, `target` and `modality`.
        manifest: In place of the recipe's: a CSV or Parquet file, or a table with the columns
            `image` and `patient_id` and what is to be learned. A table is kept as
            `ROOT/medtl-HASH.csv`, because a run refers to it.
        target: In place of the recipe's: one column, or several findings.
        modality: In place of the recipe's: "cxr", "hand", "ct", "mr", "fundus", "derm", ...
        root: Folder that the paths of a table start from and lie below.
        changes: "section.key" -> value: `**{"image.size": 128}`.

    Attributes:
        recipe: Every default written out.

    Raises:
        RecipeError: With every fault of schema, files, columns, labels, leaks and names.
        ManifestError: When an image of a table lies outside `root`.

    Example:
        >>> import pandas as pd
        >>> from tempfile import TemporaryDirectory
        >>> films = pd.DataFrame({"image": [f"{n}.png" for n in range(6)], "patient_id": range(6)})
        >>> films["effusion"] = [0, 1] * 3
        >>> with TemporaryDirectory() as folder:
        ...     for name in films["image"]:
        ...         Path(folder, name).touch()
        ...     Study(manifest=films, target="effusion", modality="cxr", root=folder)
        Study('Is effusion present?', cxr 224 x 224, tf_efficientnet_lite0)
    """

    def __init__(
        self,
        recipe: PathText | Mapping[str, Any] | Recipe | None = None,
        *,
        manifest: PathText | pd.DataFrame | None = None,
        target: str | Sequence[str] | None = None,
        modality: str | None = None,
        root: PathText = ".",
        **changes: Any,
    ) -> None:
        data, where = _plain(recipe)
        if manifest is not None and not isinstance(manifest, str | PathLike):
            files = ("image", changes.get("data.mask", "mask"))
            manifest = _stored(manifest, Path(root), files)
        told = {
            "data.manifest": None if manifest is None else str(manifest),
            "data.target": target if target is None or isinstance(target, str) else list(target),
            "image.modality": modality,
        }
        for key, value in told.items():
            if value is not None:
                change(data, key, value)
        if isinstance(target, str):
            data.setdefault("study", {"question": f"Is {target} present?"})
        for key, value in changes.items():
            change(data, key, value)
        self.recipe = check_recipe(data, where=where)

    @property
    def manifest(self) -> Manifest:
        """The cases, as the study reads them."""
        path, data = self.recipe.data.manifest, dict(self.recipe.data)
        return read_manifest(path, Columns.of(data).described_by(manifest_columns(path)))

    @extras_named()
    def check(
        self,
        *,
        sheet: PathText | None = None,
        every_image: bool = False,
        progress: Progress = silent,
    ) -> Plan:
        """Read some images, try a batch of every stage, and return what a run would do.

        Args:
            sheet: PNG to draw what the network will see to.
            every_image: Read all images, not a sample of 400.
            progress: Told of reading.

        Raises:
            LeakError: For a patient or identical pixels in two splits.
            RunError: When too many images are unreadable, or a split is empty.
        """
        from medtl.run.plan import describe_plan

        sheet = None if sheet is None else Path(sheet)
        lines = describe_plan(self.recipe, sheet=sheet, every_image=every_image, progress=progress)
        return Plan(tuple(lines))

    @extras_named()
    def fit(
        self,
        out: PathText,
        *,
        resume: bool = True,
        loss: Callable[..., Any] | None = None,
        backbone: Callable[[], nn.Module] | None = None,
        metric: WatchedMetric | Callable[[Any, Any], float] | None = None,
        callbacks: Sequence[Callback] = (),
        progress: Progress = silent,
    ) -> Run:
        """Train, predict, evaluate and report into a run folder, and return the run.

        Args:
            out: The run folder. A finished run of this study in it is returned as it is.
            resume: Go on from wherever an earlier run of this study in `out` stopped; False
                refuses a folder that holds anything.
            loss: In place of the recipe's; see `medtl.recipe.schema.with_objects`.
            backbone: Called for a network from images to pooled features; see there.
            metric: Watched by early stopping in place of the task's own statistic: a
                `WatchedMetric`, or a function of targets and scores of which more is better.
            callbacks: Told of every step and epoch.
            progress: Told of reading and predicting.

        Raises:
            MedtlError: For any fault of recipe, manifest, images or training.
        """
        from medtl.run.chain import run_study
        from medtl.training.options import WatchedMetric

        if metric is not None and not isinstance(metric, WatchedMetric):
            metric = WatchedMetric(metric, getattr(metric, "__name__", "own metric"))
        recipe = with_objects(self.recipe, loss=loss, backbone=backbone)
        is_there = resume and Path(out).exists()
        earlier = Run(out)
        if is_there and earlier.is_finished:
            earlier = Run.start(recipe, out, resume=True)  # refuses the run of another recipe
            if earlier.cohort["manifest_sha256"] == sha256_file(Path(recipe.data.manifest)):
                return earlier
        return run_study(
            recipe, out, resume=is_there, metric=metric, callbacks=callbacks, progress=progress
        )

    def __repr__(self) -> str:
        image = self.recipe.image
        size = " x ".join(map(str, image.shape))
        question = self.recipe.study.question[:200]
        return f"Study({question!r}, {image.modality} {size}, {self.recipe.model.backbone})"


@dataclass(frozen=True, repr=False)
class Plan:
    """What a run would do.

    Attributes:
        lines: Cases, layers that train, time and memory, as `medtl check` shows them.
    """

    lines: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def __repr__(self) -> str:
        return f"Plan({len(self.lines)} lines: print it)"

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def _plain(recipe: PathText | Mapping[str, Any] | Recipe | None) -> tuple[dict[str, Any], str]:
    """The plain data of a recipe, which may be changed, and its name in messages."""
    if isinstance(recipe, str | PathLike):
        return read_data(Path(recipe)), Path(recipe).name
    data = recipe.to_dict() if isinstance(recipe, Recipe) else deepcopy(dict(recipe or {}))
    return data, "recipe"


def _stored(table: pd.DataFrame, root: Path, files: Sequence[str]) -> Path:
    """Write a table as a manifest at the top of its images, named by its content.

    Args:
        table: The cases.
        root: Folder that all files are below.
        files: Columns that hold paths.
    """

    def written(column: str, cell: Any) -> Any:
        if isinstance(cell, bool):
            return int(cell)
        if column in files and Path(cell).is_absolute():
            return _below(Path(cell), root.resolve())
        return cell

    cells = table.astype(object).where(table.notna(), "")
    rows = [
        {str(column): written(str(column), cell) for column, cell in row.items()}
        for row in cells.to_dict("records")
    ]
    digest = hashlib.sha256(repr(rows).encode()).hexdigest()
    path = root / f"medtl-{digest[:8]}.csv"
    write_table(rows, path)
    return path


def _below(path: Path, root: Path) -> str:
    """The path as it starts from the root.

    Raises:
        ManifestError: When it lies elsewhere.
    """
    if not path.resolve().is_relative_to(root):
        raise ManifestError(
            "an image lies outside the folder of the study",
            expected=f"paths below {root.name or root}",
            fix="State Study(root=...), a folder that all images are below",
        )
    return path.resolve().relative_to(root).as_posix()

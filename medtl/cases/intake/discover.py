"""Data for `medtl init`: a table, a tree with a folder per class, or DICOM files.

What cannot be known is not guessed: it becomes a note that asks the user.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Literal

from medtl.cases.case_rows import split_named
from medtl.cases.intake.masks_beside import masks_among, masks_line
from medtl.cases.intake.scan import names_in_path, scan_dicom
from medtl.cases.pseudonyms import load_salt, remember
from medtl.errors import ManifestError
from medtl.io.archive import archive_error, is_archive
from medtl.storage.spreadsheets import TABLES
from medtl.storage.tables import raise_together, read_columns, read_table

RASTERS = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff"})
TARGET_NAMES = ("target", "label", "class", "diagnosis", "finding", "boneage_months")
"""Columns of a table that are taken for the target, in this order."""

MAX_CLASSES = 50
"""More folders than this are patients, not classes."""

NO_PATIENTS = (
    "which images are of the same patient is not known: add a column patient_id, or state "
    "`one_image_per_patient: true` if no patient has two images"
)
"""What is said of images of which nothing says whose they are."""


@dataclass(frozen=True)
class Discovery:
    """The data that were found, as the start of a manifest and a recipe.

    Attributes:
        kind: "folders" (a folder per class), "csv" (a table) or "dicom" (headers were scanned).
        rows: Rows of the manifest; paths are relative to `root`.
        root: Folder the manifest belongs in.
        target: Column that looks like the target, None when the user has to name it.
        classes: Its values, sorted; () when there are too many to be classes.
        notes: What was decided, what was skipped, and what the user has to state.
        table: The file that the rows are from, None when they have to be written.
        called: For each row, what the image is called by, to join a sheet.
    """

    kind: Literal["folders", "csv", "dicom"]
    rows: tuple[dict[str, str], ...]
    root: Path
    target: str | None
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    table: Path | None = None
    called: tuple[Mapping[str, Sequence[str]], ...] = field(repr=False, default=())


def discover(
    data: str | PathLike[str],
    *,
    has_sheet: bool = False,
    salt: bytes | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Discovery:
    """Return what a table, or a folder of images, holds.

    Args:
        data: A CSV or Parquet file, or a folder with one CSV manifest in it; a folder of PNG, JPEG
            or TIFF files below one folder per class, these perhaps below folders for train, val
            and test; or a folder with DICOM files anywhere below it.
        has_sheet: A sheet with the labels will be joined: folders need not be classes, and tables
            among the images are not taken for the manifest.
        salt: Key of the pseudonyms of a DICOM scan. By default this user's own, and then the local
            table of `pseudonym.whois` learns the ids.
        progress: Called with files done and files in all while headers are read.

    Raises:
        ManifestError: If nothing of that kind is there, or the table is faulty.
    """
    data = Path(data)
    if data.is_file():
        return _from_table(data)
    if not data.is_dir():
        raise ManifestError(
            "there is no such file or folder", where=data.name, fix="Check the path"
        )
    unusable: list[str] = []
    if not has_sheet:
        here = sorted(path for path in data.iterdir() if path.suffix.lower() in (".csv", ".tsv"))
        tables = [path for path in here if _is_manifest(path, unusable)]
        if len(tables) == 1:
            return _from_table(tables[0])
        if tables:
            listed = ", ".join(path.name for path in tables[:8])
            unusable.append(
                f"{len(tables)} tables have a column 'image' ({listed}): give one of them"
            )
    try:
        images = _images_below(data, has_sheet, salt, progress)
    except ManifestError as error:
        if not unusable:
            raise
        raise ManifestError(
            f"{'; '.join(unusable)}; and without it: {error.found}",
            expected=error.expected,
            where=error.where,
            fix=error.fix,
        ) from error
    return replace(images, notes=(*(f"{reason}: not used" for reason in unusable), *images.notes))


def _images_below(
    data: Path,
    has_sheet: bool,
    salt: bytes | None,
    progress: Callable[[int, int], None] | None,
) -> Discovery:
    """The images below a folder: class folders of pictures, or DICOM files, whichever are more."""
    below = (path.relative_to(data) for path in data.rglob("*") if path.is_file())
    files = sorted(path for path in below if not any(part[0] == "." for part in path.parts))
    rasters = [path for path in files if path.suffix.lower() in RASTERS]
    masks = masks_among(rasters)
    rasters = [path for path in rasters if path not in masks]
    num_dicom = sum(_is_dicom(data / path) for path in files) if rasters else 0
    if len(rasters) > num_dicom:
        num_others = len(files) - len(rasters) - len(masks)
        make = _from_pictures if has_sheet else _from_class_folders
        if not masks:
            return make(data, rasters, num_others)
        try:
            found = make(data, rasters, num_others)
        except ManifestError as error:
            raise ManifestError(
                f"{error.found}; {masks_line(masks)}",
                expected=error.expected,
                where=error.where,
                fix=f"{error.fix}; to learn masks, a CSV with image, patient_id and mask",
            ) from error
        return replace(found, notes=(*found.notes, masks_line(masks)))
    if any(path.name.lower().endswith((".nii", ".nii.gz")) for path in files):
        raise ManifestError(
            "NIfTI files need a table that says which mask or label belongs to which image",
            where=data.name,
            fix="Write a CSV with the columns image, patient_id and the mask or label",
        )
    return _from_dicom(data, salt, progress)


def _is_manifest(path: Path, unusable: list[str]) -> bool:
    """Return whether a table has the one column that a manifest must have; if not, say why."""
    try:
        columns = read_columns(path)
    except ManifestError as error:
        unusable.append(f"{path.name} cannot be used ({error.found})")
        return False
    if "image" not in columns:
        listed = ", ".join(columns[:12])
        unusable.append(f"{path.name} has no column 'image' (found {listed})")
    return "image" in columns


def _is_dicom(path: Path) -> bool:
    """Return whether a file begins as DICOM files do."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _from_pictures(root: Path, images: Sequence[Path], num_others: int) -> Discovery:
    """Return pictures that a sheet will be joined to."""
    rows = tuple({"image": path.as_posix()} for path in images)
    notes = [NO_PATIENTS]
    if num_others:
        notes.append(f"{num_others} files are no PNG, JPEG or TIFF and were left out")
    called = tuple(names_in_path(row["image"]) for row in rows)
    return Discovery("folders", rows, root, None, (), tuple(notes), called=called)


def _from_table(path: Path) -> Discovery:
    """Return what a table holds; its rows are kept as they are."""
    if is_archive(path):
        raise archive_error(path)
    if path.suffix.lower() not in TABLES:
        raise ManifestError("not a table", expected="CSV or Parquet", where=path.name)
    table = read_table(path)
    raise_together(table.faults, path.name)
    rows = tuple(dict(zip(table.columns, row, strict=True)) for row in table.rows)
    named = [
        name for name in TARGET_NAMES if name in table.columns and not _holds_paths(rows, name)
    ]
    notes = list(table.notes)
    if "image" not in table.columns:
        notes.append("no column is named 'image': rename the one with the paths")
    if "patient_id" not in table.columns:
        notes.append(NO_PATIENTS)
    if not named:
        notes.append("no column is named like a target: state `data.target` in the recipe")
    target = named[0] if named else None
    return Discovery("csv", rows, path.parent, target, _classes(rows, target), tuple(notes), path)


def _holds_paths(rows: Sequence[Mapping[str, str]], column: str) -> bool:
    """Return whether the first cell that is filled is a path: a mask, not a label."""
    return "/" in next((row[column] for row in rows if row[column]), "")


def _from_class_folders(root: Path, images: Sequence[Path], num_others: int) -> Discovery:
    """Return the images below one folder per class."""
    rows = []
    stray = Counter[str]()
    for path in images:
        folders = path.parts[:-1]
        split = split_named(folders[0]) if len(folders) > 1 else ""
        names = folders[1:] if split else folders
        if len(names) != 1:
            stray["directly in the folder" if not names else "in folders below a class"] += 1
            continue
        rows.append({"image": path.as_posix(), "label": names[0], "split": split})
    classes = tuple(sorted({row["label"] for row in rows}))
    if not 2 <= len(classes) <= MAX_CLASSES or len(rows) < 2 * len(classes) or stray:
        found = [f"{count} images {place}" for place, count in sorted(stray.items())]
        raise ManifestError(
            ", ".join([f"{len(classes)} folders with {len(rows)} images", *found]),
            expected=f"2 to {MAX_CLASSES} folders, one per class, that hold nothing but its images",
            where=root.name,
            fix="Sort the images into class folders, or write a CSV with image and label",
        )
    splits = {row["split"] for row in rows}
    if "" in splits and splits != {""}:
        raise ManifestError(
            "some classes lie below folders like train and test, others do not",
            where=root.name,
            fix="Move all below them, or none",
        )
    if splits == {""}:
        rows = [{"image": row["image"], "label": row["label"]} for row in rows]
    notes = [NO_PATIENTS]
    if num_others:
        notes.append(f"{num_others} files are no PNG, JPEG or TIFF and were left out")
    return Discovery("folders", tuple(rows), root, "label", classes, tuple(notes))


def _from_dicom(
    root: Path, salt: bytes | None, progress: Callable[[int, int], None] | None
) -> Discovery:
    """Return the DICOM images below a folder, labelled by folder where folders are classes."""
    scan = scan_dicom(root, salt=load_salt() if salt is None else salt, progress=progress)
    if salt is None:
        remember(scan.identities.items())
    if not scan.rows:
        raise ManifestError(
            "no images",
            expected="a CSV file, class folders of PNG, JPEG or TIFF files, or DICOM files",
            where=root.name,
            fix="Check the path",
        )
    certain = [row["image"] not in scan.disputed for row in scan.rows]
    if not any(certain):
        raise ManifestError(
            f"each of the {len(scan.rows)} images shares its SOP Instance UID with a different one",
            expected="one object under one UID",
            where=root.name,
            fix="Ask for the files again, with UIDs; or take them as they are: `medtl manifest "
            "scan`, add the labels, and give the table to init",
        )
    notes = [f"{count} files left out: {cause}" for cause, count in _causes(scan.skipped)]
    notes += scan.notes
    if scan.disputed:
        notes.append(
            f"{len(scan.disputed)} images left out: which of those under one UID is the right one "
            "cannot be known (`medtl manifest scan` lists them all)"
        )
    rows = tuple(row for row, taken in zip(scan.rows, certain, strict=True) if taken)
    called = tuple(names for names, taken in zip(scan.called, certain, strict=True) if taken)
    num_nameless = sum(not row["patient_id"] for row in rows)
    if num_nameless:
        notes.append(f"{num_nameless} images have no patient id in their header: fill the column")
    classes = _class_folders(rows)
    if classes:
        rows = tuple({**row, "label": row["image"].split("/")[0]} for row in rows)
        notes.append("the folders hold several patients each and are taken for classes")
    else:
        notes.append("DICOM headers hold no labels: add a column and state it as `data.target`")
    target = "label" if classes else None
    return Discovery("dicom", rows, root, target, classes, tuple(notes), called=called)


def _class_folders(rows: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """Return the first-level folders if they are classes: each holds two patients or more.

    Folders named by patient hold one each, and their names must not become labels.
    """
    patients: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        folder, _, rest = row["image"].partition("/")
        if not rest:
            return ()
        patients[folder].add(row["patient_id"])
    are_classes = 2 <= len(patients) <= MAX_CLASSES
    if not are_classes or any(len(one) < 2 for one in patients.values()):
        return ()
    return tuple(sorted(patients))


def _classes(rows: Sequence[Mapping[str, str]], target: str | None) -> tuple[str, ...]:
    """Return the values of the target column, () when they are too many to be classes."""
    values = {row[target] for row in rows} - {""} if target else set()
    return tuple(sorted(values)) if len(values) <= MAX_CLASSES else ()


def _causes(skipped: Sequence[tuple[str, str]]) -> list[tuple[str, int]]:
    """Return each cause for leaving files out, with how many, the commonest first."""
    return Counter(cause for _, cause in skipped).most_common()

"""From a tree of DICOM files to the rows of a manifest, by headers alone.

A row holds pseudonyms and allow-listed facts: no names, dates, ids or free text. Files that are no
images are named with the cause, relative to the tree.
"""

from __future__ import annotations

import hmac
import multiprocessing
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from itertools import chain
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Literal

from pydicom.dataset import Dataset

from medtl.cases.pseudonyms import Kind, band_age, pseudonym
from medtl.cases.spellings import alike_id, is_no_id
from medtl.errors import ImageError, ManifestError, RunError
from medtl.io.dicom.file import heard_warnings, open_dicom
from medtl.io.dicom.header import facts, pixel_format, value
from medtl.io.dicom.sop_classes import NO_IMAGES, object_flags, object_name
from medtl.storage.atomic import sha256_file

COLUMNS = {
    "modality": "modality",
    "view": "view_position",
    "body_part": "body_part",
    "laterality": "laterality",
    "age": "patient_age_years",
    "sex": "patient_sex",
    "rows": "rows",
    "columns": "columns",
    "frames": "number_of_frames",
    "photometric": "photometric_interpretation",
    "bits_stored": "bits_stored",
    "spacing": "pixel_spacing",
    "manufacturer": "manufacturer",
    "model": "model_name",
    "burned_in": "burned_in_annotation",
}
"""Column of the manifest -> fact of `dicom_header.facts`, after image and the pseudonyms."""

_IDS: dict[str, tuple[Kind, str]] = {
    "patient_id": ("patient", "PatientID"),
    "study_id": ("study", "StudyInstanceUID"),
    "series_id": ("series", "SeriesInstanceUID"),
}
"""Column -> kind of pseudonym and the element it hides."""

_CALLED = {
    "accession number": "AccessionNumber",
    "study UID": "StudyInstanceUID",
    "series UID": "SeriesInstanceUID",
    "image UID": "SOPInstanceUID",
    "patient id": "PatientID",
}
"""What a sheet may call an image by -> its element."""

_UID = "image UID"
_ALIKE = "patient id, spelled alike"
_CHUNK = 64
"""Files that a worker process reads between two reports of progress."""

_FILES_PER_WORKER = 2000
"""A process starts in the time of 1500 headers (1.9 s of CPU against 1.3 ms each, measured)."""


SHOWN_SKIPPED = 20
"""Files without a row that are named on the command line."""


@dataclass(frozen=True)
class ScanResult:
    """The contents of a tree of DICOM files.

    Attributes:
        rows: Column -> text, one mapping per image or series, sorted by path.
        skipped: (path relative to the tree, cause) of every file or folder without a row.
        identities: Pseudonym -> original id, for `pseudonym.remember` and nothing else.
        called: For each row of an image, kind of id -> what it is called by in headers and paths,
            to join a sheet; never written anywhere.
        notes: What is odd about the rows together.
        disputed: Paths of different files that have one SOP Instance UID: which of them is the
            object cannot be known.
    """

    rows: tuple[dict[str, str], ...]
    skipped: tuple[tuple[str, str], ...]
    identities: dict[str, str] = field(repr=False)
    called: tuple[dict[str, list[str]], ...] = field(repr=False, default=())
    notes: tuple[str, ...] = ()
    disputed: frozenset[str] = frozenset()

    @property
    def left_out(self) -> list[str]:
        """What was skipped, for a person to read: the first `SHOWN_SKIPPED` with their causes."""
        lines = [f"left out {name}: {cause}" for name, cause in self.skipped[:SHOWN_SKIPPED]]
        if len(self.skipped) > SHOWN_SKIPPED:
            lines.append(f"and {len(self.skipped) - SHOWN_SKIPPED} more files were left out")
        return lines


@dataclass(frozen=True)
class _File:
    """The yield of one file: a row with its original ids, or a cause why there is none."""

    path: str
    row: dict[str, str]
    ids: dict[str, str]
    cause: str = ""


@dataclass(frozen=True)
class ScannedFile:
    """The yield of one file as it may be written down.

    Attributes:
        path: Relative to the scanned folder.
        row: Facts, by the columns of `COLUMNS`.
        names: Column -> pseudonym; under `_UID` a keyed hash that tells objects apart, under
            `_ALIKE` one that two spellings of a patient's id share.
        cause: Why there is no row.
    """

    path: str
    row: Mapping[str, str]
    names: Mapping[str, str]
    cause: str = ""


def scan_dicom(
    root: str | PathLike[str],
    *,
    per: Literal["image", "series"] = "image",
    salt: bytes,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ScanResult:
    """Return one manifest row per image or series below a folder, read from headers.

    Args:
        root: The folder. Links are not followed.
        per: "image": a row per file. "series": a row per series, which is a folder, or a file
            where the series has only one.
        salt: Key of the pseudonyms.
        workers: Processes; by default one per core, fewer where they would not pay. With 1, this
            process reads alone.
        progress: Called with files done and files in all.

    Raises:
        ManifestError: If the folder is missing.
        RunError: If a worker process is killed.
    """
    root = Path(root)
    paths, links = list_files(root)
    identities, called = dict[str, str](), dict[str, dict[str, list[str]]]()
    files: list[ScannedFile] = []
    for file in _read_all(root, paths, workers):
        files.append(_named(file, salt, identities))
        called[file.path] = {} if file.cause else _called(file)
        if progress is not None:
            progress(len(files), len(paths))
    found = assemble(root, files, per=per)
    return replace(
        found,
        skipped=tuple(sorted([*links, *found.skipped])),
        identities=identities,
        called=tuple(called.get(row["image"], {}) for row in found.rows),
    )


def scan_share(
    root: Path,
    paths: Sequence[str],
    *,
    salt: bytes,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[ScannedFile], dict[str, str]]:
    """Return what some files of a folder gave, without any original id, and what the names hide.

    Args:
        root: The folder.
        paths: Of `list_files`.
        salt: Key of the pseudonyms; the same for all shares.
        progress: Called with files done and files in all.

    Raises:
        RunError: If a worker process is killed.
    """
    identities: dict[str, str] = {}
    files = []
    for file in _read_all(root, paths, None):
        files.append(_named(file, salt, identities))
        if progress is not None:
            progress(len(files), len(paths))
    return files, identities


def assemble(
    root: Path, files: Sequence[ScannedFile], *, per: Literal["image", "series"]
) -> ScanResult:
    """Return the rows of all files of a folder together, sorted by path.

    Args:
        root: The folder.
        files: Of every path of `list_files`, in its order.
        per: As for `scan_dicom`.
    """
    skipped = [(file.path, file.cause) for file in files if file.cause]
    images = [file for file in files if not file.cause]
    notes, disputed = _shared_uids(root, images)
    notes += _respelled_patients(images)
    if per == "series":
        images, refused = _series(images)
        skipped += refused
    rows = [
        {"image": file.path, **{column: file.names[column] for column in _IDS}, **file.row}
        for file in images
    ]
    return ScanResult(tuple(rows), tuple(sorted(skipped)), {}, notes=notes, disputed=disputed)


def _shared_uids(
    root: Path, images: Sequence[ScannedFile]
) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return notes about files that have one SOP Instance UID, and those that are no copies.

    Reference:
        PS3.3 C.12.1: the UID names one object; another under the same one is an error of whoever
        wrote or anonymised it, and which is the right one cannot be known.
    """
    groups: dict[str, list[ScannedFile]] = defaultdict(list)
    for image in images:
        groups[image.names[_UID]].append(image)
    shared = [group for uid, group in groups.items() if uid and len(group) > 1]
    copies: list[list[ScannedFile]] = []
    different: list[list[ScannedFile]] = []
    people = 0
    for group in shared:
        is_copy = len({sha256_file(root / image.path) for image in group}) == 1
        (copies if is_copy else different).append(group)
        people += len({image.names["patient_id"] for image in group}) > 1
    notes = []
    if different:
        first = ", ".join(image.path for image in different[0][:2])
        notes.append(
            f"{len(different)} SOP Instance UIDs stand in several different files each ({first}"
            f"{', ...' if len(images) > 2 else ''}): different objects under one UID"
            + (f", {people} of them in several patients" if people else "")
        )
    if copies:
        first = ", ".join(image.path for image in copies[0][:2])
        notes.append(f"{len(copies)} images are there more than once, to the byte ({first})")
    return tuple(notes), frozenset(image.path for group in different for image in group)


def _respelled_patients(images: Sequence[ScannedFile]) -> tuple[str, ...]:
    """Return a note about patients whose id has two spellings, which pseudonyms no longer show."""
    groups: dict[str, dict[str, str]] = defaultdict(dict)
    for image in images:
        groups[image.names.get(_ALIKE, "")].setdefault(image.names["patient_id"], image.path)
    apart = [paths for alike, paths in groups.items() if alike and len(paths) > 1]
    if not apart:
        return ()
    first = ", ".join([*apart[0].values()][:2])
    return (
        f"{len(apart)} patient ids stand in several spellings (12 and 0012, P3 and p3; {first}): "
        "counted as different patients. If they are one, give their rows one patient_id",
    )


def list_files(root: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the files below a folder, sorted, and the links, which are not followed.

    Raises:
        ManifestError: If the folder is missing.
    """
    if not root.is_dir():
        raise ManifestError("there is no such folder", where=root.name, fix="Check the path")
    paths: list[str] = []
    links: list[tuple[str, str]] = []
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        for name in [*folders, *names]:
            relative = (here / name).relative_to(root).as_posix()
            if (here / name).is_symlink():
                links.append((relative, "a link, which a scan does not follow"))
            elif name in names:
                paths.append(relative)
    return sorted(paths), links


def _read_all(root: Path, paths: Sequence[str], workers: int | None) -> Iterator[_File]:
    """Yield what each file gave, in order, read by several processes where that pays.

    Parsing a header is Python code, so that threads would wait for each other.
    """
    if workers is None:
        workers = min(os.cpu_count() or 1, len(paths) // _FILES_PER_WORKER)
    read = partial(_read_some, str(root))
    chunks = (paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK))
    if workers <= 1:
        yield from chain.from_iterable(map(read, chunks))
        return
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield from chain.from_iterable(pool.map(read, chunks))
    except BrokenProcessPool as error:
        raise RunError(
            "a process that reads headers was killed, perhaps for want of memory",
            fix="Scan again with fewer workers",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _read_some(root: str, paths: Sequence[str]) -> list[_File]:
    """Return what some files gave; runs in a worker process."""
    return [_read_one(Path(root), path) for path in paths]


def _read_one(root: Path, relative: str) -> _File:
    """Return what one file gave. No cause quotes the value of an element."""
    try:
        with heard_warnings(), open_dicom(root / relative) as file:
            dataset = file.dataset
            if file.pixels is None:
                return _File(relative, {}, {}, _without_pixels(dataset))
            if no_image := set(object_flags(dataset)) & set(NO_IMAGES.values()):
                return _File(relative, {}, {}, no_image.pop().replace("_", " "))
            pixel_format(dataset, file.pixels.kind)  # an image that can be laid out
            known, _ = facts(file)
            row = {column: known.get(fact, "") for column, fact in COLUMNS.items()}
            side = _text(dataset, "Laterality")
            is_code = len(side) == 1 and side.isalpha()
            row["laterality"] = row["laterality"] or (side if is_code else "")
            row["age"] = band_age(row["age"] or _age_from_dates(dataset))
            row["spacing"] = row["spacing"] or known.get("imager_pixel_spacing", "")
            ids = {name: _text(dataset, key) for name, (_, key) in _IDS.items()}
            ids |= {kind: _text(dataset, key) for kind, key in _CALLED.items()}
    except ImageError as error:
        return _File(relative, {}, {}, error.found)
    return _File(relative, row, ids)


def _called(file: _File) -> dict[str, list[str]]:
    """What an image is called by in its header and its path."""
    ids = {kind: [file.ids[kind]] for kind in _CALLED if file.ids.get(kind)}
    return ids | names_in_path(file.path)


def names_in_path(path: str) -> dict[str, list[str]]:
    """Return what a relative path calls an image by.

    >>> names_in_path("Meier/CT/0007.dcm")
    {'file name': ['0007.dcm', '0007'], 'path': ['Meier/CT/0007.dcm'], 'folder': ['Meier', 'CT']}
    """
    parts = PurePosixPath(path)
    names = {"file name": list(dict.fromkeys((parts.name, parts.stem))), "path": [path]}
    return names | ({"folder": [*parts.parent.parts]} if parts.parent.parts else {})


def _without_pixels(dataset: Dataset) -> str:
    """Return why a DICOM file without pixels is none for a manifest, by its SOP class."""
    if value(dataset, "DirectoryRecordSequence") is not None:
        return "a DICOMDIR, an index of images and no image itself"
    name = object_name(dataset)
    return f"no pixel data ({name})" if name else "no pixel data"


def _text(dataset: Dataset, keyword: str) -> str:
    """Return an element as text, "" when it is absent or cannot be read."""
    try:
        found = value(dataset, keyword)
    except ImageError:
        return ""
    return "" if found is None else str(found).strip()


def _age_from_dates(dataset: Dataset) -> str:
    """Return the age in whole years at the study, "" if a date is missing. No date is kept."""
    try:
        birth, study = (
            date.fromisoformat(_text(dataset, keyword))
            for keyword in ("PatientBirthDate", "StudyDate")
        )
    except ValueError:
        return ""
    years = study.year - birth.year - ((study.month, study.day) < (birth.month, birth.day))
    return str(years) if years >= 0 else ""


def _series(
    images: Iterable[ScannedFile],
) -> tuple[list[ScannedFile], list[tuple[str, str]]]:
    """Return one entry per series, and the series that no single path names."""
    groups: dict[tuple[str, str], list[ScannedFile]] = defaultdict(list)
    for image in images:
        folder = str(PurePosixPath(image.path).parent)
        groups[folder, image.names["series_id"]].append(image)
    num_series = Counter(folder for folder, _ in groups)
    found, refused = [], []
    for (folder, _), files in groups.items():
        path = files[0].path if len(files) == 1 else folder
        if len(files) > 1 and num_series[folder] > 1:
            cause = f"{len(files)} files of a series that shares its folder with others"
            refused.append((folder, cause))
        elif path == ".":
            refused.append((path, "a series that lies in the scanned folder itself"))
        else:
            row = {**files[0].row, "images": str(len(files))}
            found.append(replace(files[0], path=path, row=row))
    return sorted(found, key=lambda file: file.path), refused


def _named(file: _File, salt: bytes, identities: dict[str, str]) -> ScannedFile:
    """Return a file with pseudonyms for its ids, "" for a missing one; keep what they hide."""
    if file.cause:
        return ScannedFile(file.path, {}, {}, file.cause)
    names: dict[str, str] = {}
    for column, (kind, _) in _IDS.items():
        original = file.ids[column]
        if column == "patient_id" and is_no_id(original):
            original = ""
        names[column] = pseudonym(kind, original, salt) if original else ""
        if original:
            identities[names[column]] = original
    patient = alike_id(file.ids["patient_id"]) if names["patient_id"] else ""
    for name, text in ((_UID, file.ids[_UID]), (_ALIKE, patient)):
        names[name] = hmac.digest(salt, text.encode(), "sha256").hex() if text else ""
    return ScannedFile(file.path, file.row, names)

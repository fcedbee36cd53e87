"""The source image of a result, decided by the decoded pixels and by nothing else.

A run folder holds pseudonyms and no paths. What it does hold is the hash of every image as the
network's input was read from it, so a result goes to the patient whose file has that very image.
Names, folders and row order decide nothing on their own: a result under the wrong patient is worse
than none.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medtl.cases.columns import Columns
from medtl.cases.leaks import content_hash
from medtl.cases.manifest import manifest_columns, read_manifest
from medtl.errors import ImageError, ManifestError
from medtl.export.source import read_source
from medtl.io.dicom.file import looks_like_dicom
from medtl.io.read import read_image

TABLES = {".csv", ".parquet"}
"""Endings of a manifest; anything else is a DICOM file or a folder."""

COLORS: tuple[Literal["grey", "rgb"], ...] = ("grey", "rgb")
"""Colours in which a run may have read its images; its hashes tell which."""

_NOBODY = b"\0" * 32
"""Salt of ids that are not looked at."""


@dataclass(frozen=True)
class Source:
    """The image that a result is about.

    Attributes:
        path: A DICOM file, or the folder of a series.
        frame: Number from 0 of the one frame that was read, None for the whole image.
    """

    path: Path
    frame: int | None = None


def find_sources(
    images: Path,
    wanted: Mapping[str, str],
    *,
    voi: bool,
    at_least: int | None = None,
    volumes: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Source], dict[str, str]]:
    """Return the source of each case, and why the other cases have none.

    Args:
        images: A manifest, a folder that is searched for DICOM files, or one file.
        wanted: Case id -> hash of its decoded image (`leaks.content_hash`).
        voi: Whether the run applied the files' own VOI LUT or window.
        at_least: What the run let JPEG 2000 be decoded at (`medtl.io.read.read_image`).
        volumes: Whether cases are volumes, so that folders are read as series.
        progress: Called with (images read, images in all).

    Raises:
        ManifestError: When `images` is not there.
    """
    cases_of: dict[str, list[str]] = defaultdict(list)
    for case_id, digest in wanted.items():
        cases_of[digest].append(case_id)
    candidates = list(_candidates(images, volumes))
    found: dict[str, list[Source]] = defaultdict(list)
    for number, candidate in enumerate(candidates, start=1):
        digest = _hash_among(cases_of, candidate, voi, at_least)
        if digest:
            found[digest].append(candidate)
        if progress is not None:
            progress(number, len(candidates))
    doubts = {digest: _doubt(found[digest], case_ids) for digest, case_ids in cases_of.items()}
    return (
        {case_id: found[digest][0] for case_id, digest in wanted.items() if not doubts[digest]},
        {case_id: doubts[digest] for case_id, digest in wanted.items() if doubts[digest]},
    )


def _doubt(found: Sequence[Source], case_ids: Sequence[str]) -> str:
    """The reason why it is not certain whose image these cases show, "" when it is."""
    if not found:
        return "no DICOM image with these pixels among the images given"
    if len(case_ids) > 1:
        return f"{len(case_ids)} cases of the run have these same pixels"
    if len(found) > 1 and len({_identity(source) for source in found}) > 1:
        return f"{len(found)} images have these same pixels; leave only the right one"
    return ""


def _identity(source: Source) -> tuple[str, ...]:
    """Identifiers that are equal for copies of one image, and only for them."""
    try:
        header = read_source(source.path)
    except ImageError:  # a folder, or an image without UIDs
        return (str(source.path),)
    return str(header.PatientID), str(header.StudyInstanceUID), str(header.SOPInstanceUID)


def _hash_among(
    hashes: Mapping[str, Sequence[str]], candidate: Source, voi: bool, at_least: int | None
) -> str:
    """The hash of an image if it is one of those asked for, else ""."""
    for color in COLORS:
        try:
            image = read_image(
                candidate.path, voi=voi, color=color, frame=candidate.frame, at_least=at_least
            )
        except ImageError:
            return ""
        digest = content_hash(image.array)
        if digest in hashes:
            return digest
    return ""


def _candidates(images: Path, volumes: bool) -> Iterator[Source]:
    """DICOM images that a result may be about."""
    if images.suffix.lower() in TABLES and images.is_file():
        nothing = Columns(one_image_per_patient="patient_id" not in manifest_columns(images))
        manifest = read_manifest(images, nothing, salt=_NOBODY)
        for case in manifest.cases:
            if case.image.is_dir() or _is_dicom(case.image):
                yield Source(case.image, case.frame)
        return
    if not images.exists():
        raise ManifestError("there is no such file or folder", where=images.name)
    files = sorted(images.rglob("*")) if images.is_dir() else [images]
    found = [path for path in files if path.is_file() and _is_dicom(path)]
    together = Counter(path.parent for path in found)
    series = sorted(folder for folder, files in together.items() if volumes and files > 1)
    yield from (Source(folder) for folder in series)
    yield from (Source(path) for path in found if path.parent not in series)


def _is_dicom(path: Path) -> bool:
    """Tell whether the first bytes of a file are those of a DICOM file."""
    try:
        with path.open("rb") as file:
            return looks_like_dicom(file.read(132))
    except OSError:
        return False

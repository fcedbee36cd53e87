"""The header of a source image, as the objects made from it need it. Files are only ever read."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydicom.dataset import Dataset

from medtl.errors import ImageError, MedtlError
from medtl.io.dicom.file import heard_warnings, open_dicom

REQUIRED = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
"""Elements by which an object points at the image it is about."""

MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"),
)
"""Type 2 elements of the patient and study modules: always there, perhaps empty (PS3.5 7.4.3)."""

SEXES = ("M", "F", "O")
"""The enumerated values of Patient's Sex (0010,0040)."""


def read_source(path: Path, *, root: Path | None = None) -> Dataset:
    """Return the header of a DICOM image, without pixels, fit to be referenced.

    Elements that the standard requires but the file lacks are there, empty; a sex that is no code
    of the standard is emptied. Everything else is as in the file.

    Args:
        path: The file.
        root: Folder that messages name the file from.

    Raises:
        ImageError: No DICOM file, or one that says nothing of its study, series or instance.
    """
    with heard_warnings(), open_dicom(path, root=root) as file:
        header = copy.deepcopy(file.dataset)
        _parse_all(header)
        missing = [name for name in REQUIRED if not header.get(name)]
        if missing:
            raise ImageError(
                f"the file has no {', '.join(missing)}",
                expected="the UIDs that results refer to the image by",
            )
        for name in MAY_BE_EMPTY:
            if name not in header:
                setattr(header, name, "")
        if header.PatientSex not in SEXES:
            header.PatientSex = ""
    return header


def _parse_all(header: Dataset) -> None:
    """Parse every element now, where the warnings that quote it are heard by nobody."""
    try:
        for _element in header.iterall():
            pass
    except Exception as fault:  # pydicom raises whatever the bytes lead it into
        raise ImageError(
            f"an element of the header cannot be parsed ({type(fault).__name__})"
        ) from None


def reference(source: Dataset) -> Dataset:
    """Return the sequence item that points at an image (PS3.3 10.8)."""
    item = Dataset()
    item.ReferencedSOPClassUID = source.SOPClassUID
    item.ReferencedSOPInstanceUID = source.SOPInstanceUID
    return item


@contextmanager
def made_from(where: str) -> Iterator[None]:
    """Turn what goes wrong while an object is made into an error that quotes no element.

    highdicom and pydicom name the values of elements in their errors, warnings and logs.

    Raises:
        ImageError: When the header of the source cannot be used for the object.
    """
    log = logging.getLogger("highdicom")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with heard_warnings():
            yield
    except MedtlError:
        raise
    except Exception as fault:  # whatever an odd header leads the library into
        raise ImageError(
            f"no result can be made from the header of this image ({type(fault).__name__})",
            where=where,
            fix="Check the file with dciodvfy",
        ) from None
    finally:
        log.setLevel(level)

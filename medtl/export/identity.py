"""The maker, date and identifiers of an object: the same result gets the same UIDs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from medtl.storage.atomic import atomic_path

Kind = Literal["SR", "SEG", "SC", "PDF"]

MANUFACTURER = "medtl"
"""Manufacturer (0008,0070) of every object; `io.dicomweb` leaves such objects out."""

RESEARCH_ONLY = "Research use only; not a medical device"
"""Said in every object, in words that a viewer shows."""

SERIES: Mapping[Kind, tuple[int, str]] = MappingProxyType(
    {
        "SR": (9001, "medtl findings (research use only)"),
        "SEG": (9002, "medtl segmentation (research use only)"),
        "SC": (9003, "medtl key picture (research use only)"),
        "PDF": (9004, "medtl report (research use only)"),
    }
)
"""Kind -> Series Number, above those of scanners, and Series Description."""


@dataclass(frozen=True)
class Algorithm:
    """The maker of the results.

    Attributes:
        name: Of the model, at most 64 characters.
        version: Of the model: the beginning of its checkpoint's hash.
        recipe_sha256: Fingerprint of the recipe the model was trained by.
        model_sha256: Hash of the checkpoint, "" when it is not known.
        finished: When the results were made, in local time; the date of every object.
        backbone: Of the network, "" when it is not known.
        software: What it ran on ("medtl 0.1.0"), "" when it is not known.
    """

    name: str
    version: str
    recipe_sha256: str
    model_sha256: str
    finished: datetime
    backbone: str = ""
    software: str = ""


def stable_uid(*words: str) -> str:
    """Return the UID that belongs to some words: always the same, below pydicom's root.

    Reference:
        PS3.5 annex B.
    """
    return str(generate_uid(entropy_srcs=["\0".join(words)]))


def identifiers(
    kind: Kind, source: Dataset, algorithm: Algorithm, content: bytes
) -> dict[str, Any]:
    """Return series and instance identification of an object, as highdicom's constructors take it.

    Every object is alone in its series, so that an export of fewer cases changes no identifier.

    Args:
        kind: Of the object.
        source: The image it is about.
        algorithm: What made it.
        content: What the object says: other content gets another SOP Instance UID.
    """
    digest = hashlib.sha256(content).hexdigest()
    words = (kind, source.SOPInstanceUID, algorithm.recipe_sha256, algorithm.model_sha256, digest)
    number, description = SERIES[kind]
    return {
        "series_instance_uid": stable_uid("series", *words),
        "series_number": number,
        "series_description": description,
        "sop_instance_uid": stable_uid("instance", *words),
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": algorithm.name,
        "software_versions": algorithm.software or algorithm.version,
        "device_serial_number": (algorithm.model_sha256 or algorithm.recipe_sha256)[:16],
        "content_date": algorithm.finished.date(),
        "content_time": algorithm.finished.time().replace(microsecond=0),
        "specific_character_set": "ISO_IR 192",  # names of any script, and labels
    }


def stamp(dataset: Dataset, algorithm: Algorithm) -> Dataset:
    """Put the time of the results in place of the time of the export, so that bytes repeat.

    Args:
        dataset: A new object; it is changed and returned.
        algorithm: Says when the results were made.
    """
    date, time = algorithm.finished.strftime("%Y%m%d"), algorithm.finished.strftime("%H%M%S")
    for name in ("InstanceCreation", "Content"):
        setattr(dataset, f"{name}Date", date)
        setattr(dataset, f"{name}Time", time)
    if "DateOfSecondaryCapture" in dataset:
        dataset.DateOfSecondaryCapture, dataset.TimeOfSecondaryCapture = date, time
    for item in dataset.get("ContributingEquipmentSequence", []):
        if item.get("ManufacturerModelName") == "highdicom":
            item.ContributionDateTime = date + time
    _stabilise_dimensions(dataset)
    return dataset


def write_object(dataset: Dataset, path: Path) -> None:
    """Write an object as a DICOM file, atomically."""
    with atomic_path(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)


def _stabilise_dimensions(dataset: Dataset) -> None:
    """Replace the random UID of the dimensions of a multi-frame object."""
    for name in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        for item in dataset.get(name, []):
            item.DimensionOrganizationUID = stable_uid("dimensions", dataset.SOPInstanceUID)

"""Makers, devices and years of images, from their DICOM headers: facts that name nobody."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from pydicom.dataset import Dataset

from medtl.errors import ImageError
from medtl.io.dicom.file import heard_warnings, open_dicom
from medtl.io.dicom.header import value

UNKNOWN = "unknown"
"""Of an image whose header does not say, or that has none."""

LONGEST = 64
"""Most letters of a maker or device (LO, PS3.5 6.2)."""


def device_facts(images: Iterable[Path]) -> dict[str, dict[str, int]]:
    """Return how many images are of each maker, device and year.

    Manufacturer, Manufacturer's Model Name and the year of Acquisition Date, else of Study Date,
    are looked at: no institution, no station, no serial number, no day.

    Args:
        images: Files, or folders of one series each, of which the first file is read.

    Reference:
        PS3.3 C.7.5.1 (General Equipment), C.7.6.1 (General Image).

    >>> from pydicom.data import get_testdata_file
    >>> device_facts([Path(get_testdata_file("CT_small.dcm")), Path("a.png")])["manufacturer"]
    {'GE MEDICAL SYSTEMS': 1, 'unknown': 1}
    """
    counts: dict[str, Counter[str]] = {n: Counter() for n in ("manufacturer", "device", "year")}
    for image in images:
        known = _said(image)
        for name, count in counts.items():
            count[known.get(name) or UNKNOWN] += 1
    return {name: dict(sorted(count.items())) for name, count in counts.items()}


def _said(image: Path) -> dict[str, str]:
    """What one header says; nothing where it is no DICOM or cannot be parsed."""
    file = min(image.iterdir(), default=image) if image.is_dir() else image
    try:
        with heard_warnings(), open_dicom(file) as opened:
            header = opened.dataset
            maker = _text(header, "Manufacturer")
            model = _text(header, "ManufacturerModelName")
            year = (_text(header, "AcquisitionDate") or _text(header, "StudyDate"))[:4]
    except ImageError:
        return {}
    device = model if model.startswith(maker) else f"{maker} {model}".strip()
    return {"manufacturer": maker, "device": device if model else "",
            "year": year if year.isdigit() else ""}  # fmt: skip


def _text(header: Dataset, keyword: str) -> str:
    """An element as text, "" where it is absent or cannot be read."""
    try:
        found = value(header, keyword)
    except ImageError:
        return ""
    return "" if found is None else " ".join(str(found).split())[:LONGEST]

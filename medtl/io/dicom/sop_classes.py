"""Which DICOM objects are images of a patient, and which only look like ones.

A report or a presentation state is refused by its SOP class, whatever else stands in it. A
segmentation or a dose has pixels of its own: it is read and flagged, but a folder is scanned
without it, and no study takes it for an image. What was computed from other images or copied from
a screen is read and flagged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from medtl.errors import ImageError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_IMAGES = ("Image", "RT Dose", "US Volume", "Tomography", "Tomosynthesis", "Map Storage")
"""Words in the standard's names of SOP classes with images (PS3.4 B.5), and in no other's."""

_FLAGGED_NAMES = {
    "Secondary Capture": "secondary_capture",
    "Parametric Map": "parametric_map_not_original_pixels",
}
"""Part of a SOP class's name -> flag: copies of a screen or of a film, computed quantities."""

NO_IMAGES = {
    "SEG": "segmentation_not_an_image",
    "RTDOSE": "radiotherapy_dose_not_an_image",
}
"""Modality of objects with pixels that show no patient -> flag."""

_FLAGGED_TYPES = {
    "SCREEN SAVE": "screen_save",
    "DOSE_INFO": "dose_report_picture",
    "LOCALIZER": "localizer",
    "MIP": "projection_of_a_volume",
    "MINIP": "projection_of_a_volume",
    "MAXIMUM": "projection_of_a_volume",
    "PROJECTION IMAGE": "projection_of_a_volume",
    "CSA MPR": "reformatted",
    "MPR": "reformatted",
    "REFORMATTED": "reformatted",
    "VOLUME_RENDERED": "rendered",
    "SUBTRACTION": "subtraction",
    "VIRTUAL_MONO": "multi_energy_ct",
    "MAT_SPECIFIC": "multi_energy_ct",
    "MAT_REMOVED": "multi_energy_ct",
    "EFF_ATOMIC_NUM": "multi_energy_ct",
    "ELECTRON_DENSITY": "multi_energy_ct",
    "MAT_VALUE_BASED": "multi_energy_ct",
}
"""Value of Image Type (0008,0008) -> flag (PS3.3 C.7.6.1.1.2, C.8.15.3.1, C.8.16.1, C.8.31.1)."""

_SLICES = ("CT", "MR", "PT", "NM")
"""Modalities whose derived images are computed from others; a derived radiograph is a usual one."""

_GREY = ("CT", "MR", "PT", "CR", "DX", "MG")
"""Modalities that measure one value a pixel: a coloured one is a screen shot or fused picture."""


def object_flags(dataset: Dataset) -> list[str]:
    """Return flags for an image that is no original one; refuse what is no image.

    Args:
        dataset: The header.

    Raises:
        ImageError: Its SOP class is not that of an image.

    >>> from pydicom.dataset import Dataset
    >>> header = Dataset()
    >>> header.SOPClassUID, header.Modality = "1.2.840.10008.5.1.4.1.1.2", "CT"
    >>> header.ImageType = ["DERIVED", "SECONDARY", "MPR"]
    >>> object_flags(header)
    ['derived_image', 'reformatted']
    >>> header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    >>> object_flags(header)
    Traceback (most recent call last):
    medtl.errors.ImageError: no image of a patient by its SOP class: Basic Text SR Storage; ...
    """
    name, modality = object_name(dataset), _of(dataset, "Modality").upper()
    if name and not (any(word in name for word in _IMAGES) or name == "Segmentation Storage"):
        raise ImageError(
            f"no image of a patient by its SOP class: {name}",
            expected="an image storage SOP Class (0008,0016)",
            fix="Take it out of the manifest",
        )
    flags = [flag for part, flag in _FLAGGED_NAMES.items() if part in name]
    flags += [NO_IMAGES[modality]] if modality in NO_IMAGES else []
    kinds = [part.strip().upper() for part in _of(dataset, "ImageType").split("\\")]
    if kinds[0] == "DERIVED" and (modality in _SLICES or kinds[1:2] == ["SECONDARY"]):
        flags.append("derived_image")
    flags += [_FLAGGED_TYPES[kind] for kind in kinds if kind in _FLAGGED_TYPES]
    if _of(dataset, "SamplesPerPixel") == "3" and modality in _GREY:
        flags.append("colour_in_a_grey_modality")
    if _of(dataset, "MultienergyCTAcquisition").upper() == "YES":
        flags.append("multi_energy_ct")
    return list(dict.fromkeys(flags))


def object_name(dataset: Dataset) -> str:
    """Return what the SOP class calls the object, "" when it has none that is known.

    >>> from pydicom.dataset import Dataset
    >>> header = Dataset()
    >>> header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    >>> object_name(header)
    'RT Structure Set Storage'
    """
    from pydicom.uid import UID  # whoever reads no DICOM file does not wait for pydicom

    uid = UID(_of(dataset, "SOPClassUID"))
    return "" if uid.name == uid else str(uid.name)


def _of(dataset: Dataset, keyword: str) -> str:
    """Return an element as text, "" when it is absent or cannot be read."""
    try:
        found = dataset.get(keyword)
    except Exception:  # pydicom converts on access and raises what it meets
        return ""
    if found is None or isinstance(found, str | int | float):
        return "" if found is None else str(found).strip()
    return "\\".join(str(part) for part in found)

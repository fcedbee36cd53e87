"""DICOM images in real-world units, every step recorded.

Order of the steps, each where the standard says so: decode (PS3.5 A), bits and sign (PS3.5 8.1.1),
modality transformation (PS3.3 C.11.1), VOI when asked (C.11.2), MONOCHROME1 inverted once
(C.7.6.3.1.2), padding set aside (C.7.5.1.1.2), spacing and position (C.7.6.2).

**MONOCHROME1.** The value is mirrored within the range that the stored bits can represent, carried
through the modality transformation: `low + high - value`. The mirror does not depend on the
picture, so equal exposures stay equal numbers (floats have no such range: theirs is that of the
picture). Values in Hounsfield units are not mirrored unless a
display image is asked for: they mean a density, and MONOCHROME1 only says how to show it.

**Padding.** Padded pixels get one value, a hair below the smallest real one (background for every
later step), and `header["padding_value"]` holds it, so `array == float32(padding_value)` is the
exact mask for statistics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import MediaStorageDirectoryStorage

from medtl.errors import ImageError
from medtl.io.cost import DEFAULT_LIMITS, Limits, check_declared
from medtl.io.dicom.decode import PixelFormat, StoredArray, decode_frames
from medtl.io.dicom.file import DicomFile, PixelElement, heard_warnings, open_dicom
from medtl.io.dicom.header import (
    Geometry,
    coarser,
    facts,
    geometry,
    group_or_top,
    integer,
    items,
    numbers,
    pixel_format,
    text,
    unlike_stated_range,
    value,
)
from medtl.io.dicom.luts import LookupTable, Rescale, Window, invert, is_padding, lookup_table
from medtl.io.dicom.sop_classes import object_flags, object_name
from medtl.types import Image

_PADDING_STEP = 1e-6
"""Distance of padding below the smallest real value, relative to it (at least to 1)."""


@dataclass
class DicomImage:
    """One image while it is read: its file and format, and what was done and was odd so far.

    Attributes:
        file: Parsed header and place of the pixel data.
        format: How the pixels are stored.
        frames: Stored numbers of the frames that are read, in the order of the array.
        header: Facts that the image keeps.
        flags, notes: Of the image, in the order of the steps.
    """

    file: DicomFile
    format: PixelFormat
    frames: list[int]
    header: dict[str, str]
    flags: list[str]
    notes: list[str] = field(default_factory=list)

    @property
    def dataset(self) -> Dataset:
        """The header's elements."""
        return self.file.dataset


def read_header(
    path: str | PathLike[str],
    *,
    root: str | PathLike[str] | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Mapping[str, str]:
    r"""Return the allow-listed facts of a DICOM header, without reading pixels.

    Args:
        path: The file.
        root: Folder that messages name the file from.
        limits: What the file may cost.

    Returns:
        Fact -> text ("modality", "view_position", "rows", "patient_age_years", ...); facts that
        the file lacks are left out. No ids, names, dates or free text.

    Raises:
        ImageError: Not a DICOM file, or its header cannot be parsed.

    >>> from pydicom.data import get_testdata_file
    >>> header = read_header(get_testdata_file("CT_small.dcm"))
    >>> header["modality"], header["rows"], header["pixel_spacing"]
    ('CT', '128', '0.661468\\0.661468')
    """
    with heard_warnings(), open_dicom(path, limits, root=root) as file:
        return facts(file)[0]


def read_dicom(
    path: str | PathLike[str],
    *,
    root: str | PathLike[str] | None = None,
    voi: bool = False,
    frame: int | None = None,
    at_least: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Image:
    """Return one DICOM file as an image in real-world units.

    Args:
        path: The file.
        root: Folder that messages name the file from.
        voi: Apply the VOI LUT or the first window; the values are then display values from
            0 (black) to 1 (white).
        frame: Number from 0 of the one frame to read, in the order of the whole array.
        at_least: Let grey JPEG 2000 without padded pixels be decoded at the coarsest resolution it
            holds whose longer side has so many pixels. Flagged `reduced_resolution`.
        limits: What the file may cost.

    Returns:
        `(C, rows, columns)`, or `(C, frames, rows, columns)` for several frames, sorted along
        their normal when they are one stack. C is 1, or 3 (RGB, stored units) for colour.

    Raises:
        ImageError: The file is no DICOM image, or is corrupt, truncated, over the limits or in a
            transfer syntax that has no decoder.

    >>> from pydicom.data import get_testdata_file
    >>> slice_of_ct = read_dicom(get_testdata_file("CT_small.dcm"))
    >>> slice_of_ct.array.shape, slice_of_ct.spacing
    ((1, 128, 128), (0.661468, 0.661468))
    >>> float(slice_of_ct.array.min()), float(slice_of_ct.array.max())  # Hounsfield units
    (-896.0, 1167.0)
    """
    with heard_warnings() as heard, open_dicom(path, limits, root=root) as file:
        image = _read(file, voi, frame, at_least, limits)
    if not heard:
        return image
    # The messages themselves may quote tag values, so only their number is kept.
    note = f"{len(heard)} warning(s) while the header was parsed"
    flags = (*image.flags, "header_not_conformant")
    return replace(image, notes=(*image.notes, note), flags=flags)


def _read(
    file: DicomFile, voi: bool, frame: int | None, at_least: int | None, limits: Limits
) -> Image:
    """Run the steps on an open file."""
    dataset = file.dataset
    if file.pixels is None:
        raise _without_pixels(dataset)
    odd_object = object_flags(dataset)
    if value(dataset, "PixelPaddingValue") is not None:
        at_least = None  # an average of padding and picture is neither
    header, flags = facts(file)
    fmt, odd_format = pixel_format(dataset, file.pixels.kind)
    _check_size(fmt, file.pixels, frame, limits)
    place = geometry(dataset, fmt.frames)
    frames = _chosen(place, frame, fmt)
    stored, odd_pixels = decode_frames(
        file.pixels, fmt, file.transfer_syntax, sorted(frames), at_least=at_least
    )
    flags = [*file.flags, *odd_object, *flags, *odd_format, *odd_pixels]
    flags += unlike_stated_range(dataset, stored, fmt.is_signed) if fmt.samples == 1 else []
    image = DicomImage(file, fmt, frames, header, flags)
    if stored.shape[1:3] != (fmt.rows, fmt.columns):
        place = coarser(place, (fmt.rows, fmt.columns), stored.shape[1:3])
        image.flags.append("reduced_resolution")
        image.notes.append(f"decoded at {stored.shape[1]} x {stored.shape[2]} pixels")
    image.notes.append(f"decoded transfer syntax {header.get('transfer_syntax', 'unknown')}")
    if frames != sorted(frames):
        stored = stored[np.argsort(np.argsort(frames))]
        image.notes.append("frames sorted by position along their normal")
    if fmt.samples == 1 and fmt.photometric != "PALETTE COLOR":
        values = _grey(image, stored[..., 0], voi)[..., None]
    else:
        values = _colour(image, stored)
    return _assemble(image, values, place, frame)


def _check_size(fmt: PixelFormat, pixels: PixelElement, frame: int | None, limits: Limits) -> None:
    """Refuse more pixels than the limits, or more frames than the file has bytes."""
    count = fmt.frames if frame is None else 1
    check_declared(
        (count, fmt.rows, fmt.columns) if count > 1 else (fmt.rows, fmt.columns),
        3 if fmt.photometric == "PALETTE COLOR" else fmt.samples,
        fmt.bits_allocated // 8,
        limits=limits,
    )
    if fmt.frames > max(pixels.available, 1):
        raise ImageError(
            f"{fmt.frames} frames are declared in {pixels.available} bytes of pixel data",
            expected="a Number of Frames (0028,0008) that the length allows",
        )


def _without_pixels(dataset: Dataset) -> ImageError:
    """Return the error for a DICOM file that holds no image."""
    if value(dataset, "DirectoryRecordSequence") is not None or (
        value(dataset, "MediaStorageSOPClassUID") == MediaStorageDirectoryStorage
    ):
        return ImageError("a DICOMDIR, an index of images and no image itself")
    name = object_name(dataset)
    kind = f"by its SOP class it is {name}" if name else "a report, a structure set, a plan"
    return ImageError(
        f"no pixel data: the DICOM file is truncated before them, or is no image ({kind})",
        fix="Take it out of the manifest, or copy it again from its source.",
    )


def _chosen(place: Geometry, frame: int | None, fmt: PixelFormat) -> list[int]:
    """Return the stored numbers of the frames to read, in the order of the array."""
    if frame is None:
        return list(place.order)
    if not 0 <= frame < fmt.frames:
        raise ImageError(f"frame {frame} is asked for", expected=f"0 to {fmt.frames - 1}")
    return [place.order[frame]]


def _assemble(
    image: DicomImage, values: NDArray[np.float32], place: Geometry, frame: int | None
) -> Image:
    """Return the image: channels first, its spacing and affine for the frames read."""
    flags = [*image.flags, *place.flags]
    array = np.moveaxis(values, -1, 0)
    spacing: tuple[float, ...] | None = place.in_plane
    affine = place.affine
    if array.shape[1] == 1:
        array = array[:, 0]
        if frame is not None and affine is not None and len(place.order) > 1:
            affine = affine[:, [1, 2, 0, 3]]  # (row, column, 0) of the slice at its own place
            affine[:, 3] += affine[:, 2] * frame
    else:
        flags.append("multi_frame")
        if place.in_plane is not None and place.between is not None:
            spacing = (place.between, *place.in_plane)
        else:
            spacing = None
            flags.append("no_slice_spacing")
    if frame is not None and len(place.order) > 1:
        image.notes.append(f"took frame {frame} of {len(place.order)}")
    if spacing is not None:
        image.notes.append("spacing " + " x ".join(f"{mm:g}" for mm in spacing) + " mm")
    return Image(
        np.ascontiguousarray(array),
        spacing,
        affine,
        image.header.get("modality", "").lower(),
        tuple(image.notes),
        tuple(dict.fromkeys(flags)),
        image.header,
    )


# ------------------------------------------------------------------------ grey


def _grey(image: DicomImage, stored: StoredArray, voi: bool) -> NDArray[np.float32]:
    """Return `(F, R, C)` float32 after modality, VOI, polarity and padding."""
    padding = _padding(image, stored)
    modality = _modality(image)
    if all(one == modality[0] for one in modality):
        values = modality[0](stored)
    else:
        values = np.stack([to(one) for to, one in zip(modality, stored, strict=True)])
        image.notes.append("each frame rescaled by its own slope and intercept")
    inverts = _inverts(image, voi)
    if voi:
        _apply_voi(image, values, padding)
        if inverts:
            invert(values, 0.0, 1.0)
    else:
        _, _, flag = _voi(image, image.frames[0], False)
        image.flags += [flag] if flag.startswith("broken") else []
        for one, to in zip(values, modality, strict=True) if inverts else ():
            is_float = stored.dtype.kind == "f"
            ends = (float(one.min()), float(one.max())) if is_float else _range(to, image.format)
            invert(one, *ends)
    if padding is not None:
        _set_padding(image, values, padding)
    return values


def _modality(image: DicomImage) -> list[Rescale | LookupTable]:
    """Return the modality transformation of every frame (PS3.3 C.11.1)."""
    dataset, frames = image.dataset, image.frames
    sequence = items(dataset, "ModalityLUTSequence")
    if sequence:
        table = _table(sequence[0], dataset, image.format.is_signed)
        if table is None:
            raise ImageError("the Modality LUT (0028,3000) is broken")
        image.notes.append("modality LUT applied")
        return [table] * len(frames)
    transforms: list[Rescale | LookupTable] = []
    is_per_frame = "PerFrameFunctionalGroupsSequence" in dataset
    stated = set[bool]()
    for number in frames if is_per_frame else frames[:1]:
        source = group_or_top(dataset, number, "PixelValueTransformationSequence")
        slope, intercept = numbers(source, "RescaleSlope"), numbers(source, "RescaleIntercept")
        stated.add(slope != ())
        if (slope == ()) != (intercept == ()):
            image.flags.append("incomplete_rescale")
        rescale = Rescale(slope[0] if slope else 1.0, intercept[0] if intercept else 0.0)
        if rescale.slope == 0.0:
            raise ImageError("Rescale Slope (0028,1053) is zero: every pixel would be the same")
        transforms.append(rescale)
    if len(stated) > 1:
        raise ImageError(
            "some frames have a Rescale Slope (0028,1053) and others have none",
            expected="one kind of value in all frames",
            fix="Export the image again",
        )
    if transforms[0] != Rescale():
        image.notes.append("rescale slope and intercept applied")
    return transforms if is_per_frame else transforms * len(frames)


def _table(item: Dataset, dataset: Dataset, is_signed: bool) -> LookupTable | None:
    """Return the table of a LUT sequence item, None when it is broken."""
    try:
        descriptor, data = value(item, "LUTDescriptor"), value(item, "LUTData")
        is_little = bool(dataset.original_encoding[1])
        return lookup_table(descriptor, data, is_signed=is_signed, is_little=is_little)
    except (ImageError, TypeError, ValueError):
        return None


def _inverts(image: DicomImage, voi: bool) -> bool:
    """Return whether the values are mirrored, and record it. Asked exactly once per file."""
    is_monochrome1 = image.format.photometric == "MONOCHROME1"
    shape = text(image.dataset, "PresentationLUTShape")
    if shape and (shape == "INVERSE") != is_monochrome1:  # PS3.3 C.11.6 ties the two together
        image.flags.append("presentation_lut_shape_contradicts_photometric_interpretation")
    if not is_monochrome1:
        return False
    source = group_or_top(image.dataset, 0, "PixelValueTransformationSequence")
    if not voi and text(source, "RescaleType") == "HU":
        image.flags.append("monochrome1_in_hounsfield_units")
        image.notes.append("MONOCHROME1 not inverted: the values are Hounsfield units")
        return False
    image.notes.append("inverted MONOCHROME1")
    return True


def _range(modality: Rescale | LookupTable, fmt: PixelFormat) -> tuple[float, float]:
    """Return the ends of the range that the stored bits can represent, in real-world units."""
    if isinstance(modality, LookupTable):
        return float(modality.table.min()), float(modality.table.max())
    low = -(1 << (fmt.bits_stored - 1)) if fmt.is_signed else 0
    high = low + (1 << fmt.bits_stored) - 1
    return modality.slope * low + modality.intercept, modality.slope * high + modality.intercept


def _padding(image: DicomImage, stored: StoredArray) -> NDArray[np.bool_] | None:
    """Return where the pixels are padding; None when none are (PS3.3 C.7.5.1.1.2)."""
    if value(image.dataset, "PixelPaddingValue") is None or stored.dtype.kind == "f":
        return None

    def as_stored(keyword: str) -> int:
        """Return the value in the sign of the pixels: its VR is often the wrong one of US, SS."""
        wrapped = integer(image.dataset, keyword) % (1 << 16)
        if not image.format.is_signed:
            return wrapped
        # 2048 in 12 signed bits can only be the pattern of the lowest value, -2048.
        span = 1 << min(image.format.bits_stored, 16)
        known = wrapped - (1 << 16) if wrapped >= 1 << 15 else wrapped
        return known - span if span // 2 <= known < span else known

    first = as_stored("PixelPaddingValue")
    has_limit = value(image.dataset, "PixelPaddingRangeLimit") is not None
    mask = is_padding(stored, first, as_stored("PixelPaddingRangeLimit") if has_limit else None)
    return mask if mask.any() else None


def _set_padding(
    image: DicomImage, values: NDArray[np.float32], padding: NDArray[np.bool_]
) -> None:
    """Set padded pixels just below the smallest real value and record that value."""
    count = int(padding.sum())
    if count == padding.size:
        raise ImageError("every pixel is padding: the image is empty")
    floor = float(np.min(values, where=~padding, initial=np.inf))
    fill = np.float32(floor - max(abs(floor), 1.0) * _PADDING_STEP)
    np.copyto(values, fill, where=padding)
    image.header["padding_value"] = repr(float(fill))
    image.notes.append(f"{count} padded pixel(s) set below the smallest real value")
    image.flags.append("pixel_padding")


# ------------------------------------------------------------------------- VOI


def _apply_voi(
    image: DicomImage, values: NDArray[np.float32], padding: NDArray[np.bool_] | None
) -> None:
    """Turn real-world values into display values, in place, frame by frame (PS3.3 C.11.2)."""
    for place, number in enumerate(image.frames):
        transform, note, flag = _voi(image, number, float(values[place].min()) < 0)
        if transform is None:
            real = True if padding is None else ~padding[place]
            low = float(np.min(values[place], where=real, initial=np.inf))
            high = float(np.max(values[place], where=real, initial=-np.inf))
            values[place] -= low
            values[place] /= (high - low) or 1.0
            np.clip(values[place], 0.0, 1.0, out=values[place])
        elif isinstance(transform, LookupTable):
            values[place] = transform(values[place]) / np.float32((1 << transform.bits) - 1)
        else:
            transform(values[place])
        if note not in image.notes:
            image.notes.append(note)
        if flag:
            image.flags.append(flag)


def _voi(
    image: DicomImage, frame: int, is_signed: bool
) -> tuple[Window | LookupTable | None, str, str]:
    """Return the VOI transformation of a frame with its note and flag; None: full range of data.

    A VOI LUT goes before a window, the first of several windows is taken, and a broken one is
    ignored with a flag.
    """
    sequence = items(image.dataset, "VOILUTSequence")
    if sequence:
        table = _table(sequence[0], image.dataset, is_signed)
        if table is not None:
            return table, "VOI LUT applied", ""
        return None, "VOI LUT is broken: shown from smallest to largest value", "broken_voi_lut"
    source = group_or_top(image.dataset, frame, "FrameVOILUTSequence")
    try:
        center, width = numbers(source, "WindowCenter"), numbers(source, "WindowWidth")
    except ImageError:
        center, width = (0.0,), (0.0,)
    if not center and not width:
        return None, "no VOI in the header: shown from smallest to largest value", "no_voi"
    function = text(source, "VOILUTFunction") or "LINEAR"
    window = Window(center[0], width[0], function) if center and width else Window(0.0, 0.0)
    if window.fault:
        return None, f"{window.fault}: shown from smallest to largest value", "broken_window"
    return window, f"window applied ({function})", ""


# ---------------------------------------------------------------------- colour


def _colour(image: DicomImage, stored: StoredArray) -> NDArray[np.float32]:
    """Return `(F, R, C, 3)` RGB in stored units; palette entries looked up (PS3.3 C.7.6.3.1.5)."""
    photometric = image.format.photometric
    if photometric == "PALETTE COLOR":
        try:
            colours: NDArray[Any] = apply_color_lut(stored[..., 0], image.dataset)
        except Exception as fault:  # pydicom raises what a broken palette leads it into
            raise ImageError(
                f"the colour palette cannot be applied ({type(fault).__name__})"
            ) from None
        image.notes.append("colour palette applied")
        return colours[..., :3].astype(np.float32)
    if photometric.startswith("YBR"):
        image.notes.append(f"{photometric} converted to RGB")
    return stored.astype(np.float32)

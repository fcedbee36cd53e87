"""The key picture of a case, with the heat map, as a Secondary Capture that every viewer shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medtl.errors import ImageError
from medtl.export.identity import RESEARCH_ONLY, Algorithm, identifiers, stamp
from medtl.export.source import made_from, reference

WIDTH_PIXELS = 512
"""Width to which a smaller picture is enlarged, so that its caption can be read."""


def secondary_capture(
    picture: NDArray[np.uint8], source: Dataset, algorithm: Algorithm, *, caption: str
) -> Dataset:
    """Return a picture as a Secondary Capture of the source's study, with a caption below it.

    The caption is drawn into the pixels, because many viewers show nothing else of such an object.

    Args:
        picture: `(H, W, 3)` 8-bit RGB.
        source: Header of the image the picture was made from.
        algorithm: What made it.
        caption: One line, "pneumonia 0.83"; what it is for is added below it.

    Raises:
        ImageError: When the picture is no 8-bit RGB, or the source's header cannot be used.

    Reference:
        PS3.3 A.8.1, C.8.6.
    """
    if picture.ndim != 3 or picture.shape[-1] != 3 or picture.dtype != np.uint8:
        raise ImageError("the key picture has another form", expected="8-bit RGB pixels")
    import highdicom

    drawn = _with_caption(picture, caption)
    with made_from("source image"):
        capture = highdicom.sc.SCImage.from_ref_dataset(
            source,
            drawn,
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            patient_orientation=("L", "F"),  # asked for; the source's own follows
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            **identifiers("SC", source, algorithm, drawn.tobytes()),
        )
        for name in ("PatientOrientation", "Laterality"):
            setattr(capture, name, source.get(name) or "")
        capture.BurnedInAnnotation = "NO"  # means: nothing that identifies the patient
        capture.DerivationDescription = f"{caption}. {RESEARCH_ONLY}"[:1024]
        capture.LossyImageCompression = source.get("LossyImageCompression") or "00"
        capture.SourceImageSequence = [reference(source)]
        return stamp(capture, algorithm)


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Return a picture of the gallery as `(H, W, 3)` 8-bit RGB.

    Raises:
        ImageError: When the file is missing or no picture.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, UnidentifiedImageError) as fault:
        raise ImageError("the key picture cannot be read", where=path.name) from fault


def _with_caption(picture: NDArray[np.uint8], caption: str) -> NDArray[np.uint8]:
    """Enlarge a small picture by a whole number and write two lines below it."""
    from PIL import Image, ImageDraw, ImageFont

    factor = max(1, -(-WIDTH_PIXELS // picture.shape[1]))
    large = Image.fromarray(picture.repeat(factor, axis=0).repeat(factor, axis=1))
    size = max(12, large.width // 32)
    framed = Image.new("RGB", (large.width, large.height + 3 * size))
    framed.paste(large)
    font = ImageFont.load_default(size)
    for line, text in enumerate((caption, RESEARCH_ONLY)):
        place = size / 2, large.height + size * (0.2 + 1.3 * line)
        ImageDraw.Draw(framed).text(place, text, fill="white", font=font)
    return np.asarray(framed)

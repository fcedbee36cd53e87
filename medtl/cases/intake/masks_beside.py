"""Which files of a folder are masks of its images, by their names and their folders."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePath

_MASK_NAME = re.compile(
    r"(.+?)[ _.-](?:masks?|seg|segmentation|label|gt|annotation)(?:[ _-]?\d+)?", re.IGNORECASE
)
"""The name of a mask that lies beside its image: the image's, and what it is."""

_MASK_FOLDER = re.compile(
    r"(?:masks?|labels?|segs?|segmentations?|gt|ground[ _-]?truth|annotations?|labelst[rs])",
    re.IGNORECASE,
)
"""The name of a folder of masks, whose images lie in one beside it."""

_IMAGE_FOLDER = re.compile(r"(?:images?|imgs?|scans?|volumes?|imagest[rs])", re.IGNORECASE)
"""The name of the folder beside it."""

_CHANNEL = re.compile(r"_0000")
"""Of nnU-Net: the first channel of a case, whose mask has no number."""


def masks_among(files: Iterable[Path]) -> set[Path]:
    """Return the files that are named like masks of others among them.

    A mask is named for its image ("a_mask.png" beside "a.png"), or lies under its image's name in
    a folder of masks beside one of images ("masks/a.png" beside "images/a.png"; "labelsTr/a.nii.gz"
    beside "imagesTr/a_0000.nii.gz"). One without its image is not known to be a mask.

    Args:
        files: Paths from one folder.

    Example:
        >>> names = "a.png", "a_mask.png", "b_mask.png", "images/c.png", "masks/c.png"
        >>> sorted(path.as_posix() for path in masks_among(map(Path, names)))
        ['a_mask.png', 'masks/c.png']
    """
    files = list(files)
    stems = {_stem(path) for path in files}
    images = {
        (path.parent.parent, _CHANNEL.sub("", _stem(path).name))
        for path in files
        if _IMAGE_FOLDER.fullmatch(path.parent.name)
    }
    return {path for path in files if _is_named_for(path, stems) or _is_in_folder(path, images)}


def masks_line(masks: Iterable[Path]) -> str:
    """Return what is said of masks that are left out, with the first of them.

    Args:
        masks: At least one, below the folder that was given.
    """
    found = sorted(masks)
    one = len(found) == 1
    are = "file is named like a mask of another" if one else "files are named like masks of others"
    return f"{len(found)} {are} ({found[0].as_posix()}) and {'was' if one else 'were'} left out"


def _is_named_for(mask: Path, stems: set[Path]) -> bool:
    """Whether a file named "IMAGE_mask.png" lies beside its image."""
    found = _MASK_NAME.fullmatch(_stem(mask).name)
    return found is not None and mask.with_name(found[1]) in stems


def _is_in_folder(mask: Path, images: set[tuple[Path, str]]) -> bool:
    """Whether a file lies in a folder of masks, and one of its name in the images' beside it."""
    if not _MASK_FOLDER.fullmatch(mask.parent.name):
        return False
    name = _stem(mask).name
    named = _MASK_NAME.fullmatch(name)
    return any((mask.parent.parent, one) in images for one in (name, named and named[1]) if one)


def _stem(path: Path) -> Path:
    """A path without the ending of its file, of NIfTI both endings."""
    name = path.name
    zipped = name.lower().endswith(".nii.gz")
    return path.with_name(name[: -len(".nii.gz")] if zipped else PurePath(name).stem)

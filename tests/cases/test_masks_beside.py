"""Masks among images are found by their names and folders, and classes of pictures are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from medtl.cases.intake.masks_beside import masks_among, masks_line

PAIRS = [
    ("face.png", "face_mask.png"),
    ("face.png", "face_mask_2.png"),
    ("a/face.jpg", "a/face-seg.png"),
    ("images/face.png", "masks/face.png"),
    ("images/face.png", "masks/face_mask.png"),
    ("d/images/face.tif", "d/labels/face.png"),
    ("imagesTr/case_0000.nii.gz", "labelsTr/case.nii.gz"),
    ("case.nii.gz", "case_seg.nii.gz"),
]
IMAGES = [
    ("face.png", "other_mask.png"),  # no image that it belongs to
    ("face.png", "a/face_mask.png"),  # in another folder
    ("normal/1.png", "effusion/1.png"),  # two classes
    ("normal/1.png", "masks/1.png"),  # no folder of images beside it
    ("images/1.png", "masks/2.png"),
    ("a/images/1.png", "b/masks/1.png"),
    ("1.png", "1_masked.png"),
]


@pytest.mark.parametrize(("image", "mask"), PAIRS)
def test_a_mask_is_known_by_its_image(image: str, mask: str) -> None:
    assert masks_among([Path(image), Path(mask)]) == {Path(mask)}
    assert masks_among([Path(mask)]) == set()


@pytest.mark.parametrize("names", IMAGES)
def test_what_is_not_known_to_be_a_mask_is_an_image(names: tuple[str, str]) -> None:
    assert masks_among(map(Path, names)) == set()


def test_how_many_were_left_out_and_which_is_said() -> None:
    one = masks_line([Path("masks/a.png")])
    assert one == "1 file is named like a mask of another (masks/a.png) and was left out"
    two = masks_line([Path("masks/b.png"), Path("masks/a.png")])
    assert two == "2 files are named like masks of others (masks/a.png) and were left out"

"""Masks of every format on the grid of their image, and written so that they overlay it."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from make_dicom import save, write
from pydicom.dataset import Dataset
from test_series import SHAPE, VALUES, place, series

from medtl.errors import ImageError, MedtlError
from medtl.io.cost import Limits, limits_beside
from medtl.io.dicom.segmentations import rasterise
from medtl.io.masks import read_mask, write_mask
from medtl.io.pairs import grid_distance_mm
from medtl.io.read import read_image
from medtl.types import Image

NAMES = {1: "Liver", 2: "spleen"}
LABELS = np.zeros(SHAPE, np.uint8)
LABELS[1:4, 2:5, 1:4] = 1
LABELS[2, 5, 0:2] = 2


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """A DICOM series of five slices, axes (slice, row, column)."""
    return read_image(series(tmp_path / "s", PatientID="P1"))


def left_handed(tmp_path: Path, name: str = "image.nii.gz") -> tuple[Path, np.ndarray]:
    """A rotated, anisotropic, left-handed NIfTI file and its affine."""
    angle = np.deg2rad(25)
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-0.7, 0.9, 3.0])[:, [2, 0, 1]]
    affine[:3, 3] = (12, -30, 44)
    affine[:3, 1] *= -np.sign(np.linalg.det(affine[:3, :3]))
    path = tmp_path / name
    rng = np.random.default_rng(1)
    nibabel.save(nibabel.Nifti1Image(rng.normal(size=SHAPE).astype(np.float32), affine), path)
    return path, affine


# ----------------------------------------------------------- NIfTI and pictures


def test_a_written_mask_overlays_a_left_handed_nifti_voxel_for_voxel(tmp_path):
    path, affine = left_handed(tmp_path)
    assert np.linalg.det(affine) < 0
    image = read_image(path)
    write_mask(tmp_path / "mask.nii.gz", LABELS, like=image)
    # nibabel is the independent reader
    written = nibabel.load(tmp_path / "mask.nii.gz")
    np.testing.assert_allclose(written.affine, affine, atol=1e-5)
    np.testing.assert_allclose(written.get_qform(), affine, atol=1e-4)
    assert (int(written.header["sform_code"]), int(written.header["qform_code"])) == (1, 1)
    assert written.header.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(written.dataobj), LABELS)
    back = read_mask(tmp_path / "mask.nii.gz", like=image, labels=NAMES)
    np.testing.assert_array_equal(back.array, LABELS)
    # negative control: the same labels with a flipped axis are refused
    flipped = affine @ np.diag([1, 1, -1, 1])
    nibabel.save(nibabel.Nifti1Image(LABELS, flipped), tmp_path / "wrong.nii")
    with pytest.raises(ImageError, match=r"wrong\.nii: affine mismatch"):
        read_mask(tmp_path / "wrong.nii", like=image)


def test_a_written_mask_overlays_a_dicom_series_voxel_for_voxel(tmp_path, image):
    write_mask(tmp_path / "mask.nii.gz", LABELS, like=image)
    written = nibabel.load(tmp_path / "mask.nii.gz")
    data = np.asarray(written.dataobj)
    for voxel in np.argwhere(LABELS):
        # from DICOM's own equation (LPS) to the voxel of the mask (RAS)
        lps = place(voxel[0]) + np.array([0.7 * voxel[2], 0.8 * voxel[1], 0])
        index = np.linalg.inv(written.affine) @ (*(lps * (-1, -1, 1)), 1)
        assert data[tuple(np.rint(index[:3]).astype(int))] == LABELS[tuple(voxel)]
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.nii.gz", like=image).array, LABELS)


def test_a_converted_mask_of_a_series_is_turned_back_exactly(tmp_path, image):
    # what dcm2niix writes: (column, row from below, slice)
    array = LABELS.transpose(2, 1, 0)[:, ::-1]
    affine = image.affine[:, [2, 1, 0, 3]].copy()
    affine[:, 3] += affine[:, 1] * (array.shape[1] - 1)
    affine[:, 1] *= -1
    nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / "m.nii.gz")
    mask = read_mask(tmp_path / "m.nii.gz", like=image, labels=NAMES)
    np.testing.assert_array_equal(mask.array, LABELS)
    assert "axes of the mask turned to those of the image" in mask.notes
    affine[0, 3] += 0.7  # negative control: one column to the side
    nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / "m.nii.gz")
    with pytest.raises(ImageError, match=r"up to 0\.7 mm"):
        read_mask(tmp_path / "m.nii.gz", like=image)


TURNS = [
    (order, flips)
    for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
    for flips in ((1, 1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, -1), (-1, -1, -1))
]


def turned(
    array: np.ndarray, affine: np.ndarray, order: tuple[int, ...], flips: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """The same voxels in the same places, stored in another order of axes and directions."""
    array, affine = array.transpose(order), affine[:, [*order, 3]].copy()
    for axis, sign in enumerate(flips):
        if sign < 0:
            array = np.flip(array, axis)
            affine[:, 3] += affine[:, axis] * (array.shape[axis] - 1)
            affine[:, axis] *= -1
    return array, affine


@pytest.mark.parametrize(("order", "flips"), TURNS)
def test_any_order_and_direction_of_axes_is_brought_onto_one_grid(tmp_path, order, flips):
    path, affine = left_handed(tmp_path)
    image = read_image(path)
    nibabel.save(nibabel.Nifti1Image(*turned(LABELS, affine, order, flips)), tmp_path / "m.nii")
    mask = read_mask(tmp_path / "m.nii", image)
    np.testing.assert_array_equal(mask.array, LABELS)
    np.testing.assert_allclose(mask.affine, affine, atol=1e-4)
    assert mask.spacing == pytest.approx(image.spacing, abs=1e-4)
    assert mask.flags == ()
    moved = affine.copy()
    moved[0, 3] += 5  # negative control: the same turn, 5 mm to the right
    nibabel.save(nibabel.Nifti1Image(*turned(LABELS, moved, order, flips)), tmp_path / "m.nii")
    with pytest.raises(ImageError, match="up to 5 mm"):
        read_mask(tmp_path / "m.nii", image)


def test_without_an_image_a_mask_says_where_it_lies_itself(tmp_path):
    path, affine = left_handed(tmp_path)
    write_mask(tmp_path / "m.nii", LABELS, like=read_image(path))
    mask = read_mask(str(tmp_path / "m.nii"))
    np.testing.assert_array_equal(mask.array, LABELS)
    np.testing.assert_allclose(mask.affine, affine, atol=1e-5)
    assert mask.spacing == pytest.approx(tuple(np.linalg.norm(affine[:3, :3], axis=0)), rel=1e-5)
    assert (mask.labels, repr(mask)) == ((1, 2), "Mask(5 x 7 x 6, labels 1, 2)")
    again = read_mask(tmp_path / "m.nii", mask)
    np.testing.assert_array_equal(again.array, LABELS)


def test_a_segmentation_object_is_placed_on_a_mask_too(tmp_path, image):
    write_mask(tmp_path / "m.nii", LABELS, like=image)
    path = seg(tmp_path / "seg.dcm", BINARY)
    on_mask = read_mask(path, read_mask(tmp_path / "m.nii"), labels=NAMES)
    np.testing.assert_array_equal(on_mask.array, LABELS)


def test_a_header_rounded_by_another_program_is_accepted_and_flagged(tmp_path):
    """Direction cosines of four decimals, kept apart from the spacing and made orthonormal."""
    cosines = np.round(_rotation(0.21, -0.13, 0.09), 4)
    affine, other = np.eye(4), np.eye(4)
    steps = np.diag([-0.9375, -0.9375, 4.4])
    affine[:3, :3], affine[:3, 3] = cosines @ steps, (100, 80, -60)
    left, _, right = np.linalg.svd(cosines)
    other[:3, :3], other[:3, 3] = left @ right @ steps, (100, 80, -60)
    shape = (256, 256, 40)
    distance = grid_distance_mm(affine, other, shape)
    assert 0.003 < distance < 0.23
    labels = np.zeros(shape, np.uint8)
    labels[100:120, 90:130, 10:20] = 1
    image = Image(np.zeros((1, *shape), np.float32), (0.9375, 0.9375, 4.4), affine)
    nibabel.save(nibabel.Nifti1Image(labels, other), tmp_path / "m.nii")
    mask = read_mask(tmp_path / "m.nii", image)
    assert mask.flags == ("mask_place_rounded",)
    np.testing.assert_array_equal(mask.array, labels)
    other[0, 3] += 0.06 * 0.9375  # negative control: more than 1/20 voxel to the side
    nibabel.save(nibabel.Nifti1Image(labels, other), tmp_path / "m.nii")
    with pytest.raises(ImageError, match=r"m\.nii: affine mismatch: .* or 1/20 voxel"):
        read_mask(tmp_path / "m.nii", image)


def _rotation(a: float, b: float, c: float) -> np.ndarray:
    """Turns about the three axes, in radians."""
    (ca, cb, cc), (sa, sb, sc) = np.cos([a, b, c]), np.sin([a, b, c])
    about_x = np.array([[1, 0, 0], [0, ca, -sa], [0, sa, ca]])
    about_y = np.array([[cb, 0, sb], [0, 1, 0], [-sb, 0, cb]])
    return about_x @ about_y @ np.array([[cc, -sc, 0], [sc, cc, 0], [0, 0, 1]])


def test_planes_of_overlapping_structures_make_the_round_trip(tmp_path):
    image = read_image(left_handed(tmp_path)[0])
    planes = np.stack([LABELS == 1, LABELS > 0]).astype(np.uint8)
    write_mask(tmp_path / "m.nii", planes, like=image)
    mask = read_mask(tmp_path / "m.nii", like=image, labels=NAMES, multi_label=True)
    np.testing.assert_array_equal(mask.array, planes)
    with pytest.raises(ImageError, match="the mask has 2 planes; expected one label per voxel"):
        read_mask(tmp_path / "m.nii", like=image, labels=NAMES)
    write_mask(tmp_path / "c.nii", LABELS, like=image)
    split = read_mask(tmp_path / "c.nii", like=image, labels=NAMES, multi_label=True)
    np.testing.assert_array_equal(split.array, [LABELS == 1, LABELS == 2])


def test_a_sheared_affine_is_kept_in_the_sform_alone(tmp_path):
    affine = np.diag([1.0, 1, 2, 1])
    affine[1, 2] = 0.5
    image = Image(np.zeros((1, *SHAPE), np.float32), (1.0, 1.0, 2.0), affine)
    write_mask(tmp_path / "m.nii", LABELS, like=image)
    written = nibabel.load(tmp_path / "m.nii")
    np.testing.assert_allclose(written.affine, affine)
    assert int(written.header["qform_code"]) == 0
    assert read_mask(tmp_path / "m.nii", like=image).flags == ()


def test_an_image_without_a_place_gives_a_mask_without_one(tmp_path):
    image = Image(np.zeros((1, *SHAPE), np.float32), (1.0, 2.0, 3.0))
    write_mask(tmp_path / "m.nii", LABELS.astype(np.int64) * 300, like=image)
    written = nibabel.load(tmp_path / "m.nii")
    assert written.header.get_zooms() == (1.0, 2.0, 3.0)
    assert written.header.get_data_dtype() == np.uint16
    assert int(written.header["sform_code"]) == int(written.header["qform_code"]) == 0


def test_white_in_a_picture_is_the_label_one(tmp_path):
    image = Image(np.zeros((1, 7, 6), np.float32))
    write_mask(tmp_path / "m.png", (LABELS[2] == 1).astype(np.uint8), like=image)
    from PIL import Image as Picture

    with Picture.open(tmp_path / "m.png") as picture:
        assert np.unique(np.asarray(picture)).tolist() == [0, 255]
    mask = read_mask(tmp_path / "m.png", like=image, labels={1: "lung"})
    np.testing.assert_array_equal(mask.array, LABELS[2] == 1)
    assert "255 read as label 1" in mask.notes
    write_mask(tmp_path / "k.png", LABELS[2], like=image)
    np.testing.assert_array_equal(read_mask(tmp_path / "k.png", like=image).array, LABELS[2])
    Picture.fromarray(np.stack([LABELS[2] * 9] * 3, -1)).save(tmp_path / "rgb.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "rgb.png", like=image).array, LABELS[2] * 9)
    Picture.fromarray(np.stack([LABELS[2], LABELS[2] * 0, LABELS[2]], -1)).save(tmp_path / "c.png")
    grey = {255: "bone", 128: "marrow"}  # white is a label of its own here
    Picture.fromarray((LABELS[2] == 1).astype(np.uint8) * 255).save(tmp_path / "w.png")
    assert read_mask(tmp_path / "w.png", image, labels=grey).labels == (255,)
    with pytest.raises(ImageError, match="the mask is coloured"):
        read_mask(tmp_path / "c.png", like=image)


def test_a_slice_of_a_volume_has_a_slice_of_its_mask(tmp_path):
    path, _ = left_handed(tmp_path)
    write_mask(tmp_path / "m.nii.gz", LABELS, like=read_image(path))
    image = read_image(path, frame=2)
    mask = read_mask(tmp_path / "m.nii.gz", like=image, frame=2)
    np.testing.assert_array_equal(mask.array, LABELS[:, :, 2])
    with pytest.raises(ImageError, match="affine mismatch"):  # another slice is another place
        read_mask(tmp_path / "m.nii.gz", like=image, frame=3)


@pytest.mark.parametrize(
    ("name", "labels", "message"),
    [
        ("m.nii", np.zeros((5, 7, 5), np.uint8), r"m\.nii: a mask of shape \(5, 7, 5\)"),
        ("m.nii", np.full(SHAPE, -1), "labels from -1 to -1"),
        ("m.nii", np.full(SHAPE, 70000), "labels from 70000 to 70000"),
        ("m.png", LABELS, "a mask of 3 dimensions with labels up to 2 in this format"),
        ("m.mha", LABELS, r"expected \.nii or \.nii\.gz, or \.png"),
    ],
)
def test_what_a_file_cannot_hold_is_not_written(tmp_path, name, labels, message):
    image = Image(np.zeros((1, *SHAPE), np.float32))
    with pytest.raises(MedtlError, match=message):
        write_mask(tmp_path / name, labels, like=image)
    assert not (tmp_path / name).exists()


def test_an_empty_mask_without_labels_has_no_planes(tmp_path):
    image = read_image(left_handed(tmp_path)[0])
    write_mask(tmp_path / "m.nii", LABELS * 0, like=image)
    assert read_mask(tmp_path / "m.nii", like=image).flags == ("mask_empty",)
    with pytest.raises(ImageError, match="the mask is empty and no labels are stated"):
        read_mask(tmp_path / "m.nii", like=image, multi_label=True)


# -------------------------------------------------------------------------- SEG


def seg(path: Path, planes: dict[int, np.ndarray], kind: str = "BINARY", **common) -> Path:
    """Write a SEG of the segments on the grid of the series, last slice first, empty ones left."""
    groups, frames = [], []
    if kind == "LABELMAP":
        pairs = [(0, number, planes[0][number]) for number in range(5)]
    else:
        pairs = [
            (s, n, plane[n]) for s, plane in planes.items() for n in range(5) if plane[n].any()
        ]
    shift = common.pop("shift", 0.0)
    for segment, number, pixels in reversed(pairs):
        group, position, which = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [10.0 + shift, -20.0, 30.0 + 2.5 * number]
        group.PlanePositionSequence = [position]
        which.ReferencedSegmentNumber = segment
        group.SegmentIdentificationSequence = [which]
        groups.append(group)
        frames.append(pixels)
    shared, turn, measures = Dataset(), Dataset(), Dataset()
    turn.ImageOrientationPatient = [1.0, 0, 0, 0, 1, 0]
    measures.PixelSpacing = common.pop("spacing", [0.8, 0.7])
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [turn], [measures]
    segments = []
    for number, name in ((1, "SPLEEN"), (2, "liver "), (3, "vessel")):
        segment = Dataset()
        segment.SegmentNumber, segment.SegmentLabel = number, name
        segments.append(segment)
    pixels = np.stack(frames).astype(np.uint8)
    one_bit = {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0} if kind == "BINARY" else {}
    data = np.packbits(pixels.ravel(), bitorder="little").tobytes() if one_bit else None
    return write(
        path,
        pixels,
        data=data if data is None or len(data) % 2 == 0 else data + b"\0",
        Modality="SEG",
        PatientID=common.pop("patient", "P1"),
        SegmentationType=kind,
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=groups,
        SegmentSequence=segments,
        **one_bit,
        **common,
    )


BINARY = {1: LABELS == 2, 2: LABELS == 1}


def test_segments_are_found_by_name_and_placed_by_position(tmp_path, image):
    path = seg(tmp_path / "seg.dcm", BINARY)
    mask = read_mask(path, like=image, labels=NAMES, source=tmp_path / "s")
    np.testing.assert_array_equal(mask.array, LABELS)  # numbers in the file are swapped
    assert mask.array.dtype == np.uint8
    assert mask.flags == ()
    by_number = read_mask(path, like=image)
    np.testing.assert_array_equal(by_number.array, np.choose(LABELS, [0, 2, 1]))
    planes = read_mask(path, like=image, labels=NAMES, multi_label=True)
    np.testing.assert_array_equal(planes.array, [LABELS == 1, LABELS == 2])


def test_a_slice_takes_its_frames_of_a_seg(tmp_path, image):
    one = read_image(tmp_path / "s", frame=2)
    mask = read_mask(seg(tmp_path / "seg.dcm", BINARY), like=one, labels=NAMES)
    np.testing.assert_array_equal(mask.array, LABELS[2])


def test_a_label_map_and_a_fractional_segmentation(tmp_path, image):
    swapped = np.choose(LABELS, [0, 2, 1])
    path = seg(tmp_path / "map.dcm", {0: swapped}, "LABELMAP")
    np.testing.assert_array_equal(read_mask(path, like=image, labels=NAMES).array, LABELS)
    fraction = np.where(LABELS == 1, 127, 0)
    fraction[2, 3, 2] = 128
    path = seg(tmp_path / "f.dcm", {2: fraction}, "FRACTIONAL", MaximumFractionalValue=255)
    mask = read_mask(path, like=image, labels=NAMES)
    assert np.argwhere(mask.array).tolist() == [[2, 3, 2]]
    assert "fractional_segmentation_cut_at_one_half" in mask.flags
    assert "structures_absent_taken_as_empty" not in mask.flags


@pytest.mark.slow
def test_a_seg_written_by_highdicom_is_read(tmp_path, image):
    highdicom = pytest.importorskip("highdicom")
    from pydicom import dcmread
    from pydicom.sr.codedict import codes

    sources = [dcmread(path) for path in sorted((tmp_path / "s").iterdir())]
    for number, source in enumerate(sources):
        source.SOPInstanceUID = f"1.2.5.{number}"
        source.StudyInstanceUID = "1.2.6"
        for name in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"):
            setattr(source, name, "")
        source.AccessionNumber = source.ReferringPhysicianName = ""
    ids = highdicom.AlgorithmIdentificationSequence("a", codes.DCM.ArtificialIntelligence, "1")
    described = [
        highdicom.seg.SegmentDescription(
            number, name, codes.SCT.Organ, codes.SCT.Liver, "AUTOMATIC", ids
        )
        for number, name in NAMES.items()
    ]
    order = np.argsort([float(source.ImagePositionPatient[2]) for source in sources])
    stored = np.empty_like(LABELS)
    stored[order] = LABELS  # in the order of the files
    made = highdicom.seg.Segmentation(
        sources, stored, "BINARY", described, "1.2.7", 1, "1.2.8", 1, "m", "m", "1", "1"
    )
    made.save_as(tmp_path / "seg.dcm")
    mask = read_mask(tmp_path / "seg.dcm", like=image, labels=NAMES)
    np.testing.assert_array_equal(mask.array, LABELS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shift": 0.3}, r"the grid of the segmentation is not that of the image: pixels lie 0\.4"),
        ({"spacing": [1.6, 1.4]}, "are 2 to 2 voxels large"),
        ({"shift": 2.8}, "pixels of the segmentation lie outside the image"),
        ({"patient": "P2"}, "the mask is of another patient than the image"),
        ({"FrameOfReferenceUID": "9.9"}, "the mask is of another frame of reference"),
        ({"kind": "SOMETHING"}, r"an unknown Segmentation Type \(0062,0001\)"),
    ],
)
def test_a_seg_that_is_not_of_the_image_is_refused(tmp_path, image, changes, message):
    path = seg(tmp_path / "seg.dcm", BINARY, **changes)
    with pytest.raises(ImageError, match=message) as caught:
        read_mask(path, like=image, source=tmp_path / "s", root=tmp_path)
    assert "P2" not in str(caught.value)
    assert str(caught.value).startswith("seg.dcm: ")


def test_structures_that_overlap_or_are_not_there_are_refused(tmp_path, image):
    overlap = {1: LABELS == 1, 2: LABELS >= 1}
    path = seg(tmp_path / "seg.dcm", overlap)
    with pytest.raises(ImageError, match="structure 2 overlaps another one in 27 voxels"):
        read_mask(path, like=image)
    planes = read_mask(path, like=image, multi_label=True).array
    np.testing.assert_array_equal(planes, [*overlap.values(), LABELS * 0])
    with pytest.raises(ImageError, match=r"none of the 3 segments has .* one of kidney"):
        read_mask(path, like=image, labels={1: "kidney"})
    one = read_mask(path, like=image, labels={5: "vessel", 6: "kidney"})
    assert one.flags == ("structures_absent_taken_as_empty", "mask_empty")


def test_a_dicom_mask_needs_an_image_with_a_place(tmp_path):
    bare = Image(np.zeros((1, *SHAPE), np.float32))
    with pytest.raises(ImageError, match="the image has no position in the patient"):
        read_mask(seg(tmp_path / "seg.dcm", BINARY), like=bare)


def test_a_frame_without_position_and_a_seg_without_pixels_are_refused(tmp_path, image):
    from pydicom import dcmread

    path = seg(tmp_path / "seg.dcm", BINARY)
    dataset = dcmread(path)
    del dataset.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence
    dataset.save_as(path)
    with pytest.raises(ImageError, match="frame 1 has no ImagePositionPatient"):
        read_mask(path, like=image)
    del dataset.PixelData
    dataset.save_as(path)
    with pytest.raises(ImageError, match="the segmentation has no pixel data"):
        read_mask(path, like=image)


# --------------------------------------------------------------------- RTSTRUCT

SQUARE = np.array([[1.5, 1.5], [1.5, 4.5], [4.5, 4.5], [4.5, 1.5]])  # (row, column)
"""Around the pixel centres 2, 3, 4 of both axes."""


def structures(
    path: Path, regions: dict[str, list[tuple[float, np.ndarray, str]]], **common
) -> Path:
    """Write an RTSTRUCT: name -> (slice, (row, column) points in pixels, type) of each contour."""
    dataset = Dataset()
    dataset.Modality, dataset.PatientID = "RTSTRUCT", "P1"
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    frame = Dataset()
    frame.FrameOfReferenceUID = common.get("frame", "1.2.9")
    dataset.ReferencedFrameOfReferenceSequence = [frame]
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(regions.items(), start=7):
        region, item = Dataset(), Dataset()
        region.ROINumber, region.ROIName = number, name
        item.ReferencedROINumber = number
        item.ContourSequence = []
        for z, points, kind in contours:
            contour = Dataset()
            contour.ContourGeometricType = kind
            contour.NumberOfContourPoints = len(points)
            lps = [(10 + 0.7 * c, -20 + 0.8 * r, 30 + 2.5 * z) for r, c in points]
            contour.ContourData = [f"{mm:.6f}" for mm in np.ravel(lps)][: common.get("cut")]
            item.ContourSequence.append(contour)
        dataset.StructureSetROISequence.append(region)
        dataset.ROIContourSequence.append(item)
    return save(path, dataset)


def test_contours_are_filled_and_inner_ones_cut_holes(tmp_path, image):
    hole = np.array([[2.5, 2.5], [2.5, 3.5], [3.5, 3.5], [3.5, 2.5]])
    liver = [(1, SQUARE, "CLOSED_PLANAR"), (1, hole, "CLOSED_PLANAR"), (2, SQUARE, "CLOSED_PLANAR")]
    spleen = [(0, SQUARE[:3], "CLOSEDPLANAR_XOR"), (3, SQUARE, "OPEN_PLANAR")]
    path = structures(tmp_path / "rt.dcm", {"LIVER": liver, "Spleen": spleen, "skin": spleen})
    mask = read_mask(path, like=image, labels=NAMES, source=tmp_path / "s")
    expected = np.zeros(SHAPE, np.uint8)
    expected[1:3, 2:5, 2:5] = 1
    expected[1, 3, 3] = 0
    # A triangle over the upper right: centres on its edge belong to the larger index.
    expected[0, 2, 2:5] = expected[0, 3, 3:5] = expected[0, 4, 4] = 2
    np.testing.assert_array_equal(mask.array, expected)
    assert mask.flags == ("contours_that_enclose_nothing_left_out",)


def test_any_polygon_agrees_with_matplotlib():
    from matplotlib.path import Path as Polygon

    rng = np.random.default_rng(3)
    rows, columns = np.mgrid[:40, :50]
    centres = np.stack([rows.ravel(), columns.ravel()], 1)
    for _ in range(20):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 15))
        radius = rng.uniform(3, 24, 15)  # some reach out of the image
        points = np.stack([18 + radius * np.sin(angles), 25 + radius * np.cos(angles)], 1)
        contour = np.column_stack([np.full(15, 1.0), points])
        filled, _ = rasterise([contour], (3, 40, 50), 0)
        expected = Polygon(np.vstack([points, points[:1]])).contains_points(centres)
        np.testing.assert_array_equal(filled[1].ravel(), expected)
        assert not filled[[0, 2]].any()


def test_the_axis_of_the_slices_may_be_any(tmp_path, image):
    contour = np.column_stack([SQUARE, np.full(4, 2.0)])
    filled, _ = rasterise([contour], (7, 6, 5), 2)
    assert np.argwhere(filled)[:, 2].tolist() == [2] * 9


def test_odd_contours_are_flagged(tmp_path, image):
    closed = "CLOSED_PLANAR"
    path = structures(tmp_path / "rt.dcm", {"liver": [(n, SQUARE, closed) for n in (0, 2, 9)]})
    mask = read_mask(path, like=image, labels={1: "liver"})
    assert set(mask.flags) == {"contours_skip_slices", "contours_outside_the_image_left_out"}
    path = structures(tmp_path / "rt.dcm", {"liver": []})
    assert read_mask(path, like=image, labels={1: "liver"}).flags == ("mask_empty",)


@pytest.mark.parametrize(
    ("contours", "changes", "labels", "message"),
    [
        ([(1.5, SQUARE)], {}, NAMES, r"a contour lies 0\.5 slices beside the nearest slice"),
        ([(1, SQUARE)], {}, None, "needs the names of the regions to read"),
        ([(1, SQUARE)], {"cut": 10}, NAMES, "a point without its three coordinates"),
        ([(1, SQUARE)], {"frame": "9.9"}, NAMES, "another frame of reference than the image"),
        ([(1, SQUARE)], {}, {1: "kidney"}, "none of the 1 regions has the name"),
    ],
)
def test_contours_that_are_not_of_the_image_are_refused(
    tmp_path, image, contours, changes, labels, message
):
    regions = {"liver": [(z, points, "CLOSED_PLANAR") for z, points in contours]}
    path = structures(tmp_path / "rt.dcm", regions, **changes)
    with pytest.raises(ImageError, match=message):
        read_mask(path, like=image, labels=labels, source=tmp_path / "s")


def test_contours_across_the_slices_are_refused(tmp_path, image):
    path = structures(tmp_path / "rt.dcm", {"liver": [(1, SQUARE, "CLOSED_PLANAR")]})
    from pydicom import dcmread

    dataset = dcmread(path)
    contour = dataset.ROIContourSequence[0].ContourSequence[0]
    contour.ContourData = [10, -20, 30, 12, -19, 32.5, 11, -18, 35]
    dataset.save_as(path)
    with pytest.raises(ImageError, match=r"a contour rises over \d+(\.\d+)? slices"):
        read_mask(path, like=image, labels=NAMES)


def test_another_dicom_image_can_be_a_mask(tmp_path):
    image = read_image(write(tmp_path / "i.dcm", VALUES[0]))
    path = write(tmp_path / "m.dcm", LABELS[2])
    np.testing.assert_array_equal(read_mask(path, like=image).array, LABELS[2])


def test_a_mask_may_cost_what_its_image_has_cost():
    usual = Limits()
    assert limits_beside((1, 64, 64)) == usual
    large = limits_beside((1, 20_000, 30_000))
    assert (large.pixels_per_frame, large.decoded_bytes) == (600_000_000, 2_400_000_000)
    assert large.inflate_ratio == usual.inflate_ratio

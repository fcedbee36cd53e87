"""One DICOM series to one volume: order, geometry, and every doubt refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_dicom import SHARED, save, write
from pydicom import dcmread
from pydicom.dataset import Dataset

from medtl.errors import ImageError
from medtl.io.cost import Limits
from medtl.io.dicom.series import read_series
from medtl.io.read import read_image

AXIAL = (1.0, 0, 0, 0, 1, 0)
SHAPE = (5, 7, 6)
VALUES = np.random.default_rng(5).integers(0, 4000, SHAPE).astype(np.uint16)


def place(number: float, turn: tuple[float, ...] = AXIAL, step: float = 2.5) -> list[float]:
    """Position of a slice `number * step` mm along the normal from (10, -20, 30)."""
    normal = np.cross(turn[:3], turn[3:])
    return [float(mm) for mm in np.array([10.0, -20.0, 30.0]) + number * step * normal]


def series(folder: Path, changes: dict[int, dict[str, Any]] | None = None, **common: Any) -> Path:
    """Write `VALUES` as a series whose names and instance numbers are out of order."""
    folder.mkdir(exist_ok=True)
    for number, name in enumerate("cadeb"):
        elements: dict[str, Any] = {
            "SOPInstanceUID": f"1.2.3.{number + 1}",
            "SeriesInstanceUID": "1.2.3",
            "FrameOfReferenceUID": "1.2.9",
            "ImagePositionPatient": place(number),
            "ImageOrientationPatient": list(AXIAL),
            "PixelSpacing": [0.8, 0.7],
            "SliceThickness": 2.5,
            "InstanceNumber": 9 - number,
            **common,
            **(changes or {}).get(number, {}),
        }
        known = {key: element for key, element in elements.items() if element is not None}
        pixels = known.pop("pixels", VALUES[number])
        write(folder / f"{name}.dcm", pixels, **known)
    return folder


def multi_frame(path: Path, order: tuple[int, ...], positions: list[list[float]]) -> Path:
    """Write `VALUES[order]` as an enhanced file whose frames lie at `positions[order]`."""
    shared = Dataset()
    orientation, measures = Dataset(), Dataset()
    orientation.ImageOrientationPatient = list(AXIAL)
    measures.PixelSpacing, measures.SliceThickness = [0.8, 0.7], 2.5
    shared.PlaneOrientationSequence = [orientation]
    shared.PixelMeasuresSequence = [measures]
    groups = []
    for number in order:
        group, position, rescale = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = positions[number]
        rescale.RescaleSlope, rescale.RescaleIntercept = 2.0, 10.0 * number
        rescale.RescaleType = "US"
        group.PlanePositionSequence = [position]
        group.PixelValueTransformationSequence = [rescale]
        groups.append(group)
    return write(
        path,
        VALUES[list(order)],
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=groups,
    )


# --------------------------------------------------------------- order and place


def test_slices_are_sorted_by_position_and_not_by_name_or_number(tmp_path):
    image = read_series(series(tmp_path / "s"))
    np.testing.assert_array_equal(image.array[0], VALUES)
    assert image.array.dtype == np.float32
    assert image.spacing == (2.5, 0.8, 0.7)
    assert image.modality == "ct"
    assert "5 slices sorted by position along their normal" in image.notes
    assert image.flags == ()
    # negative control: neither names nor instance numbers give this order
    names = sorted(path.name for path in (tmp_path / "s").iterdir())
    by_name = [read_image(tmp_path / "s" / name).array[0] for name in names]
    assert not np.array_equal(np.stack(by_name), VALUES)


def test_the_affine_puts_every_voxel_where_the_header_says_in_ras(tmp_path):
    turn = (0.0, 0.8, 0.6, 0.0, -0.6, 0.8)  # an oblique plane
    changes = {n: {"ImagePositionPatient": place(n, turn)} for n in range(5)}
    folder = series(tmp_path / "s", changes, ImageOrientationPatient=list(turn))
    image = read_series(folder)
    for k, r, c in [(0, 0, 0), (4, 6, 5), (2, 1, 4)]:
        # PS3.3 C.7.6.2.1.1, equation C.7.6.2.1-1, in LPS
        lps = np.array(place(k, turn)) + 0.7 * c * np.array(turn[:3]) + 0.8 * r * np.array(turn[3:])
        np.testing.assert_allclose((image.affine @ (k, r, c, 1))[:3], lps * (-1, -1, 1), atol=1e-6)


def test_a_list_of_files_and_the_common_door_give_the_same(tmp_path):
    folder = series(tmp_path / "s")
    volume = read_series(folder).array
    np.testing.assert_array_equal(read_series(list(folder.iterdir())).array, volume)
    np.testing.assert_array_equal(read_image(folder, root=tmp_path).array, volume)


def test_one_slice_is_taken_by_position(tmp_path):
    folder = series(tmp_path / "s")
    image = read_series(folder, frame=3)
    np.testing.assert_array_equal(image.array[0], VALUES[3])
    assert image.spacing == (0.8, 0.7)
    np.testing.assert_allclose(image.affine[:3, 3], np.array(place(3)) * (-1, -1, 1))
    assert "took slice 3 of 5 by position" in image.notes
    with pytest.raises(ImageError, match="slice 5 is asked for; expected 0 to 4"):
        read_series(folder, frame=5)


def test_every_slice_has_its_own_rescale(tmp_path):
    changes = {n: {"RescaleSlope": 1 + n, "RescaleIntercept": -100} for n in range(5)}
    image = read_series(series(tmp_path / "s", changes))
    expected = VALUES * (1.0 + np.arange(5))[:, None, None] - 100
    np.testing.assert_allclose(image.array[0], expected)


def test_padding_has_one_value_in_the_whole_volume(tmp_path):
    first, second = VALUES[0] + 500, VALUES[1] + 100
    first[0, 0] = second[0, 0] = 63
    changes = {
        0: {"pixels": first, "PixelPaddingValue": 63},
        1: {"pixels": second, "PixelPaddingValue": 63},
    }
    image = read_series(series(tmp_path / "s", changes))
    padded = image.array[0] == np.float32(image.header["padding_value"])
    assert np.argwhere(padded).tolist() == [[0, 0, 0], [1, 0, 0]]
    assert image.array[0][~padded].min() > float(image.header["padding_value"])


def test_frames_of_an_enhanced_file_are_sorted_and_rescaled_each(tmp_path):
    positions = [place(n) for n in range(5)]
    path = multi_frame(tmp_path / "a.dcm", (3, 0, 4, 1, 2), positions)
    image = read_series(path)
    expected = VALUES * 2.0 + 10.0 * np.arange(5)[:, None, None]
    np.testing.assert_allclose(image.array[0], expected)
    assert image.spacing == (2.5, 0.8, 0.7)
    np.testing.assert_allclose(image.affine, read_series(series(tmp_path / "s")).affine)
    np.testing.assert_allclose(read_series(path, frame=1).array[0], expected[1])


def test_a_tilted_enhanced_file_is_refused_too(tmp_path):
    positions = [[n * 0.5, 0.0, n * 2.5] for n in range(5)]
    with pytest.raises(ImageError, match=r"a\.dcm: the stack is tilted by 11\.3 degrees"):
        read_series(multi_frame(tmp_path / "a.dcm", (0, 1, 2, 3, 4), positions))


def test_a_single_slice_has_the_thickness_as_spacing_and_says_so(tmp_path):
    folder = series(tmp_path / "s")
    image = read_series([folder / "a.dcm"])
    assert image.array.shape == (1, 1, 7, 6)
    assert image.spacing == (2.5, 0.8, 0.7)
    assert "single_slice_spacing_from_thickness" in image.flags


# ------------------------------------------------------------------ other files


def test_files_that_are_no_images_are_left_out_and_named(tmp_path):
    folder = series(tmp_path / "s")
    (folder / "notes.txt").write_text("seen by the radiologist")
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "below").mkdir()
    report = Dataset()
    report.Modality, report.PatientID = "SR", "SOMEBODY"
    save(folder / "report.dcm", report)
    image = read_series(folder)
    np.testing.assert_array_equal(image.array[0], VALUES)
    assert "files_skipped_not_a_dicom_image" in image.flags
    note = "2 file(s) skipped, not a DICOM image: notes.txt, report.dcm"
    assert note in image.notes


def test_a_cut_slice_is_not_skipped(tmp_path):
    folder = series(tmp_path / "s")
    (folder / "d.dcm").write_bytes((folder / "d.dcm").read_bytes()[:400])
    with pytest.raises(ImageError, match=r"d\.dcm: (no pixel data|the DICOM header)"):
        read_series(folder)


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(ImageError, match="the series has no files"):
        read_series(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ImageError, match=r"none of 1 file\(s\) is a DICOM image"):
        read_series(tmp_path)


# ---------------------------------------------------------------------- refusals

TILT = {n: {"ImagePositionPatient": [0.0, n * 0.67, n * 2.5]} for n in range(5)}
REFUSED: dict[str, tuple[dict[int, dict[str, Any]], str]] = {
    "gap": (
        {4: {"ImagePositionPatient": place(5)}},
        r"a gap of 5 mm between e\.dcm and b\.dcm, 2\.5 mm elsewhere, as if 1 slice\(s\) were",
    ),
    "irregular": (
        {2: {"ImagePositionPatient": place(2.2)}},
        r"irregular slice spacing: (3|2) mm between .* expected one distance within 0\.02",
    ),
    "duplicate": (
        {3: {"ImagePositionPatient": place(2)}},
        r"1 pair\(s\) of slices at the same position .*: d\.dcm and e\.dcm",
    ),
    "tilt": (TILT, r"the stack is tilted by 15\.0 degrees \(gantry tilt\)"),
    "orientation": (
        {1: {"ImageOrientationPatient": [1.0, 0, 0, 0, 0, 1]}},
        "the slices have several orientations, up to 1 apart",
    ),
    "spacing": (
        {1: {"PixelSpacing": [0.8, 0.75]}},
        r"Pixel Spacing \(0028,0030\) is 0\.8 x 0\.75 mm in a\.dcm and 0\.8 x 0\.7 mm in most",
    ),
    "size": (
        {1: {"pixels": VALUES[0, :4]}},
        r"the size in rows and columns is 4 x 6 in a\.dcm and 7 x 6 in most",
    ),
    "two series": ({1: {"SeriesInstanceUID": "1.2.4"}}, r"2 series among the slices \(1, 4 slices"),
    "two patients": ({1: {"PatientID": "OTHER"}}, "2 patients among the slices"),
    "two frames": ({1: {"FrameOfReferenceUID": "1.8"}}, "2 frames of reference among the slices"),
    "units": ({1: {"RescaleType": "US"}}, "2 modalities, colours or units among the slices"),
    "some rescaled": (
        {n: {"RescaleSlope": 1, "RescaleIntercept": -1024} for n in (0, 1, 2, 4)},
        r"2 kinds of value, rescaled and not, among the slices \(1, 4 slices",
    ),
    "one aside": (
        {1: {"ImagePositionPatient": [place(1)[0] + 5, *place(1)[1:]]}},
        r"a\.dcm lies 5 mm aside of the other slices",
    ),
    "localizer": (
        {1: {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}},
        r"a\.dcm: 1 of 5 slices is a localizer",
    ),
    "no position": (
        {1: {"ImagePositionPatient": None}},
        r"a\.dcm has no Image Position \(0020,0032\), so its place is unknown",
    ),
    "no orientation": (
        {n: {"ImageOrientationPatient": None} for n in range(5)},
        r"has no Image Orientation \(0020,0037\)",
    ),
    "broken orientation": (
        {n: {"ImageOrientationPatient": [1.0, 0, 0, 1, 0, 0]} for n in range(5)},
        "is not two unit vectors at right angles",
    ),
    "no spacing": ({n: {"PixelSpacing": None} for n in range(5)}, "no usable Pixel Spacing"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_doubtful_geometry_is_refused_by_name(tmp_path, name):
    changes, message = REFUSED[name]
    folder = series(tmp_path / "s", changes)
    with pytest.raises(ImageError, match=message) as caught:
        read_series(folder, root=tmp_path)
    text = str(caught.value)
    assert str(tmp_path) not in text
    assert "CANARY" not in text
    assert "OTHER" not in text
    assert text.startswith("s")


def test_rounding_of_positions_is_no_irregularity(tmp_path):
    changes = {n: {"ImagePositionPatient": [0.0, 0.0, round(n * 1.0 / 3, 2)]} for n in range(5)}
    image = read_series(series(tmp_path / "s", changes))
    assert image.spacing[0] == pytest.approx(1.33 / 4, abs=1e-6)


def test_a_single_slice_without_thickness_is_refused(tmp_path):
    folder = series(tmp_path / "s", {1: {"SliceThickness": None}})
    with pytest.raises(ImageError, match="a single slice without Slice Thickness"):
        read_series([folder / "a.dcm"])


def test_a_multi_frame_file_among_slices_is_refused(tmp_path):
    folder = series(tmp_path / "s")
    multi_frame(folder / "z.dcm", (0, 1, 2, 3, 4), [place(n) for n in range(5)])
    with pytest.raises(ImageError, match="a multi-frame file lies among other images"):
        read_series(folder)


def test_a_multi_frame_file_without_positions_is_refused(tmp_path):
    path = write(tmp_path / "cine.dcm", VALUES)
    with pytest.raises(ImageError, match=r"cine\.dcm: 5 frames with 0 positions"):
        read_series(path)


def test_a_volume_over_the_limit_is_refused_before_its_pixels_are_read(tmp_path):
    folder = series(tmp_path / "s")
    with pytest.raises(ImageError, match="at most the limit of 800"):
        read_series(folder, limits=Limits(decoded_bytes=800))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({0: {"WindowCenter": 9.0}}, "2 different windows"),
        ({n: {"WindowCenter": None, "WindowWidth": None} for n in range(5)}, "no window in the"),
    ],
)
def test_the_window_of_the_header_is_applied_only_if_it_is_one(tmp_path, changes, message):
    common = {"WindowCenter": 2000.0, "WindowWidth": 1000.0, "VOILUTFunction": "LINEAR_EXACT"}
    shown = read_series(series(tmp_path / "good", **common), voi=True)
    np.testing.assert_allclose(shown.array[0], np.clip((VALUES - 1500.0) / 1000.0, 0, 1), atol=1e-6)
    with pytest.raises(ImageError, match=message):
        read_series(series(tmp_path / "bad", changes, **common), voi=True)


@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="needs ../shared/data")
def test_the_series_of_the_shared_data_are_volumes():
    folders = sorted({p.parent for p in (SHARED / "data/mri_dicom_series").rglob("*.dcm")})
    shapes = {read_series(folder).array.shape for folder in folders}
    assert {(1, 32, 51, 35), (1, 35, 48, 36), (1, 40, 50, 34), (1, 22, 512, 512)} == shapes


def test_positions_of_few_decimals_are_not_aside(tmp_path):
    changes = {
        n: {"ImagePositionPatient": [10.0 + 0.05 * (n % 2), *place(n)[1:]]} for n in range(5)
    }
    assert read_series(series(tmp_path / "s", changes)).array.shape == (1, *SHAPE)


def test_frames_under_gantry_tilt_have_no_affine_of_a_block(tmp_path):
    """Read as one file, without the rules for a series: the slices shift, so it is no block."""
    straight = [place(n) for n in range(5)]
    tilted = [[x, y + 0.6 * n, z] for n, (x, y, z) in enumerate(straight)]
    order = (3, 0, 4, 1, 2)
    good = read_image(multi_frame(tmp_path / "good.dcm", order, straight))
    assert good.affine is not None
    assert good.spacing == (2.5, 0.8, 0.7)
    bad = read_image(multi_frame(tmp_path / "bad.dcm", order, tilted))
    assert (bad.affine, bad.spacing) == (None, None)
    assert "frames_lie_aside_of_each_other_as_under_gantry_tilt" in bad.flags
    assert not any("aside" in flag for flag in good.flags)


def test_frames_of_which_some_are_rescaled_are_refused(tmp_path):
    path = multi_frame(tmp_path / "a.dcm", (0, 1, 2, 3, 4), [place(n) for n in range(5)])
    dataset = dcmread(path)
    del dataset.PerFrameFunctionalGroupsSequence[2].PixelValueTransformationSequence
    save(tmp_path / "b.dcm", dataset)
    with pytest.raises(ImageError, match="some frames have a Rescale Slope"):
        read_image(tmp_path / "b.dcm")
    assert read_image(path).array.shape == (1, *SHAPE)

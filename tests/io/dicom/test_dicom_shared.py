"""Real and deliberately bad files of the shared folder, and pydicom as the independent oracle."""

from __future__ import annotations

import csv
import json
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from make_dicom import SHARED
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from medtl.errors import ImageError
from medtl.io.dicom import image as dicom
from medtl.io.read import read_image
from medtl.types import Image

CORPUS = SHARED / "corpus"
ODD = SHARED / "data" / "dicom_odd"
MOSAICS = ("nibabel__0.dcm", "nibabel__1.dcm")
"""Odd files whose pixels are whole and are no image all the same: they are refused."""
PAIRS = "nii_mask_"
"""Kinds about an image and its mask together: no reader can judge them."""


def kinds() -> list[dict]:
    """Return the corpus kinds that a single file decides."""
    if not CORPUS.is_dir():
        return []
    every = json.loads((CORPUS / "manifest.json").read_text(encoding="utf-8"))["kinds"]
    return [
        kind
        for kind in every
        if (kind["family"] in ("dicom", "image", "nifti") or kind["id"] == "ser_enhanced_ct")
        and kind["id"] != "dcm_folder_traps"
        and not kind["id"].startswith(PAIRS)
    ]


def odd_files() -> list[dict[str, str]]:
    """Return the rows of the manifest of odd DICOM files."""
    if not ODD.is_dir():
        return []
    with (ODD / "manifest.csv").open(encoding="utf-8", newline="") as source:
        return list(csv.DictReader(source))


def test_the_shared_folder_is_there():
    if not CORPUS.is_dir() or not ODD.is_dir():
        pytest.skip("the shared folder beside the repository is absent")
    assert len(kinds()) >= 90
    assert len(odd_files()) >= 190


def outcome(path: Path, **options) -> Image | ImageError:
    """Return the image of a file, or the error that refuses it."""
    try:
        return read_image(path, **options)
    except ImageError as fault:
        return fault


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind["id"])
def test_the_corpus_verdict_holds(kind):
    expect = kind["expect"]
    for name in kind["inputs"]:
        result = outcome(CORPUS / name, root=CORPUS, color="keep")
        if isinstance(result, ImageError):
            text = str(result).lower()
            assert expect["verdict"] in ("reject", "either"), text
            assert name.lower() in text
            assert str(CORPUS).lower() not in text
        else:
            text = " ".join((*result.flags, *result.notes, *result.header.values())).lower()
            assert expect["verdict"] != "reject", text
            assert result.flags or expect["verdict"] == "accept"
            check_values(result, expect)
        if isinstance(result, ImageError) or expect["verdict"] != "accept":
            assert any(word in text for word in expect.get("words", [""])), text
        for canary in expect.get("never", []):
            assert canary.lower() not in text


def check_values(image, expect) -> None:
    """Compare an image with the exact probes of its kind."""
    array = image.array
    assert np.isfinite(array).all()
    array = array[0] if len(array) == 1 else np.moveaxis(array, 0, -1)
    tolerance = expect.get("tol", 0.5)
    for place, number in expect.get("values", []):
        assert abs(float(np.ravel(array[tuple(place)])[0]) - number) <= tolerance
    for place, color in expect.get("rgb", []):
        np.testing.assert_allclose(array[tuple(place)], color, atol=tolerance)
    for brighter, darker in expect.get("order", []):
        assert np.ravel(array[tuple(brighter)])[0] > np.ravel(array[tuple(darker)])[0]
    if "shape" in expect:
        assert list(array.shape) == expect["shape"]
    if "spacing" in expect:
        np.testing.assert_allclose(image.spacing, expect["spacing"], rtol=1e-5)


def test_padding_stays_out_of_the_statistics():
    wanted = next((k["expect"]["fields"] for k in kinds() if k["id"] == "dcm_pixel_padding"), None)
    if wanted is None:
        pytest.skip("the shared folder beside the repository is absent")
    image = read_image(CORPUS / "dicom/dcm_pixel_padding/a.dcm")
    real = image.array[image.array != np.float32(image.header["padding_value"])]
    assert real.mean() == pytest.approx(wanted["stats_mean"], abs=1e-3)
    assert real.std() == pytest.approx(wanted["stats_std"], abs=1e-3)
    assert real.min() == wanted["stats_min"]


@pytest.mark.parametrize("row", odd_files(), ids=lambda row: Path(row["image"]).name)
def test_odd_files_read_or_say_why(row, monkeypatch):
    """The manifest's vmin, vmax and shape are those of the stored values, colours as RGB."""
    stored = []
    decode = dicom.decode_frames

    def watch(*args, **options):
        result = decode(*args, **options)
        stored.append(result[0])
        return result

    monkeypatch.setattr(dicom, "decode_frames", watch)
    result = outcome(ODD / row["image"], root=ODD)
    if isinstance(result, ImageError):
        is_mosaic = Path(row["image"]).name in MOSAICS and "a mosaic" in str(result)
        assert row["pixel_ok"] != "True" or is_mosaic, str(result)
        assert row["image"] in str(result)
        return
    assert np.isfinite(result.array).all()
    if row["pixel_ok"] == "True":
        assert (stored[0].min(), stored[0].max()) == (float(row["vmin"]), float(row["vmax"]))
        squeezed = [n for n in stored[0].shape[:-1] if n > 1] + [3] * (stored[0].shape[-1] == 3)
        assert squeezed == [int(n) for n in row["shape"].split("x") if int(n) > 1]


@pytest.mark.parametrize(
    "row",
    [
        row
        for row in odd_files()
        if row["pixel_ok"] == "True"
        and row["photometric"].startswith("MONOCHROME2")
        and Path(row["image"]).name not in MOSAICS
    ],
    ids=lambda row: Path(row["image"]).name,
)
def test_values_agree_with_pydicom(row):
    path = ODD / row["image"]
    image = read_image(path, color="keep")
    if {"frames sorted by position along their normal", "pixel_padding"} & {
        *image.notes,
        *image.flags,
    }:
        pytest.skip("pydicom neither sorts frames nor sets padding aside")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path)
        oracle = apply_modality_lut(dataset.pixel_array, dataset)
        if "PerFrameFunctionalGroupsSequence" in dataset:
            pytest.skip("pydicom applies no functional groups")
        mine = np.squeeze(image.array)
        np.testing.assert_allclose(mine, np.squeeze(oracle), rtol=1e-6, atol=1e-3)
        if "WindowWidth" not in dataset or "broken_window" in image.flags:
            return
        shown = apply_voi_lut(oracle, dataset).astype(float)
    # pydicom's window goes to the range of the stored bits, carried through the rescale
    bits, signed = dataset.BitsStored, dataset.PixelRepresentation
    ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1])
    low, high = ends * float(dataset.get("RescaleSlope", 1)) + float(
        dataset.get("RescaleIntercept", 0)
    )
    mine = np.squeeze(read_image(path, color="keep", voi=True).array)
    np.testing.assert_allclose(mine, np.squeeze((shown - low) / (high - low)), atol=1e-4)

"""The one door: format by content, colours, oddities, and nothing but ImageError for junk."""

from __future__ import annotations

import contextlib
import gzip
import shutil
import subprocess
import sys

import nibabel
import numpy as np
import pytest
from make_dicom import write
from PIL import Image as Pillow
from pydicom import uid

from medtl.errors import ImageError
from medtl.io.read import read_image

GREY8 = np.arange(20 * 30, dtype=np.uint16).reshape(20, 30).astype(np.uint8)
COLOR8 = np.stack([GREY8, 255 - GREY8, GREY8 // 2], axis=-1)


def test_the_format_is_told_by_the_bytes_not_by_the_name(tmp_path):
    Pillow.fromarray(GREY8).save(tmp_path / "a.png")
    nibabel.save(nibabel.Nifti1Image(GREY8, np.eye(4)), tmp_path / "a.nii.gz")
    write(tmp_path / "a.dcm", GREY8)
    for number, name in enumerate(["a.png", "a.nii.gz", "a.dcm"]):
        wrong = tmp_path / f"{number}.jpg"
        shutil.copy(tmp_path / name, wrong)
        np.testing.assert_array_equal(read_image(wrong).array[0], GREY8)


def test_colour_becomes_what_is_asked_for(tmp_path):
    Pillow.fromarray(COLOR8).save(tmp_path / "c.png")
    Pillow.fromarray(GREY8).save(tmp_path / "g.png")
    grey = read_image(tmp_path / "c.png")
    luma = COLOR8 @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(grey.array[0], luma, rtol=1e-5)
    assert grey.notes[-1] == "colour to grey (BT.601 luma)"
    for color in ("rgb", "keep"):
        kept = read_image(tmp_path / "c.png", color=color)
        np.testing.assert_array_equal(kept.array, np.moveaxis(COLOR8, -1, 0))
    assert read_image(tmp_path / "g.png", color="rgb").array.shape == (3, 20, 30)
    assert read_image(tmp_path / "g.png", color="keep").array.shape == (1, 20, 30)


def test_voxels_that_are_not_finite_are_counted_and_replaced(tmp_path):
    values = np.linspace(-5, 5, 60, dtype=np.float32).reshape(3, 4, 5)
    values[0, 0, 1], values[1, 1, 1], values[2, 2, 2] = np.nan, np.inf, -np.inf
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii")
    image = read_image(tmp_path / "a.nii")
    assert image.array[0, 0, 0, 1] == -5.0
    assert "1 NaN and 2 infinite voxel(s) set to the smallest finite value" in image.notes
    assert {"nan_voxels", "infinite_voxels"} <= set(image.flags)
    nibabel.save(nibabel.Nifti1Image(values * np.nan, np.eye(4)), tmp_path / "b.nii")
    with pytest.raises(ImageError, match="no voxel is finite"):
        read_image(tmp_path / "b.nii")


def test_pictures_that_no_network_should_see_are_flagged(tmp_path):
    Pillow.fromarray(np.full((40, 40), 9, np.uint8)).save(tmp_path / "flat.png")
    assert read_image(tmp_path / "flat.png").flags == ("constant_image",)
    Pillow.fromarray(GREY8[:3]).save(tmp_path / "small.png")
    assert read_image(tmp_path / "small.png").flags == ("small_image",)
    Pillow.fromarray(np.tile(GREY8, (1, 10))).save(tmp_path / "long.png")
    assert read_image(tmp_path / "long.png").flags == ("extreme_aspect",)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "the file is empty"),
        (b"<html>not found</html>" * 40, "not an image of a known format"),
        (bytes(2000), "not an image of a known format"),
        (b"GIF89a" + bytes(100), "not an image of a known format"),
        (gzip.compress(b"x" * 1000, mtime=0), "the file is compressed with gzip"),
        (b"\x1f\x8b\x08" + bytes(50), "gzip stream is truncated or corrupt"),
    ],
)
def test_junk_is_refused_by_name(tmp_path, data, match):
    path = tmp_path / "sub" / "a.dcm"
    path.parent.mkdir()
    path.write_bytes(data)
    with pytest.raises(ImageError, match=match) as fault:
        read_image(path, root=tmp_path)
    assert str(fault.value).startswith("sub/a.dcm: ")
    with pytest.raises(ImageError, match=r"^a\.dcm: "):
        read_image(path)


@pytest.mark.parametrize(
    "kind",
    [
        "dcm",
        "rle",
        "jls",
        "j2k",
        "jpg.dcm",
        "jll",
        "deflated",
        "png",
        "jpg",
        "tif",
        "nii",
        "nii.gz",
    ],
)
def test_damaged_files_give_an_image_or_an_image_error(tmp_path, kind):
    pixels = np.random.default_rng(0).integers(0, 200, (24, 24)).astype(np.uint8)
    path = tmp_path / f"a.{kind}"
    syntaxes = {
        "dcm": uid.ExplicitVRLittleEndian,
        "rle": uid.RLELossless,
        "jls": uid.JPEGLSLossless,
        "j2k": uid.JPEG2000Lossless,
        "jpg.dcm": uid.JPEGBaseline8Bit,
        "jll": uid.JPEGLosslessSV1,
        "deflated": uid.DeflatedExplicitVRLittleEndian,
    }
    if kind in syntaxes:
        write(path, pixels, syntaxes[kind], WindowCenter="40", WindowWidth="400")
    elif kind.startswith("nii"):
        nibabel.save(nibabel.Nifti1Image(pixels, np.eye(4)), path)
    else:
        Pillow.fromarray(pixels).save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(60):
        raw = bytearray(whole)
        # Most flips go to the first bytes, where the structure is.
        for place in (rng.random(3) ** 2 * len(raw)).astype(int):
            raw[place] = int(rng.integers(256))
        path.write_bytes(raw[: int(rng.integers(1, len(raw) + 1))] if rng.random() < 0.3 else raw)
        with contextlib.suppress(ImageError):
            assert np.isfinite(read_image(path).array).all()


def test_threads_hear_their_own_warnings_and_leave_the_filters_as_they_were():
    import logging
    import threading
    import time
    import warnings

    from medtl.io.dicom.file import heard_warnings

    before = list(warnings.filters)
    heard: dict[str, list[str]] = {}

    def read(name: str, delay: float) -> None:
        with heard_warnings() as messages:
            time.sleep(delay)
            logging.getLogger("pydicom").warning("of %s", name)
            warnings.warn("shown to nobody", UserWarning, stacklevel=1)
            time.sleep(delay)
        heard[name] = messages

    threads = [threading.Thread(target=read, args=(f"t{n}", 0.01 * n)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard == {f"t{n}": [f"of t{n}"] for n in range(4)}
    assert warnings.filters == before


def test_whoever_predicts_png_files_waits_for_no_pydicom(tmp_path):
    Pillow.fromarray(GREY8).save(tmp_path / "a.png")
    code = (
        "import sys, medtl.run.predict\nfrom medtl.io.read import read_image\n"
        f"read_image({str(tmp_path / 'a.png')!r})\nsys.exit('pydicom' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

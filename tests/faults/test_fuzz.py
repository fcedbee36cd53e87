"""Damaged files of every format end in a documented error or in an image, never in anything else.

`filterwarnings = error` makes a warning that a library lets through a failure as well. The fast
version tries 60 files of each format; the slow one 2,000, with the same fixed seed.
"""

from __future__ import annotations

import csv
import gzip
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import make_dicom
import nibabel
import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from pydicom import uid
from tiny_study import RECIPE

from medtl.cases.columns import Columns
from medtl.cases.manifest import read_manifest
from medtl.errors import MedtlError
from medtl.io.read import read_image
from medtl.networks.pretrained.weight_files import read_tensors
from medtl.recipe.schema import parse_recipe
from medtl.storage.yaml import load_yaml
from medtl.training.checkpoint import load_checkpoint, save_checkpoint

SEED = 20261121
MOST_SECONDS = 240.0
"""A format that takes longer has a file that costs too much."""

GREY = np.random.default_rng(0).integers(0, 4000, (24, 20)).astype(np.uint16)
COLOUR = np.random.default_rng(1).integers(0, 255, (24, 20, 3)).astype(np.uint8)

Damage = Callable[[np.random.Generator, bytearray], bytes]


def flip(rng: np.random.Generator, data: bytearray) -> bytes:
    """Replace one to eight bytes, half of the time within the first kilobyte."""
    end = min(len(data), 1024) if rng.random() < 0.5 else len(data)
    for place in rng.integers(0, end, rng.integers(1, 9)):
        data[place] = rng.integers(256)
    return bytes(data)


def truncate(rng: np.random.Generator, data: bytearray) -> bytes:
    return bytes(data[: rng.integers(0, len(data))])


def extreme(rng: np.random.Generator, data: bytearray) -> bytes:
    """Write a number that lengths and counts are not made for."""
    words = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80")
    place = int(rng.integers(0, min(len(data), 2048)))
    width = int(rng.choice((2, 4)))
    data[place : place + width] = words[rng.integers(len(words))][:width]
    return bytes(data)


def shuffle(rng: np.random.Generator, data: bytearray) -> bytes:
    """Repeat, drop or move a piece."""
    start, stop, place = sorted(rng.integers(0, len(data), 3))
    piece = data[start:stop]
    kept = data if rng.random() < 0.5 else data[:start] + data[stop:]
    return bytes(kept[:place] + piece + kept[place:])


DAMAGES: tuple[Damage, ...] = (flip, flip, truncate, extreme, shuffle)


def dicoms(folder: Path) -> list[Path]:
    """One file of each family of transfer syntaxes, one with sequences and a window."""
    syntaxes = (
        *(uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian),
        *(uid.DeflatedExplicitVRLittleEndian, uid.RLELossless, uid.JPEG2000Lossless),
        *(uid.JPEGLSLossless, uid.JPEGLosslessSV1),
    )
    files = [
        make_dicom.write(folder / f"{number}.dcm", GREY, syntax, BitsStored=12, HighBit=11)
        for number, syntax in enumerate(syntaxes)
    ]
    files.append(make_dicom.write(folder / "c.dcm", COLOUR, uid.JPEGBaseline8Bit))
    item = make_dicom.lut(list(range(16)), 0, 8)
    elements: dict[str, Any] = {
        "ModalityLUTSequence": [item],
        "WindowCenter": [1, 2],
        "WindowWidth": [3, 4],
        "PixelSpacing": [0.5, 0.5],
        "ImagePositionPatient": [0, 0, 0],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PatientAge": "045Y",
        "PixelPaddingValue": 3,
    }
    files.append(make_dicom.write(folder / "s.dcm", np.stack([GREY, GREY]), **elements))
    return files


def niftis(folder: Path) -> list[Path]:
    volume = np.random.default_rng(2).integers(-50, 50, (9, 8, 7)).astype(np.int16)
    plain = nibabel.Nifti1Image(volume, np.diag([1.0, 2, 3, 1]))
    plain.header.set_slope_inter(0.5, -7)
    second = nibabel.Nifti2Image(volume.astype(np.float32), np.eye(4))
    files = [folder / "a.nii", folder / "b.nii.gz", folder / "c.nii", folder / "d.nii.gz"]
    for image, path in zip((plain, plain, second, second), files, strict=True):
        nibabel.save(image, path)
    files.append(folder / "inside.gz")
    files[-1].write_bytes(files[0].read_bytes())  # damaged first and compressed afterwards
    return files


def pngs(folder: Path) -> list[Path]:
    pictures = {
        "grey": Pillow.fromarray((GREY // 16).astype(np.uint8)),
        "deep": Pillow.fromarray(GREY),
        "rgb": Pillow.fromarray(COLOUR),
        "palette": Pillow.fromarray(COLOUR).quantize(16),
    }
    for name, picture in pictures.items():
        picture.save(folder / f"{name}.png", exif=picture.getexif())
    return sorted(folder.glob("*.png"))


def jpegs(folder: Path) -> list[Path]:
    Pillow.fromarray(COLOUR).save(folder / "a.jpg")
    Pillow.fromarray(COLOUR).save(folder / "b.jpg", progressive=True)
    Pillow.fromarray(COLOUR).convert("CMYK").save(folder / "c.jpg")
    exif = Pillow.Exif()
    exif[0x0112] = 6
    Pillow.fromarray(COLOUR[..., 0]).save(folder / "d.jpg", exif=exif)
    return sorted(folder.glob("*.jpg"))


def tiffs(folder: Path) -> list[Path]:
    for name in ("raw", "tiff_lzw", "tiff_deflate", "packbits"):
        picture = Pillow.fromarray(GREY if name == "raw" else COLOUR)
        picture.save(folder / f"{name}.tif", compression=name)
    return sorted(folder.glob("*.tif"))


def tables(folder: Path) -> list[Path]:
    rows = [("image", "patient_id", "label", "age", "split")]
    for number in range(12):
        name = f"{number}.png"
        (folder / name).write_bytes(b"x")
        rows.append((name, f'P"{number}, x', str(number % 2), "45", "train"))
    for name, encoding in (("a.csv", "utf-8-sig"), ("b.csv", "utf-16")):
        with (folder / name).open("w", encoding=encoding, newline="") as file:
            csv.writer(file).writerows(rows)
    return [folder / "a.csv", folder / "b.csv"]


def recipes(folder: Path) -> list[Path]:
    (folder / "a.yaml").write_text(RECIPE)
    odd = ("a: &x [1, 2.5, {b: yes}]", "c: *x", "d: |", "  text", "e: 'f'")
    (folder / "b.yaml").write_text("\n".join(odd))
    return [folder / "a.yaml", folder / "b.yaml"]


def checkpoints(folder: Path) -> list[Path]:
    tensors = {"model.a": torch.arange(6.0).reshape(2, 3), "model.n": torch.tensor(3)}
    save_checkpoint(folder / "a.safetensors", tensors, {"labels": ["x"]})
    return [folder / "a.safetensors"]


def weights(folder: Path) -> list[Path]:
    tensors = {"a": torch.arange(6.0).reshape(2, 3)}
    torch.save(tensors, folder / "a.pt")
    torch.save(tensors, folder / "b.pth", _use_new_zipfile_serialization=False)
    return [folder / "a.pt", folder / "b.pth"]


def read_nifti_or_inside(path: Path) -> None:
    """A damage inside a gzip stream would be seen by its checksum; this one gets behind it."""
    if path.name == "inside.gz":
        path.write_bytes(gzip.compress(path.read_bytes(), 1))
    read_image(path)


def check_manifest(path: Path) -> None:
    read_manifest(path, Columns(["label"]), salt=bytes(32))


def check_recipe(path: Path) -> None:
    data = load_yaml(path)
    if path.name == "a.yaml":
        parse_recipe(data, where=path.name)


FORMATS: Mapping[str, tuple[Callable[[Path], list[Path]], Callable[[Path], object]]] = {
    "DICOM": (dicoms, read_image),
    "NIfTI": (niftis, read_nifti_or_inside),
    "PNG": (pngs, read_image),
    "JPEG": (jpegs, read_image),
    "TIFF": (tiffs, read_image),
    "CSV": (tables, check_manifest),
    "YAML": (recipes, check_recipe),
    "safetensors": (checkpoints, load_checkpoint),
    "torch": (weights, read_tensors),
}


def fuzz(folder: Path, name: str, tries: int) -> tuple[int, int]:
    """Return how many damaged files were read and how many refused.

    Raises:
        AssertionError: For a file that raised anything undocumented; the file is left in `folder`.
    """
    make, read = FORMATS[name]
    sources = make(folder)
    originals = [path.read_bytes() for path in sources]
    for path in sources:
        read(path)
    rng = np.random.default_rng(SEED)
    done, started = [0, 0], time.monotonic()
    for number in range(tries):
        which = number % len(sources)
        damage = DAMAGES[rng.integers(len(DAMAGES))]
        damaged = damage(rng, bytearray(originals[which]))
        sources[which].write_bytes(damaged)
        try:
            read(sources[which])
            done[0] += 1
        except MedtlError:
            done[1] += 1
        except Exception as error:
            (folder / "culprit").write_bytes(damaged)
            text = f"{name} {number} ({sources[which].name}, {damage.__name__}): {error!r}"
            raise AssertionError(text) from error
        sources[which].write_bytes(originals[which])
        assert time.monotonic() - started < MOST_SECONDS, f"{name} {number} costs too much"
    return done[0], done[1]


@pytest.mark.parametrize("name", FORMATS)
def test_a_few_damaged_files(tmp_path: Path, name: str) -> None:
    read, refused = fuzz(tmp_path, name, 60)
    assert read + refused == 60
    assert refused >= 10  # the damages do damage


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_two_thousand_damaged_files(tmp_path: Path, name: str) -> None:
    read, refused = fuzz(tmp_path, name, 2000)
    assert read + refused == 2000
    assert min(read, refused) > 0

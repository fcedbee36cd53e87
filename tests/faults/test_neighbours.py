"""Files that no corpus has: each is a cousin of one that a corpus may have, built here.

Every one must be refused, or read with a flag, quickly and within little memory.
"""

from __future__ import annotations

import gzip
import os
import pickle
import resource
import struct
import threading
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import make_dicom
import nibabel
import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medtl.cases.columns import Columns
from medtl.cases.manifest import read_manifest
from medtl.errors import ImageError, ManifestError, MedtlError, RecipeError, WeightsError
from medtl.io.read import read_image
from medtl.networks.pretrained.weight_files import read_tensors
from medtl.storage.tables import read_table, write_table
from medtl.storage.yaml import load_yaml, loads
from medtl.training.checkpoint import load_checkpoint
from medtl.types import Image

PIXELS = np.arange(20 * 18, dtype=np.uint16).reshape(20, 18)
MOST_SECONDS, MOST_MB = 5.0, 400.0


@pytest.fixture(autouse=True)
def _cheap() -> Any:
    """Fail a test whose file costs more than a bomb may."""
    before, started = _peak_mb(), time.process_time()
    yield
    assert time.process_time() - started < 2 * MOST_SECONDS  # half of it makes the file
    assert _peak_mb() - before < MOST_MB


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def outcome(path: Path) -> Image | str:
    """The image, or why there is none."""
    try:
        return read_image(path)
    except ImageError as error:
        return str(error)


def png(*chunks: tuple[bytes, bytes], size: tuple[int, int] = (4, 4)) -> bytes:
    """A PNG of 8-bit grey with more chunks before its pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    width, height = size
    pixels = zlib.compress((b"\0" + b"\x7f" * width) * height)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    body = b"".join(chunk(kind, data) for kind, data in chunks)
    end = chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + body + end


ZEROS = zlib.compress(bytes(80 << 20), 9)


@pytest.mark.parametrize(
    "chunk",
    [(b"zTXt", b"k\0\0" + ZEROS), (b"iTXt", b"k\0\1\0\0\0" + ZEROS), (b"iCCP", b"k\0\0" + ZEROS)],
    ids=["zTXt", "iTXt", "iCCP"],
)
def test_text_and_profile_bombs_of_a_png(tmp_path: Path, chunk: tuple[bytes, bytes]) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(chunk))
    with pytest.raises(ImageError, match=r"a decompression bomb: the .* chunk"):
        read_image(path)


def test_text_in_a_png_goes_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png((b"tEXt", b"Patient\0CANARY"), size=(20, 20)))
    assert "CANARY" not in repr(read_image(path))


def tiff_of_pages(pages: int) -> bytes:
    """A little-endian TIFF whose directories hold no picture."""
    entries = struct.pack("<HHHII", 1, 256, 4, 1, 1)
    start, size = 8, len(entries) + 4
    directories = [entries + struct.pack("<I", start + size * (n + 1)) for n in range(pages - 1)]
    return b"II*\0" + struct.pack("<I", start) + b"".join(directories) + entries + bytes(4)


def test_a_tiff_of_very_many_pages_is_not_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_of_pages(300_000))
    with pytest.raises(ImageError, match=r"several frames or pages|corrupt"):
        read_image(path)


def test_a_tiff_that_leads_in_a_circle(tmp_path: Path) -> None:
    Pillow.fromarray(PIXELS).save(tmp_path / "a.tif")
    data = bytearray((tmp_path / "a.tif").read_bytes())
    directory = struct.unpack("<I", data[4:8])[0]
    entries = struct.unpack("<H", data[directory : directory + 2])[0]
    end = directory + 2 + 12 * entries
    data[end : end + 4] = data[4:8]
    (tmp_path / "a.tif").write_bytes(data)
    assert read_image(tmp_path / "a.tif").array.shape == (1, 20, 18)


@pytest.mark.parametrize("magic", [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0"])
def test_a_file_of_ten_gigabytes_that_says_it_is_a_picture(tmp_path: Path, magic: bytes) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(magic)
    os.truncate(path, 10 << 30)  # a hole: it takes no room on the disk
    with pytest.raises(ImageError, match="at most the limit"):
        read_image(path)


def test_a_header_element_of_a_gigabyte_is_passed_over(tmp_path: Path) -> None:
    item = make_dicom.header(PIXELS)
    head = make_dicom.save(tmp_path / "a.dcm", item)
    size = 1 << 30
    with head.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(struct.pack("<HH2sHI", 0x0051, 0x1010, b"OB", 0, size))
        file.seek(size, os.SEEK_CUR)
        file.write(struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, PIXELS.nbytes))
        file.write(PIXELS.tobytes())
    assert np.array_equal(read_image(head).array[0], PIXELS)


@pytest.mark.parametrize("is_undefined", [True, False])
def test_sequences_in_sequences(tmp_path: Path, is_undefined: bool) -> None:
    inner = Dataset()
    for _ in range(200):
        outer = Dataset()
        outer.ReferencedSeriesSequence = Sequence([inner])
        outer["ReferencedSeriesSequence"].is_undefined_length = is_undefined
        inner.is_undefined_length_sequence_item = is_undefined
        inner = outer
    path = make_dicom.write(
        tmp_path / "a.dcm", PIXELS, PerFrameFunctionalGroupsSequence=Sequence([inner])
    )
    said = outcome(path)
    assert isinstance(said, Image) or "nested" in said or "cannot be" in said


def test_a_deflated_dicom_bomb(tmp_path: Path) -> None:
    path = make_dicom.write(tmp_path / "a.dcm", PIXELS, uid.DeflatedExplicitVRLittleEndian)
    data = path.read_bytes()
    start = data.index(b"1.2.840.10008.1.2.1.99") + 22
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    zeros = b"".join(deflater.compress(bytes(1 << 20)) for _ in range(300)) + deflater.flush()
    path.write_bytes(data[:start] + zeros)
    with pytest.raises(ImageError, match="inflate to"):
        read_image(path)


@pytest.mark.parametrize(
    ("elements", "cause"),
    [
        ({"NumberOfFrames": 2**31 - 1}, "limit|frames"),
        ({"NumberOfFrames": -5}, "frame"),
        ({"Rows": 65535, "Columns": 65535}, "limit|truncated"),
        ({"RescaleSlope": "NaN", "RescaleIntercept": 0}, "not a number"),
        ({"RescaleSlope": "1e400", "RescaleIntercept": 0}, "not a number"),
        ({"BitsAllocated": 24}, "bits"),
        ({"BitsStored": 0}, "bits"),
        ({"SamplesPerPixel": 4}, "samples"),
        ({"PhotometricInterpretation": "CMYK"}, "unknown|samples"),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore")
def test_headers_that_contradict_their_pixels(
    tmp_path: Path, elements: dict[str, Any], cause: str
) -> None:
    from pydicom import config

    before = config.settings.writing_validation_mode
    config.settings.writing_validation_mode = config.IGNORE
    try:
        path = make_dicom.write(tmp_path / "a.dcm", PIXELS, data=PIXELS.tobytes(), **elements)
    finally:
        config.settings.writing_validation_mode = before
    said = outcome(path)
    if isinstance(said, Image):
        assert said.flags
    else:
        assert any(word in said.lower() for word in cause.split("|")), said


def nifti(path: Path, **fields: Any) -> Path:
    """A NIfTI file with fields of its header overwritten after they were checked."""
    image = nibabel.Nifti1Image(PIXELS[..., None].repeat(4, 2).astype(np.int16), np.eye(4))
    header = image.header.copy()
    header["vox_offset"], header["sform_code"] = 352, 1
    for name, field in fields.items():
        header[name] = field
    path.write_bytes(header.binaryblock + bytes(4) + np.asarray(image.dataobj).tobytes(order="F"))
    return path


@pytest.mark.parametrize(
    "fields",
    [
        {"dim": [3, -20, 18, 4, 1, 1, 1, 1]},
        {"dim": [3, 32767, 32767, 32767, 1, 1, 1, 1]},
        {"dim": [7, 2, 2, 2, 2, 2, 2, 2]},
        {"dim": [0, 1, 1, 1, 1, 1, 1, 1]},
        {"vox_offset": np.nan},
        {"vox_offset": np.inf},
        {"vox_offset": 1e30},
        {"vox_offset": -1e30},
        {"datatype": 1},
        {"datatype": 9999},
        {"bitpix": 0},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_nifti_headers_that_ask_for_the_impossible(tmp_path: Path, fields: dict[str, Any]) -> None:
    path = nifti(tmp_path / "a.nii", **fields)
    said = outcome(path)
    assert isinstance(said, Image) or said.startswith("a.nii: ")


@pytest.mark.parametrize(
    "fields",
    [
        {"srow_x": [np.nan] * 4},
        {"srow_x": [np.inf, 0, 0, 0]},
        {"srow_x": [1e38, 0, 0, 0]},
        {"srow_x": [0, 0, 0, 0]},
    ],
    ids=str,
)
def test_affines_that_place_nothing_are_flagged(tmp_path: Path, fields: dict[str, Any]) -> None:
    image = read_image(nifti(tmp_path / "a.nii", **fields))
    assert "sform_affine_singular" in image.flags


@pytest.mark.parametrize("fields", [{"scl_slope": np.nan}, {"scl_slope": np.inf}], ids=str)
def test_slopes_that_are_no_numbers(tmp_path: Path, fields: dict[str, Any]) -> None:
    said = outcome(nifti(tmp_path / "a.nii", **fields))
    assert "header" in said if isinstance(said, str) else np.isfinite(said.array).all()


def test_a_gzip_bomb_behind_an_honest_volume(tmp_path: Path) -> None:
    path = nifti(tmp_path / "a.nii")
    packed = gzip.compress(path.read_bytes())
    member = gzip.compress(bytes(64 << 20), 9)
    (tmp_path / "b.nii.gz").write_bytes(packed + member * 20)
    with pytest.raises(ImageError, match="inflate to"):
        read_image(tmp_path / "b.nii.gz")


def test_a_gzip_file_name_without_end(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(b"\x1f\x8b\x08\x08" + bytes(6) + b"x" * (50 << 20))
    with pytest.raises(ImageError, match="gzip"):
        read_image(path)


READERS: tuple[tuple[str, Callable[[Path], object]], ...] = (
    ("a.dcm", read_image),
    ("a.csv", read_table),
    ("a.parquet", read_table),
    ("a.yaml", load_yaml),
    ("a.pt", read_tensors),
    ("a.safetensors", load_checkpoint),
)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize(("name", "read"), READERS, ids=[name for name, _ in READERS])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "loop", "nowhere"])
def test_what_is_no_regular_file(
    tmp_path: Path, name: str, read: Callable[[Path], object], kind: str
) -> None:
    path = tmp_path / name
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        target = {"device": "/dev/zero", "loop": path, "nowhere": tmp_path / "gone"}[kind]
        path.symlink_to(target)
    results: list[object] = []

    def attempt() -> None:
        try:
            results.append(read(path))
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(20)
    assert results, "it waits for ever"
    assert isinstance(results[0], MedtlError), results[0]
    assert str(tmp_path) not in str(results[0])


# ------------------------------------------------------------------------------------------ tables


def test_a_table_on_its_side(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(",".join(f"c{n}" for n in range(100_000)) + "\n")
    with pytest.raises(ManifestError, match="100000 columns; expected at most"):
        read_table(path)


@pytest.mark.parametrize("head", [b"PK\x03\x04", b"\xd0\xcf\x11\xe0"])
def test_a_spreadsheet_named_csv(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(head + bytes(100))
    with pytest.raises(ManifestError, match="a spreadsheet or an archive"):
        read_table(path)


def test_a_table_without_end(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"image\n")
    os.truncate(path, 10 << 30)
    with pytest.raises(ManifestError, match="larger than the limit"):
        read_table(path)


def test_a_cell_of_a_megabyte(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('image,label\n"' + "x" * (1 << 20) + '",1\n')
    with pytest.raises(ManifestError, match="row 2"):
        read_manifest(path, Columns(["label"], one_image_per_patient=True), salt=bytes(32))


@pytest.mark.parametrize("cell", ["=1+1", "+cmd", "-2+3", "@SUM(A1)", "'=1", "＝1"])
def test_formulas_are_defused_and_come_back(tmp_path: Path, cell: str) -> None:
    write_table([{"a": cell}, {"a": -3.5}], tmp_path / "a.csv")
    text = (tmp_path / "a.csv").read_text("utf-8")
    assert not any(line.startswith(("=", "+", "@", "\t")) for line in text.splitlines())
    assert "\n-3.5\n" in text
    assert read_table(tmp_path / "a.csv").rows[0][0] == cell


# ------------------------------------------------------------------------------------------ recipes


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a: !!python/object/apply:os.system [ls]", "tag"),
        ("a: !!python/name:os.system", "tag"),
        ("a: !<tag:yaml.org,2002:binary> aGk=", "tag"),
        ("a: !!set {x, y}", "tag"),
        ("a: &a [*a]", "alias|anchor"),
        ("a: &a {b: *a}", "alias|anchor"),
        ("<<: {a: 1}", "merge"),
        ("? [1, 2]\n: 3", "key is not a plain text"),
        ("a: 1\n---\nb: 2", "second document"),
        ("%YAML 9.9\n---\na: 1", "YAML"),
        ("a: " + "[" * 5000, "nested|YAML"),
        ("a: " + "{b: " * 5000, "nested|YAML"),
        ("- " * 5000, "nested|top level"),
        ("a: " + "9" * 5000, "digits"),
        ("a: 'x\0y'", "YAML|character"),
        ("\ufeffa: [1, 2", "YAML"),
        ("a: &x " + "[" + "y," * 300 + "]\nb: [" + "*x," * 300 + "]", "expands"),
    ],
)
def test_configurations_that_are_attacks(text: str, found: str) -> None:
    with pytest.raises(MedtlError) as error:
        loads(text, "a.yaml")
    assert any(word in str(error.value) for word in found.split("|")), str(error.value)


def test_expressions_and_class_paths_are_texts() -> None:
    given = loads(
        'a: "$import os"\nb: {_target_: os.system, __import__: os}\nc: "${env:HOME}"', "x"
    )
    assert given == {
        "a": "$import os",
        "b": {"_target_": "os.system", "__import__": "os"},
        "c": "${env:HOME}",
    }


# ------------------------------------------------------------------------------------------ weights


class Payload:
    """What a pickle would run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.safetensors"])
def test_pickles_are_refused_and_never_run(tmp_path: Path, name: str, protocol: int) -> None:
    canary = tmp_path / "EXECUTED"
    (tmp_path / name).write_bytes(pickle.dumps(Payload(canary), protocol))
    with pytest.raises(WeightsError):
        read_tensors(tmp_path / name)
    with pytest.raises(WeightsError):
        load_checkpoint(tmp_path / name)
    assert not canary.exists()


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_payload_beside_honest_tensors(tmp_path: Path, is_zip: bool) -> None:
    canary = tmp_path / "EXECUTED"
    content = {"a": torch.zeros(3), "b": Payload(canary)}
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=is_zip)
    with pytest.raises(WeightsError, match="could run code"):
        read_tensors(tmp_path / "a.pt")
    assert not canary.exists()


def test_a_torch_archive_that_unpacks_to_more_than_it_is(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(10_000_000)}, tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as whole,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for name in whole.namelist():
            small.writestr(name, whole.read(name))
    with pytest.raises(WeightsError, match="decompression bomb"):
        read_tensors(tmp_path / "b.pt")


def safetensors(path: Path, header: str, data: bytes = b"", length: int | None = None) -> Path:
    text = header.encode()
    size = len(text) if length is None else length
    path.write_bytes(struct.pack("<Q", size) + text + data)
    return path


ENTRY = '{{"dtype":"F32","shape":[{shape}],"data_offsets":[{start},{end}]}}'


@pytest.mark.parametrize(
    ("header", "length"),
    [
        ("{}", 2**63),
        ("{}", 2**40),
        ('{"a":' + ENTRY.format(shape=4, start=0, end=16) + "}", None),  # no bytes at all
        ('{"a":' + ENTRY.format(shape=2**40, start=0, end=8) + "}", None),
        ('{"a":' + ENTRY.format(shape=2, start=8, end=0) + "}", None),
        (
            '{"a":'
            + ENTRY.format(shape=2, start=0, end=8)
            + ',"b":'
            + ENTRY.format(shape=2, start=4, end=12)
            + "}",
            None,
        ),
        ('{"a":' + "[" * 20_000 + "}", None),
        ('{"__metadata__":{"format":3}}', None),
    ],
)
def test_safetensors_headers_that_lie(tmp_path: Path, header: str, length: int | None) -> None:
    path = safetensors(tmp_path / "a.safetensors", header, bytes(8), length)
    for read in (read_tensors, load_checkpoint):
        with pytest.raises(WeightsError):
            read(path)


def test_every_fault_is_one_of_ours() -> None:
    for kind in (ImageError, ManifestError, RecipeError, WeightsError):
        assert issubclass(kind, MedtlError)

"""Decoded images are found again when nothing has changed, and only then."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from medtl.data import decoded
from medtl.data.decoded import DecodedImages
from medtl.data.reader import ImageReader, decode_cases
from medtl.errors import RunError
from medtl.preprocess.pipeline import Preprocessor
from medtl.storage import cache
from medtl.storage.atomic import TEMPORARY_MARK
from medtl.storage.cache import cache_folder, make_room
from medtl.types import Case

READER = ImageReader(
    Preprocessor(size=32, color="grey", mean=(0.5,) * 3, std=(0.25,) * 3, input_range=(0, 1))
)
GB = 2**30


@pytest.fixture
def cases(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    found = []
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 30)).astype(np.uint8)
        Picture.fromarray(pixels).save(folder / f"{number}.png")
        found.append(Case(f"c{number}", f"p{number}", folder / f"{number}.png"))
    return found


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


@pytest.fixture
def decodings(monkeypatch):
    """How many cases were decoded, each time that any were."""
    counts: list[int] = []

    def counting(cases, *arguments, **options):
        counts.append(len(cases))
        return decode_cases(cases, *arguments, **options)

    monkeypatch.setattr(decoded, "decode_cases", counting)
    return counts


def same(found, expected):
    (store, records), (other, others) = found, expected
    assert store.case_ids == other.case_ids
    for row in range(len(store.case_ids)):
        np.testing.assert_array_equal(store.units[row], other.units[row])
    assert records == others


def test_the_second_run_decodes_nothing_and_sees_the_same(cases, folder, decodings):
    cases[1].image.write_bytes(b"no image")  # what cannot be read is remembered with its cause
    expected = decode_cases(cases, READER)
    images = DecodedImages(folder, GB)
    same(images.decode(cases, READER), expected)
    told = []
    again = DecodedImages(folder, GB).decode(cases, READER, progress=lambda *a: told.append(a))
    same(again, expected)
    assert again[1][1].cause
    assert (decodings, told) == ([4], [(4, 4)])
    assert isinstance(again[0].units.values, np.memmap)


def test_a_split_or_a_root_makes_no_difference(cases, folder, decodings):
    images = DecodedImages(folder, GB)
    images.decode(cases, READER)
    others = [replace(case, split="test", targets={"x": "1"}) for case in cases]
    images.decode(others, replace(READER, root=folder))
    assert decodings == [4]


def touched(cases):
    content = bytearray(cases[0].image.read_bytes())
    stat = cases[0].image.stat()
    Picture.fromarray(np.zeros((40, 30), np.uint8)).save(cases[0].image)
    os.utime(cases[0].image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert content != cases[0].image.read_bytes()
    return cases


@pytest.mark.parametrize(
    ("change", "reader"),
    [
        (touched, READER),
        (lambda cases: cases[::-1], READER),
        (lambda cases: cases[:3], READER),
        (lambda cases: [replace(cases[0], case_id="other"), *cases[1:]], READER),
        (lambda cases: [replace(cases[0], frame=0), *cases[1:]], READER),
        (list, replace(READER, voi=True)),
        (list, replace(READER, preprocessor=replace(READER.preprocessor, size=24))),
    ],
    ids=["pixels", "order", "fewer", "id", "frame", "reading", "preprocessing"],
)
def test_what_changes_a_unit_image_is_decoded_anew(cases, folder, decodings, change, reader):
    images = DecodedImages(folder, GB)
    images.decode(cases, READER)
    changed = change(cases)
    same(images.decode(changed, reader), decode_cases(changed, reader))
    assert len(decodings) == 2


def test_another_version_of_the_code_believes_nothing(cases, folder, decodings, monkeypatch):
    DecodedImages(folder, GB).decode(cases, READER)
    monkeypatch.setattr(decoded, "code_fingerprint", lambda: "other")
    DecodedImages(folder, GB).decode(cases, READER)
    assert len(decodings) == 2


@pytest.mark.parametrize("suffix", [".units", ".json"])
@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "gone"])
def test_a_damaged_file_is_decoded_again(cases, folder, decodings, suffix, damage):
    images = DecodedImages(folder, GB)
    expected = decode_cases(cases, READER)
    images.decode(cases, READER)
    (path,) = folder.glob(f"*{suffix}")
    content = bytearray(path.read_bytes())
    if damage == "bit":
        content[3] ^= 1
    path.write_bytes(content[: {"cut": -5, "empty": 0}.get(damage, len(content))])
    if damage == "gone":
        path.unlink()
    same(images.decode(cases, READER), expected)
    same(images.decode(cases, READER), expected)
    assert len(decodings) == 2


def test_an_index_of_another_kind_is_not_believed(cases, folder, decodings):
    images = DecodedImages(folder, GB)
    images.decode(cases, READER)
    (path,) = folder.glob("*.json")
    for fault in ({"records": [{}]}, {"shapes": 3}):
        path.write_text(json.dumps({**json.loads(path.read_text()), **fault}))
        images.decode(cases, READER)
    assert len(decodings) == 3


def test_more_than_the_limit_is_used_and_not_kept(cases, folder):
    found = DecodedImages(folder, 100).decode(cases, READER)
    same(found, decode_cases(cases, READER))
    assert not list(folder.iterdir())


def test_what_was_used_longest_ago_makes_room(cases, folder, decodings):
    images = DecodedImages(folder, 2 * 4 * 32 * 32 * 2)
    for number, size in enumerate((32, 24, 32, 20)):
        reader = replace(READER, preprocessor=replace(READER.preprocessor, size=size))
        images.decode(cases, reader)
        for path in folder.iterdir():
            if path.stat().st_mtime > 10**6:
                os.utime(path, (number, number))
    images.decode(cases, replace(READER, preprocessor=replace(READER.preprocessor, size=24)))
    assert decodings == [4, 4, 4, 4], "32 was used again and 24 fits"


def test_an_interrupted_decoding_leaves_nothing(cases, folder):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        DecodedImages(folder, GB).decode(cases, READER, progress=stop)
    assert not list(folder.iterdir())


def test_a_full_disk_is_said_with_the_way_round_it(cases, folder, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(decoded, "decode_cases", full)
    with pytest.raises(RunError, match=r"cannot be written: No space.*run.cache_gb=0"):
        DecodedImages(folder, GB).decode(cases, READER)


def test_images_with_masks_are_left_to_their_task(cases, folder, monkeypatch):
    monkeypatch.setattr(decoded, "decode_cases", lambda *_, encode, **__: encode)
    assert DecodedImages(folder, GB).decode(cases, READER, encode=len) is len
    assert not list(folder.iterdir())


def test_the_cache_is_this_users_alone():
    folder = cache_folder("images")
    assert folder.parent.stat().st_mode & 0o077 == 0
    assert folder.is_relative_to(os.environ["XDG_CACHE_HOME"])


def test_a_cache_that_cannot_be_made_says_so(tmp_path, monkeypatch):
    (tmp_path / "medtl").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(RunError, match=r"the cache folder cannot be made.*run.cache_gb=0"):
        cache_folder("images")


def test_what_another_process_writes_is_not_deleted_unless_it_was_left(tmp_path):
    written, old = tmp_path / f".{TEMPORARY_MARK}1", tmp_path / f".{TEMPORARY_MARK}2"
    for path in (written, old):
        path.write_bytes(bytes(10))
    os.utime(old, (1, 1))
    assert make_room(tmp_path, 5, limit_bytes=9)
    assert (written.exists(), old.exists()) == (True, False)
    assert not make_room(tmp_path, 10, limit_bytes=9)


def test_any_change_of_the_code_changes_its_fingerprint(monkeypatch):
    before = cache.code_fingerprint.__wrapped__()
    read = Path.read_bytes
    changed = lambda path: read(path) + (b"#" if path.name == "geometry.py" else b"")  # noqa: E731
    monkeypatch.setattr(Path, "read_bytes", changed)
    assert cache.code_fingerprint.__wrapped__() != before
    assert cache.code_fingerprint() == before

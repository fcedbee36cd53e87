"""Decoded images are found again when nothing has changed, and only then."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

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
    assert all(isinstance(values, np.memmap) for values in again[0].units.values)


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
    ("change", "reader", "number"),
    [
        (touched, READER, 1),
        (lambda cases: [replace(cases[0], frame=0), *cases[1:]], READER, 1),
        (list, replace(READER, voi=True), 4),
        (list, replace(READER, preprocessor=replace(READER.preprocessor, size=24)), 4),
    ],
    ids=["pixels", "frame", "reading", "preprocessing"],
)
def test_what_changes_a_unit_image_is_decoded_anew(
    cases, folder, decodings, change, reader, number
):
    images = DecodedImages(folder, GB)
    images.decode(cases, READER)
    changed = change(cases)
    same(images.decode(changed, reader), decode_cases(changed, reader))
    assert decodings == [4, number]


@pytest.mark.parametrize(
    "change",
    [
        lambda cases: cases[::-1],
        lambda cases: cases[:3],
        lambda cases: [replace(cases[0], case_id="other"), *cases[1:]],
        lambda cases: [cases[2], replace(cases[0], targets={"other": "1"})],
    ],
    ids=["order", "fewer", "id", "another study"],
)
@pytest.mark.parametrize("size", [1, 3, 256])
def test_another_study_of_the_same_images_decodes_nothing(
    cases, folder, decodings, change, size, monkeypatch
):
    monkeypatch.setattr(decoded, "SHARD_IMAGES", size)
    images = DecodedImages(folder, GB)
    cases[3].image.write_bytes(b"no image")
    images.decode(cases, READER)
    before = len(decodings)
    changed = change(cases)
    same(images.decode(changed, READER), decode_cases(changed, READER))
    assert (len(decodings), before) == (before, -(-4 // size))


def test_no_byte_of_the_files_is_read_again(cases, folder, monkeypatch):
    images = DecodedImages(folder, GB)
    for case in cases:
        os.utime(case.image, (1e9, 1e9))
    expected = images.decode(cases, READER)
    for case in cases:
        content = case.image.stat()
        case.image.write_bytes(bytes(content.st_size))
        os.utime(case.image, ns=(content.st_atime_ns, content.st_mtime_ns))
    same(images.decode(cases, READER), expected)


def test_a_file_changed_within_the_grain_of_the_clock_is_seen(cases, folder, decodings):
    """Of one size, time and inode, so only its bytes tell: it was young when it was read."""
    images = DecodedImages(folder, GB)
    picture = lambda level: Picture.fromarray(np.full((8, 8), level, np.uint8))  # noqa: E731
    paths = [case.image for case in cases]
    for path in paths:
        picture(7).save(path.with_suffix(".bmp"))
    cases = [replace(case, image=case.image.with_suffix(".bmp")) for case in cases]
    images.decode(cases, READER)
    stat = cases[1].image.stat()
    picture(9).save(cases[1].image)
    os.utime(cases[1].image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other = cases[1].image.stat()
    assert (other.st_size, other.st_ino) == (stat.st_size, stat.st_ino)
    for _ in range(2):
        same(images.decode(cases, READER), decode_cases(cases, READER))
    assert decodings == [4, 1]


@pytest.mark.parametrize("other", [1, 2])
def test_a_kill_loses_one_shard(cases, folder, decodings, monkeypatch, other):
    monkeypatch.setattr(decoded, "SHARD_IMAGES", other)

    def stop(done, _):
        if done == 3:
            raise KeyboardInterrupt

    images = DecodedImages(folder, GB)
    with pytest.raises(KeyboardInterrupt):
        images.decode(cases, READER, progress=stop)
    kept = len(list(folder.glob("*.json")))
    assert kept == 2 // other
    del decodings[:]
    same(images.decode(cases, READER), decode_cases(cases, READER))
    assert sum(decodings) == 4 - kept * other
    assert {path.suffix for path in folder.iterdir()} == {".units", ".json"}, "no claim, no rest"


def test_processes_that_need_the_same_images_share_the_shards(
    cases, folder, decodings, monkeypatch
):
    monkeypatch.setattr(decoded, "SHARD_IMAGES", 1)
    images, found = DecodedImages(folder, GB), []
    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(images.decode, cases, READER) for _ in range(3)]:
            found.append(done.result())
    for one in found:
        same(one, decode_cases(cases, READER))
    assert sum(decodings) == 4


def test_a_change_of_rights_lets_an_image_be_tried_again(cases, folder):
    images, stat = DecodedImages(folder, GB), Path.stat
    before = images.decode(cases, READER)
    cases[0].image.chmod(0o600)
    assert stat(cases[0].image).st_mode & 0o777 == 0o600
    same(images.decode(cases, READER), before)
    assert len(list(folder.glob("*.json"))) == 2


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
    stated = json.loads(path.read_text().partition("\n")[2])
    for fault in ({"entries": [{}]}, {"entries": 3}):
        text = json.dumps({**stated, **fault})
        path.write_text(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")
        images.decode(cases, READER)
    assert len(decodings) == 3


def test_more_than_the_limit_is_refused_before_any_is_decoded(cases, folder, decodings):
    with pytest.raises(RunError, match=r"4 decoded images take .* GB, and run.cache_gb allows"):
        DecodedImages(folder, 100).decode(cases, READER)
    assert (decodings, list(folder.iterdir())) == ([], [])


def test_more_than_the_disk_holds_is_refused_before_any_is_decoded(
    cases, folder, decodings, monkeypatch
):
    monkeypatch.setattr(decoded.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(RunError, match=r"GB are free in the cache folder.*run.cache_gb=0"):
        DecodedImages(folder, GB).decode(cases, READER)
    assert decodings == []


def test_volumes_are_refused_once_their_size_is_known(cases, folder, decodings, monkeypatch):
    monkeypatch.setattr(decoded, "SHARD_VOLUMES", 1)
    monkeypatch.setattr(decoded._Work, "_bytes_each", lambda _: None)
    with pytest.raises(RunError, match=r"run.cache_gb allows"):
        DecodedImages(folder, 3 * 32 * 32 * 2).decode(cases, READER)
    assert decodings == [1]
    same(DecodedImages(folder, GB).decode(cases, READER), decode_cases(cases, READER))


def test_what_was_used_longest_ago_makes_room(cases, folder, decodings):
    images = DecodedImages(folder, 2 * 4 * (32 * 32 * 2 + decoded.ENTRY_BYTES))
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

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from medtl.cases.leaks import (
    check_patients,
    check_pixels,
    content_hash,
    find_duplicates,
    without_copies,
)
from medtl.cases.manifest import read_manifest
from medtl.errors import LeakError, ManifestError
from medtl.types import Case, Manifest


def manifest(*rows: tuple[str, str, str]) -> Manifest:
    """A manifest of (patient, split, label) rows with ids c2, c3, ... after their line."""
    cases = tuple(
        Case(f"c{row}", patient, Path(f"{row}.png"), {"label": label}, split=split, row=row)
        for row, (patient, split, label) in enumerate(rows, 2)
    )
    return Manifest(cases, Path(), "")


def test_patients_in_one_split_each_are_no_leak() -> None:
    check_patients(manifest(("p1", "train", "0"), ("p1", "train", "1"), ("p2", "test", "0")))
    check_patients(manifest(("p1", "", "0"), ("p1", "", "1")))


def test_every_patient_in_two_splits_is_named_with_rows() -> None:
    rows = [("p1", "train", "0")] * 7 + [("p1", "test", "0"), ("p2", "val", "0")]
    rows += [("p2", "train", "0"), ("p2", "test", "0"), ("p3", "test", "0")]
    with pytest.raises(LeakError, match=r"^manifest: 2 faults") as error:
        check_patients(manifest(*rows))
    text = str(error.value)
    assert "patient p1 is in train (rows 2, 3, 4, 5, 6 and 2 more) and in test (row 9)" in text
    assert "patient p2 is in train (row 11) and in val (row 10) and in test (row 12)" in text
    assert "p3" not in text


def test_a_content_hash_is_of_values_type_and_shape() -> None:
    array = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    assert content_hash(array) == content_hash(array.copy())
    assert content_hash(array) == content_hash(np.asfortranarray(array))
    assert content_hash(array) == content_hash(array.astype(">f4"))
    assert content_hash(array) == content_hash(np.repeat(array, 2, axis=2)[..., ::2])
    others = [array + 1, array.reshape(1, 4, 3), array.reshape(3, 4), array.astype(np.float64)]
    others += [array.swapaxes(1, 2), np.zeros((0, 3), np.float32), np.zeros((3, 0), np.float32)]
    assert len({content_hash(one) for one in [array, *others]}) == 8


def test_a_content_hash_stays_the_same_over_versions() -> None:
    expected = hashlib.sha256(b"<f4(1, 2, 2)" + bytes(16)).hexdigest()
    assert content_hash(np.zeros((1, 2, 2), np.float32)) == expected


def test_identical_pixels_in_two_splits_stop_the_run() -> None:
    one = manifest(("p1", "train", "0"), ("p2", "test", "1"), ("p3", "test", "1"))
    with pytest.raises(LeakError) as error:
        check_pixels({"c2": "h", "c3": "h", "c4": "other"}, one)
    assert str(error.value) == (
        "manifest: leak: identical pixels (same content hash) in case c2 (row 2, train) and case "
        "c3 (row 3, test). Keep one copy, or put all copies in one split."
    )


def test_many_copies_are_cut_short_but_every_split_is_shown() -> None:
    one = manifest(*[("p1", "train", "0")] * 9, ("p2", "test", "0"))
    with pytest.raises(LeakError, match=r"row 2, train.*row 11, test\) and 5 more") as error:
        check_pixels({case.case_id: "h" for case in one.cases}, one)
    assert "row 9" not in str(error.value)


def test_identical_pixels_in_one_split_are_noted() -> None:
    one = manifest(*[("p1", "train", "0")] * 2, ("p2", "val", "0"), ("p3", "val", "1"))
    assert check_pixels({"c2": "a", "c3": "a", "c4": "b", "c5": "b"}, one) == (
        "identical pixels in case c2 (row 2, train) and case c3 (row 3, train)",
        "identical pixels in case c4 (row 4, val) and case c5 (row 5, val), "
        "with different labels and under different patients",
    )
    assert check_pixels({"c2": "a", "c3": "b"}, one) == ()


def test_cases_that_could_not_be_read_are_left_out() -> None:
    one = manifest(("p1", "train", "0"), ("p2", "test", "0"))
    assert find_duplicates({"c2": "a"}, one) == []
    assert [len(group) for group in find_duplicates({"c2": "a", "c3": "a"}, one)] == [2]


def test_the_pixel_leak_of_the_corpus_is_found_and_its_control_is_clean(shared: Path) -> None:
    from medtl.io.read import read_image

    for kind, leaks in (("csv_pixel_leak", True), ("csv_ok", False)):
        path = shared / "corpus" / "csv" / kind / "manifest.csv"
        one = read_manifest(path, salt=b"s")
        hashes = {case.case_id: content_hash(read_image(case.image).array) for case in one.cases}
        if leaks:
            with pytest.raises(LeakError, match=r"row 2, train.* and .*row 25, test"):
                check_pixels(hashes, one)
        else:
            assert check_pixels(hashes, one) == ()


def equal_pixels(*names: str) -> dict[str, str]:
    """Content hashes by which these cases are one image."""
    return dict.fromkeys(names, "h")


def test_copies_are_dropped_and_named() -> None:
    films = manifest(("p", "train", "1"), ("q", "train", "0"), ("p", "train", "1"))
    kept, notes = without_copies(equal_pixels("c2", "c4") | {"c3": "other"}, films)
    assert [case.case_id for case in kept.cases] == ["c2", "c3"]
    assert notes == (
        "1 images are copies of others (equal pixels, equal labels) and are left out: row 4",
    )
    assert without_copies({"c2": "a", "c3": "b", "c4": "c"}, films) == (films, ())


def test_copies_with_other_labels_or_masks_are_a_fault(tmp_path: Path) -> None:
    films = manifest(("p", "train", "1"), ("p", "train", "0"))
    with pytest.raises(ManifestError, match="identical pixels with different labels"):
        without_copies(equal_pixels("c2", "c3"), films)
    masks = [tmp_path / "a.png", tmp_path / "b.png"]
    for number, mask in enumerate(masks):
        mask.write_bytes(bytes([number]))
    drawn = [Case(f"c{n}", "p", Path(f"{n}.png"), mask=mask) for n, mask in enumerate(masks)]
    with pytest.raises(ManifestError, match="labels or masks"):
        without_copies(equal_pixels("c0", "c1"), Manifest(tuple(drawn), Path(), ""))


def test_a_copy_in_another_split_is_dropped_only_if_its_patient_has_no_other_image() -> None:
    alone = manifest(("p", "train", "1"), ("q", "test", "1"), ("r", "test", "0"))
    kept, _ = without_copies(equal_pixels("c2", "c3"), alone)
    assert [case.case_id for case in kept.cases] == ["c2", "c4"]
    others = manifest(("p", "train", "1"), ("q", "test", "1"), ("q", "test", "0"))
    assert without_copies(equal_pixels("c2", "c3"), others) == (others, ())
    with pytest.raises(LeakError, match="identical pixels"):
        check_pixels(equal_pixels("c2", "c3"), others)

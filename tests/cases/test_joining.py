"""A sheet is joined to images by the id that fits, or the reader is told why not."""

from __future__ import annotations

import pytest

from medtl.cases.intake.joining import join_sheet
from medtl.errors import ManifestError


def image(**ids: str) -> dict[str, list[str]]:
    return {kind.replace("_", " "): [text] for kind, text in ids.items()}


IMAGES = [
    image(accession_number="0004711", patient_id="p1", file_name="a"),
    image(accession_number="0004712", patient_id="p1", file_name="b"),
    image(accession_number="0004713", patient_id="p2", file_name="c"),
]


def test_by_the_id_that_most_rows_fit() -> None:
    join = join_sheet(["0004713", "0004711"], IMAGES, column="Fall")
    assert (join.by, join.rows, join.lonely_rows) == ("accession number", (1, None, 0), ())
    assert "1 images have no row and are left out" in join.notes


def test_leading_zeros_that_a_spreadsheet_took_are_said() -> None:
    join = join_sheet(["4711", "4712", "4713"], IMAGES, column="Fall")
    assert join.rows == (0, 1, 2)
    assert any("without case, blanks and leading zeros" in note for note in join.notes)
    exact = join_sheet(["0004711", "0004712", "0004713"], IMAGES, column="Fall")
    assert not any("leading zeros" in note for note in exact.notes)


def test_one_row_of_a_patient_labels_all_images() -> None:
    join = join_sheet(["p2", "p1"], IMAGES, column="Patient")
    assert (join.by, join.rows) == ("patient id", (1, 1, 0))
    assert "rows with several images give each of them the same label" in join.notes


def test_rows_without_an_image_are_listed_by_number() -> None:
    join = join_sheet(["x", "p1", "", "y"], IMAGES, column="Patient")
    assert join.lonely_rows == (0, 3)
    assert "2 rows have no image: rows 2, 5" in join.notes
    assert "1 rows have no 'Patient'" in join.notes


def test_one_of_several_folders() -> None:
    images = [{"folder": ["Meier", "CT"]}, {"folder": ["Schulz", "CT"]}]
    assert join_sheet(["schulz", "MEIER"], images, column="Name").rows == (1, 0)


def test_an_image_that_two_rows_name_stays_alone() -> None:
    images = [{"folder": ["a", "b"]}, {"folder": ["a"]}]
    assert join_sheet(["a", "b"], images, column="Name").rows == (None, 0)


def test_nothing_fits() -> None:
    with pytest.raises(ManifestError, match="none of the 1 ids in column 'Fall'") as caught:
        join_sheet(["99"], IMAGES, column="Fall")
    assert "accession number (like 9999999), patient id (like a9)" in str(caught.value)


def test_two_ways_that_differ_are_asked_about() -> None:
    images = [
        image(accession_number="1", patient_id="2"),
        image(accession_number="2", patient_id="1"),
    ]
    with pytest.raises(ManifestError, match="accession number and patient id equally well"):
        join_sheet(["1", "2"], images, column="id")
    same = [
        image(accession_number="1", patient_id="1"),
        image(accession_number="2", patient_id="2"),
    ]
    assert join_sheet(["1", "2"], same, column="id").rows == (0, 1)


@pytest.mark.parametrize("keys", [["p1", "P1"], ["p1", "p1"], ["p01", "p1"]])
def test_a_key_in_two_rows_is_refused(keys: list[str]) -> None:
    with pytest.raises(ManifestError, match=r"rows 2, 3: .*more than one row"):
        join_sheet(keys, IMAGES, column="Patient")


def test_rounded_keys_are_refused() -> None:
    with pytest.raises(ManifestError, match="rounded by a spreadsheet"):
        join_sheet(["2.0231E+11", "p1"], IMAGES, column="Patient")


def test_no_message_quotes_an_id() -> None:
    for keys in (["secret"], ["secret", "secret"], ["p1", "secret"]):
        try:
            text = " ".join(join_sheet(keys, IMAGES, column="Patient").notes)
        except ManifestError as error:
            text = str(error)
        assert "secret" not in text


def test_nothing_fits_and_both_sides_are_shown_without_an_id() -> None:
    with pytest.raises(ManifestError, match="none of the 2 ids") as caught:
        join_sheet(["FALL-99/x", "FALL-98/y", ""], IMAGES, column="Fall")
    said = str(caught.value)
    assert "ids in column 'Fall' (like aaaa-99/a)" in said
    assert "accession number (like 9999999), patient id (like a9), file name (like a)" in said
    assert not any(one in said for one in ("FALL", "0004711", "p1"))


def test_images_without_one_kind_of_id_say_so() -> None:
    images = [image(accession_number="", file_name="x" * 50)]
    with pytest.raises(ManifestError) as caught:
        join_sheet(["7"], images, column="Fall")
    assert "accession number (all are empty)" in str(caught.value)
    assert f"file name (like {'a' * 20}...)" in str(caught.value)


def test_a_row_is_that_of_the_file_it_spells() -> None:
    """7.png and 07.png are two files: the label of one is not that of the other."""
    images = [{"file name": [f"{name}.png", name]} for name in ("7", "07", "8")]
    join = join_sheet(["7", "8"], images, column="Film")
    assert join.rows == (0, None, 1)
    assert "1 images have no row and are left out" in join.notes
    assert join_sheet(["07", "8"], images, column="Film").rows == (None, 0, 1)
    assert join_sheet(["007", "8"], images, column="Film").rows == (None, None, 1)
    alone = images[1:]  # a spreadsheet took the zero
    assert join_sheet(["7", "8"], alone, column="Film").rows == (0, 1)
    same = [*images, images[0]]  # in another folder
    assert join_sheet(["7", "8"], same, column="Film").rows == (0, None, 1, 0)
    people = [image(patient_id="7"), image(patient_id="07")]
    assert join_sheet(["7"], people, column="Patient").rows == (0, 0)

"""Cells that are the same to a reader are found; cells that are not, are not."""

from __future__ import annotations

import pytest

from medtl.cases.spellings import alike_id, folded, folded_id, is_no_id, is_rounded, spelled_alike

SAME_PERSON = [
    ("12", "12.0"), ("00012", "12"), ("p0003", "P0003"), ("P 3", "P\u00a03"), ("P3", "P\u200b3"),
    ("P 3", "P3"), ("１２", "12"), ("12", "12,0"), ("P-1-01", "P-1-1"), ("A\ufeff7", "a7"),
    ('="0012"', "12"), ("'12", "12"), ('"12.0"', "12"), ("12,340", "12340"), ("12.340", "12340"),
    ("12\u2019340", "12340"), ("P-003", "P3"), ("sub_01", "SUB-1"), ("2023/15", "2023-15"),
    ("2023\u201315", "2023-15"), ("P3.", "p3"),
]  # fmt: skip
TWO_PERSONS = [
    ("12", "120"), ("P-1-10", "P-11-0"), ("1.5", "1.50x"), ("p3", "q3"), ("10", "1"), ("0", "00a"),
    ("1-2", "12"), ("1.20", "1.2"), ("12-3", "1-23"), ("P-1-23", "P-12-3"), ("12,34", "1234"),
    ("1.2.840.10", "1.2.840.1"), ("3-a", "3-b"),
]  # fmt: skip


@pytest.mark.parametrize("pair", SAME_PERSON)
def test_one_person_in_two_spellings(pair: tuple[str, str]) -> None:
    assert alike_id(pair[0]) == alike_id(pair[1])
    assert spelled_alike(pair, ids=True) == [pair]


@pytest.mark.parametrize("pair", TWO_PERSONS)
def test_two_persons_stay_two(pair: tuple[str, str]) -> None:
    assert alike_id(pair[0]) != alike_id(pair[1])
    assert spelled_alike(pair, ids=True) == []


def test_labels_keep_their_zeros() -> None:
    assert folded("01") != folded("1")
    assert folded("1.0") == folded("1")
    assert folded("Pneumonia ") == folded("pneumonia\u200b") == folded("PNEUMONIA")


def test_the_same_cell_twice_is_one_spelling() -> None:
    assert spelled_alike(["a", "a", "", "b", ""]) == []


@pytest.mark.parametrize("text", ["2.0231E+11", "2,0231E+11", "1E+5", "2.02311e11"])
def test_rounded_by_a_spreadsheet(text: str) -> None:
    assert is_rounded(text)


@pytest.mark.parametrize("text", ["202310000017", "E11", "12.5", "1E", "P1E5", "2.0231E-11"])
def test_not_rounded(text: str) -> None:
    assert not is_rounded(text)


def test_what_is_compared_loosely_is_never_joined_by() -> None:
    assert folded_id("00012.0") == folded_id("12")
    for pair in [("12,340", "12340"), ("P-3", "P3"), ("2023/15", "2023-15")]:
        assert folded_id(pair[0]) != folded_id(pair[1])


@pytest.mark.parametrize("text", ["nan", "N/A", " null", "#####", "#REF!", "Unknown", "-", "?"])
def test_a_word_for_missing_is_no_id(text: str) -> None:
    assert is_no_id(text)


@pytest.mark.parametrize("text", ["Nana", "0", "N1", "#1", "P-", ""])
def test_an_id_is_one(text: str) -> None:
    assert not is_no_id(text)

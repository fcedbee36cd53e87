"""Errors say found, expected, where and fix; `located` adds the place."""

import pickle

import pytest

from medtl.errors import ImageError, ManifestError, MedtlError, RecipeError, located


def test_an_error_without_a_place_gets_it_and_keeps_its_kind_and_words() -> None:
    with pytest.raises(ImageError) as caught, located("a/film.dcm"):
        raise ImageError("the pixel data are empty", expected="4 bytes", fix="Copy it again")
    assert type(caught.value) is ImageError
    assert str(caught.value) == (
        "a/film.dcm: the pixel data are empty; expected 4 bytes. Copy it again."
    )


@pytest.mark.parametrize("inner", ["row 3", "line 2, column 'age'"])
def test_the_outer_place_stands_before_the_inner_one(inner: str) -> None:
    with pytest.raises(ManifestError) as caught, located("chest.csv"), located(inner):
        raise ManifestError("the age is -1")
    assert caught.value.where == f"chest.csv, {inner}"


def test_an_ellipsis_or_a_question_mark_ends_a_sentence_as_it_is() -> None:
    """It was cut to "bns1.bias, ." where a list of names was the last word."""
    fault = MedtlError("2 keys", expected="names as in bns1.weight, bns1.bias, ...", fix="Look.")
    assert str(fault) == "2 keys; expected names as in bns1.weight, bns1.bias, ... Look."
    assert str(MedtlError("3 found...", fix="Did you mean a?")) == "3 found... Did you mean a?"
    assert str(MedtlError("found 3.")) == "found 3."


def test_a_place_is_not_said_twice() -> None:
    with pytest.raises(MedtlError) as caught, located("chest.csv"), located("chest.csv"):
        raise MedtlError("no rows", where="chest.csv, row 1")
    assert caught.value.where == "chest.csv, row 1"


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(ValueError, match=r"^plain$"), located("chest.csv"):
        raise ValueError("plain")


def test_an_error_that_is_caught_inside_stays_as_it_was() -> None:
    fault = MedtlError("no rows", where="row 1")
    with located("chest.csv"):
        try:
            raise fault
        except MedtlError:
            pass
    assert fault.where == "row 1"


def test_a_recipe_names_the_file_once_for_all_its_faults() -> None:
    with pytest.raises(RecipeError) as caught, located("runs/chest"):
        raise RecipeError([MedtlError("no task", where="task")], where="recipe.yaml")
    assert str(caught.value) == "runs/chest, recipe.yaml: 1 fault\n  - task: no task."


def test_an_error_keeps_all_its_parts_on_the_way_from_another_process() -> None:
    with pytest.raises(ImageError) as caught, located("film.dcm"):
        raise ImageError("empty", expected="pixels", fix="Copy it again")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is ImageError
    assert str(copy) == str(caught.value)
    faults = pickle.loads(pickle.dumps(RecipeError([caught.value], where="r.yaml")))
    assert str(faults) == "r.yaml: 1 fault\n  - film.dcm: empty; expected pixels. Copy it again."

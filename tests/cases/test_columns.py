"""The columns of a study are stated once, whoever reads the table."""

from __future__ import annotations

import pytest

from medtl.cases.columns import NO_COLUMNS, Columns

DATA = {"target": "age", "mask": "m", "sex": "male", "strata": ("site", "sex"), "ids": "x"}


def test_every_key_of_the_recipe_that_names_a_column_is_read() -> None:
    columns = Columns.of(DATA)
    assert columns.names == ("age", "m", "site", "sex", "male")
    assert columns.about == ("site", "sex", "male")
    assert columns.described_by(["age", "sex", "image"]).about == ("site", "sex", "age", "male")
    assert Columns.of({"ids": "pseudonymous", "one_image_per_patient": True}) == Columns(
        ids="pseudonymous", one_image_per_patient=True
    )


def test_what_a_table_lacks_is_named_by_its_key() -> None:
    columns = Columns.of(DATA)
    present = ["image", "age", "site"]
    assert columns.missing_from(present) == {"mask": ["m"], "strata": ["sex"], "sex": ["male"]}
    assert columns.within(present).names == ("age", "site")
    assert columns.missing_from(columns.names) == {}  # negative control


@pytest.mark.parametrize("value", [None, 3, {"a": 1}, ["a", 2], True])
def test_what_is_no_text_names_no_column(value: object) -> None:
    assert Columns.of(dict.fromkeys(("target", "mask", "strata", "sex"), value)) == NO_COLUMNS

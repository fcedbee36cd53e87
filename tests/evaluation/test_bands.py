"""Ages as bands, and the columns that are left alone."""

import numpy as np
import pandas as pd
import pytest

from medtl.evaluation.bands import CHILDHOOD, DECADES, band_strata, bands_of


@pytest.mark.parametrize(
    ("value", "edges", "band"),
    [
        (0, DECADES, "0-9"), (9.9, DECADES, "0-9"), (10, DECADES, "10-19"), (90, DECADES, "90+"),
        (120, DECADES, "90+"), (-1, DECADES, "<0"), (np.nan, DECADES, "unknown"),
        (167, CHILDHOOD, "120-167"), (168, CHILDHOOD, "168+"), (0.5, (0.0, 0.5, 1.0), "0.5 to <1"),
    ],
)  # fmt: skip
def test_a_band_holds_its_lower_end(value: float, edges: tuple[float, ...], band: str) -> None:
    assert bands_of(np.array([value]), edges).tolist() == [band]


def test_columns_of_many_numbers_are_banded_and_it_is_noted() -> None:
    rows = 40
    table = pd.DataFrame({
        "age": [f"{20 + i:03d}Y" for i in range(rows)], "age_months": range(0, 200, 5),
        "dose": np.linspace(0, 1, rows), "site": range(rows), "grade": [1, 2] * 20,
        "name": [f"n{i}" for i in range(rows)],
    })  # fmt: skip
    table.loc[0, "age"] = ""
    banded, notes = band_strata(table, list(table))
    assert banded["age"][:2].tolist() == ["unknown", "20-29"]
    assert set(banded["age_months"]) == {"0-35", "36-71", "72-119", "120-167", "168+"}
    assert banded["dose"].nunique() == 4
    for name in ("site", "grade", "name"):
        assert banded[name].equals(table[name])
    assert notes == ["age was divided into decades", "age_months was divided into bands of"
                     " childhood", "dose was divided into quarters of the rows"]  # fmt: skip


@pytest.mark.parametrize("oldest", [1, 8])
def test_ages_above_89_are_a_band_of_their_own(oldest: int) -> None:
    ages = [str(30 + i) for i in range(30)] + ["90+"] * oldest
    banded, notes = band_strata(pd.DataFrame({"age": ages}), ["age"])
    assert banded["age"].value_counts().to_dict() == {"30-39": 10, "40-49": 10, "50-59": 10,
                                                      "90+": oldest}  # fmt: skip
    assert notes == ["age was divided into decades"]


def test_other_words_beside_ages_stay_words() -> None:
    ages = [str(30 + i) for i in range(30)]
    assert band_strata(pd.DataFrame({"age": [*ages, "80+"]}), ["age"])[0]["age"].iloc[-1] == (
        "unknown"
    )
    many = pd.DataFrame({"age": [*ages, *["adult"] * 8]})
    assert band_strata(many, ["age"])[0].equals(many)


def test_groups_that_differ_in_spelling_alone_are_said() -> None:
    table = pd.DataFrame({"sex": ["F", "f ", "M", None, "unknown"], "site": list("abcde")})
    banded, notes = band_strata(table, ["sex", "site"])
    assert banded.equals(table)
    assert notes == ["'sex' holds 'F', 'f ': groups that differ in spelling alone"]

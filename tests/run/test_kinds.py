"""What a kind of study gives to training, and what to everything that steers or tests it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from medtl.run.kinds import KINDS
from medtl.tasks.findings import Findings
from medtl.types import Case


def test_training_alone_learns_from_uncertain_cells() -> None:
    cells = ("1", "-1", "0")
    cases = [Case(f"c{n}", f"p{n}", Path("x"), {"a": cell}) for n, cell in enumerate(cells)]
    task = Findings(labels=("a",), uncertain={"a": "ones"})
    store = SimpleNamespace(rows=lambda cases: list(range(len(cases))))
    reader = SimpleNamespace(preprocessor=SimpleNamespace(standardise=None))
    make = KINDS["classification"].samples
    trained = make(None, task, reader, store, cases, None, 7).targets
    watched = make(None, task, reader, store, cases, None, None).targets
    assert trained[:, 0].tolist() == [1, 1, 0]
    np.testing.assert_array_equal(watched[:, 0], [1, np.nan, 0])


@pytest.mark.parametrize(
    ("kind", "sex", "columns", "named"),
    [
        ("bone_age", None, ["image", "Sex"], "'Sex'"),
        ("bone_age", None, ["male"], "'male'"),
        ("bone_age", "sex", ["sex"], ""),
        ("bone_age", None, ["image", "site"], ""),
        ("regression", None, ["sex"], ""),
        ("classification", None, ["sex"], ""),
    ],
)
def test_a_sex_that_a_bone_age_is_not_told_is_said(
    kind: str, sex: str | None, columns: list[str], named: str
) -> None:
    recipe: Any = SimpleNamespace(data=SimpleNamespace(sex=sex))
    said = " ".join(KINDS[kind].hints(recipe, columns))
    assert bool(said) == bool(named)
    assert named in said
    assert ("that the network is not told" in said) == bool(named)

"""Agreement of several readers against published values, and what is patients' due."""

from __future__ import annotations

import numpy as np
import pytest

from medtl.errors import PredictionsError
from medtl.metrics.readers.rater_agreement import reader_agreement

N = np.nan
FOUR_RATERS = [
    [1, 1, N, 1], [2, 2, 3, 2], [3, 3, 3, 3], [3, 3, 3, 3], [2, 2, 2, 2], [1, 2, 3, 4],
    [4, 4, 4, 4], [1, 1, 2, 1], [2, 2, 2, 2], [N, 5, 5, 5], [N, N, 1, 1], [N, N, 3, N],
]  # fmt: skip
"""Gwet's example with gaps (R irrCAC, cac.raw4raters)."""


def test_gaps_as_in_irrcac() -> None:
    _, kappa, ac1 = reader_agreement(FOUR_RATERS)
    assert (ac1.value, ac1.low, ac1.high) == pytest.approx((0.77544, 0.46081, 1.0), abs=1e-5)
    assert (kappa.value, kappa.low, kappa.high) == pytest.approx((0.76117, 0.42438, 1.0), abs=1e-5)


def test_fleiss_1971_textbook_table() -> None:
    # Ten cases, fourteen readers, five categories: kappa 0.210 (Fleiss' worked example).
    counts = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    marks = [np.repeat(np.arange(5), row) for row in counts]
    assert reader_agreement(marks)[1].value == pytest.approx(0.210, abs=5e-4)


def test_two_readers_by_hand() -> None:
    marks = [[1, 1]] * 4 + [[0, 0]] * 4 + [[0, 1]] * 2
    agreement, kappa, ac1 = reader_agreement(marks)
    assert [m.value for m in (agreement, kappa, ac1)] == pytest.approx([0.8, 0.6, 0.6])


def test_rare_findings_pull_kappa_down_but_not_ac1() -> None:
    marks = [[0, 0]] * 95 + [[0, 1]] * 3 + [[1, 0]] * 2
    agreement, kappa, ac1 = reader_agreement(marks)
    assert agreement.value == 0.95
    assert kappa.value is not None
    assert ac1.value is not None
    assert kappa.value < 0
    assert ac1.value > 0.9


def test_copied_cases_bring_no_certainty() -> None:
    marks = np.array([[1, 1]] * 12 + [[0, 0]] * 12 + [[0, 1]] * 8)
    once = reader_agreement(marks)[1]
    patients = np.repeat(np.arange(32), 4)
    known, naive = (
        reader_agreement(np.repeat(marks, 4, 0), patients=p)[1] for p in (patients, None)
    )
    assert (known.low, known.high) == pytest.approx((once.low, once.high))
    assert naive.low is not None
    assert once.low is not None
    assert naive.low > once.low


def test_order_of_cases_readers_and_codes_does_not_matter() -> None:
    random = np.random.default_rng(0)
    marks = random.integers(0, 3, (40, 4)).astype(float)
    usual = [m.value for m in reader_agreement(marks)]
    other = reader_agreement(10 - marks[random.permutation(40)][:, ::-1])
    assert [m.value for m in other] == pytest.approx(usual)


def test_what_cannot_be_said() -> None:
    assert {m.reason for m in reader_agreement([[1, 1], [1, 1]])} == {"all marks are equal"}
    alone = reader_agreement([[1, N], [N, 0]])
    assert {m.reason for m in alone} == {"no case was read by two readers"}
    assert reader_agreement([[1, 1], [0, 0], [1, 1]])[1].status == "degenerate"
    with pytest.raises(PredictionsError, match="marks of shape"):
        reader_agreement([1, 2, 3])

"""Loess as in R, and the indices of calibration that rest on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medtl.errors import PredictionsError
from medtl.metrics.curves import smooth_calibration as smooth
from medtl.metrics.curves.smooth_calibration import (
    calibration_indices,
    loess,
    smooth_calibration,
)
from medtl.metrics.scores import CI, Scores

TABLE = Path(__file__).parents[2] / "../shared/oracles2/two_test.csv"

FEW = CI(resamples=200)


def calibrated(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    score = rng.beta(2, 4, n)
    return rng.random(n) < score, score


@pytest.mark.skipif(not TABLE.is_file(), reason="the table of the oracle is absent")
def test_the_indices_of_austin_and_steyerberg_equal_r() -> None:
    table = pd.read_csv(TABLE)
    found = calibration_indices(table["y"], table["A"], ci=FEW)
    values = [measure.value for measure in found[:4]]
    assert values == pytest.approx([0.1090329, 0.1189123, 0.1841478, 0.1863108], abs=5e-8)
    assert {measure.status for measure in found[:4]} == {"degenerate"}


def test_vertices_are_those_of_r_where_values_are_tied() -> None:
    """R 4.2: loess(y ~ x) of these 20 values, three times each, cuts at these xi."""
    x = np.repeat(np.arange(20) / 20, 3)
    expected = [-0.00475, 0.1, 0.2, 0.35, 0.45, 0.6, 0.7, 0.85, 0.95475]
    assert loess(x).vertices == pytest.approx(expected)


def test_a_tied_fit_equals_r() -> None:
    x = np.repeat(np.arange(20) / 20, 3)
    y = np.tile([0, 0, 1, 1, 0, 1, 0, 1, 1, 1], 6)
    expected = [0.45261839921518, 0.60385501595637, 0.62267997805495, 0.57546452828549,
                0.61770479623753]  # fmt: skip
    assert loess(x)(x, y)[::12] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("n", [20, 60, 333])
def test_a_quadratic_is_reproduced(n: int) -> None:
    x = np.sort(np.random.default_rng(n).uniform(size=n))
    y = 0.2 + 0.5 * x - 0.3 * x**2
    fit = loess(x)
    slope = 0.5 - 0.6 * fit.vertices
    assert fit.operator @ y == pytest.approx(
        np.stack([0.2 + 0.5 * fit.vertices - 0.3 * fit.vertices**2, slope], axis=1), abs=1e-9
    )


def test_the_band_holds_the_diagonal_of_a_calibrated_model() -> None:
    held = []
    for seed in range(60):
        truth, score = calibrated(300, seed)
        curve = smooth_calibration(truth, score)
        at = np.searchsorted(curve.probability, [0.2, 0.35, 0.5])
        p = curve.probability[at]
        held += list((curve.low[at] <= p) & (p <= curve.high[at]))
    assert np.mean(held) > 0.9


def test_images_of_a_patient_widen_the_band() -> None:
    truth, score = calibrated(100)
    once = smooth_calibration(truth, score)
    again = (np.tile(truth, 3), np.tile(score, 3))
    thrice = smooth_calibration(*again, patients=np.tile(np.arange(100), 3))
    naive = smooth_calibration(*again)
    width, wide, narrow = (float((c.high - c.low).mean()) for c in (once, thrice, naive))
    assert wide > 0.9 * width
    assert narrow < 0.7 * width  # the control: without patients it is too narrow


def test_a_shifted_model_lies_outside_the_range_of_a_right_one() -> None:
    truth, score = calibrated(400)
    right = {m.name: m for m in calibration_indices(truth, score, ci=FEW)}
    wrong = {m.name: m for m in calibration_indices(truth, score**3, ci=FEW)}
    assert right["ici"].value <= right["ici_if_calibrated"].high
    assert wrong["ici"].value > 2 * wrong["ici_if_calibrated"].high


def test_what_cannot_be_smoothed_is_said() -> None:
    with pytest.raises(PredictionsError, match=r"5 rows to smooth.*at least 20"):
        loess(np.arange(5.0))
    with pytest.raises(PredictionsError, match="too many probabilities are equal"):
        loess(np.repeat([0.2, 0.7], [30, 2]))
    few = calibration_indices([0, 1, 0], [0.1, 0.9, 0.3])
    assert {m.reason for m in few} == {"3 rows to smooth"}
    assert {m.status for m in calibration_indices([1] * 30, np.arange(30) / 30)} == {"undefined"}


def test_pieces_that_are_blended_at_once_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    x = rng.random(500)
    truths = rng.random((500, 3)) < x[:, None]
    whole = loess(x)(x, truths)
    monkeypatch.setattr(smooth, "PIECE", 7)
    np.testing.assert_array_equal(loess(x)(x, truths), whole)
    assert not np.array_equal(loess(x)(x, ~truths), whole)


def test_a_fit_is_not_taken_for_that_of_other_rows() -> None:
    rng = np.random.default_rng(6)
    score = rng.random(80)
    first = Scores.of(rng.random(80) < score, score)
    second = Scores.of(first.truth, score**2)
    together = [calibration_indices(rows, ci=CI(resamples=20)) for rows in (first, second, first)]
    smooth._fits.clear()
    assert calibration_indices(second, ci=CI(resamples=20)) == together[1] != together[0]
    assert together[2] == together[0]

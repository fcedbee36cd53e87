"""Two sensitivities or specificities of the same rows, and non-inferiority."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from medtl.errors import PredictionsError
from medtl.metrics.comparison import mcnemar
from medtl.metrics.intervals import newcombe_difference
from medtl.metrics.operating_point import choose_operating_point
from medtl.metrics.readers.paired_shares import newcombe_paired, noninferiority, paired_share
from medtl.types import Measure

TWO = Path(__file__).parents[2] / "../shared/oracles2/two.csv"


def answers(table: list[list[int]]) -> tuple[list[int], list[int]]:
    """Rows with these counts: both right, only the first; only the second, neither."""
    (both, first), (second, neither) = table
    return [1] * (both + first) + [0] * (second + neither), (
        [1] * both + [0] * first + [1] * second + [0] * neither
    )


def test_newcombes_interval_of_a_published_table() -> None:
    # Cavo et al. 2012 in Fagerland, Lydersen, Laake 2017 (R contingencytables).
    found = newcombe_paired([[59, 6], [16, 80]])
    assert found == pytest.approx((-0.1186, -0.0046), abs=5e-5)


def test_without_correlation_it_is_the_interval_of_independent_shares() -> None:
    # 12 x 8 = 24 x 4: phi is 0 but for the correction, which cuts at 0.
    found = newcombe_paired([[12, 4], [24, 8]])
    assert found == pytest.approx(newcombe_difference((16, 48), (36, 48)))


@pytest.mark.parametrize("table", [[[9, 0], [0, 0]], [[0, 9], [0, 0]], [[5, 0], [0, 4]]])
def test_at_the_ends_there_is_an_interval(table: list[list[int]]) -> None:
    low, high = newcombe_paired(table)
    assert -1 <= low <= high <= 1
    assert not math.isnan(low)


def test_swapping_turns_the_sign() -> None:
    low, high = newcombe_paired([[30, 12], [2, 6]])
    assert newcombe_paired([[30, 2], [12, 6]]) == pytest.approx((-high, -low))


def test_two_models_of_the_published_table() -> None:
    if not TWO.is_file():
        pytest.skip("the table is not here")
    with TWO.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    called, truth = {}, {}
    for model in "AB":
        parts = {
            split: sorted(
                (row["case_id"], float(row["y_true"]), float(row["y_score"]))
                for row in rows
                if (row["model"], row["split"]) == (model, split)
            )
            for split in ("val", "test")
        }
        point = choose_operating_point(*zip(*[row[1:] for row in parts["val"]], strict=True))
        called[model] = np.array([row[2] for row in parts["test"]]) >= point.threshold
        truth[model] = np.array([row[1] for row in parts["test"]]) == 1
    assert (truth["A"] == truth["B"]).all()
    sick = truth["A"]
    found = paired_share(called["A"][sick], called["B"][sick])
    assert found.p == pytest.approx(0.6271, abs=5e-5)
    spared = paired_share(~called["A"][~sick], ~called["B"][~sick])
    assert spared.p == pytest.approx(0.0006428, abs=5e-8)
    assert spared.difference.value == pytest.approx(0.15, abs=0.01) or (
        spared.difference.value == pytest.approx(-0.15, abs=0.01)
    )


def test_one_row_a_patient_is_mcnemar() -> None:
    first, second = answers([[30, 12], [2, 6]])
    found = paired_share(first, second, patients=np.arange(50))
    assert found.p == mcnemar(first, second).p
    assert found.difference.value == pytest.approx(0.2)


def test_clusters_are_obuchowskis_test_by_hand() -> None:
    patients = [0, 0, 1, 1, 2, 3, 3, 4]
    first, second = [1, 1, 1, 0, 1, 1, 1, 0], [0, 1, 1, 0, 0, 0, 0, 1]
    found = paired_share(first, second, patients=patients)
    sums = np.array([1, 0, 1, 2, -1])
    z = sums.sum() / math.sqrt(5 / 4 * (sums**2).sum())
    assert found.statistic == pytest.approx(z)
    assert found.method.startswith("Obuchowski")
    # Chi-square of R clust.bin.pair: (K - 1) / K x (sum)^2 / (sum of squares).
    assert z**2 == pytest.approx(4 / 5 * 9 / 7)


def test_copied_rows_bring_no_certainty() -> None:
    first, second = answers([[30, 12], [2, 6]])
    patients = np.repeat(np.arange(50), 3)
    thrice = paired_share(np.repeat(first, 3), np.repeat(second, 3), patients=patients)
    naive = paired_share(np.repeat(first, 3), np.repeat(second, 3))
    once = paired_share(first, second)
    assert thrice.p is not None
    assert naive.p is not None
    assert once.p is not None
    assert thrice.p > naive.p
    assert thrice.p == pytest.approx(once.p, abs=0.02)


def test_no_rows_and_no_spread_are_said() -> None:
    assert paired_share([], []).difference.status == "undefined"
    same = paired_share([1, 1, 0], [1, 1, 0], patients=[0, 0, 1])
    assert (same.difference.status, same.p) == ("degenerate", 1.0)


@pytest.mark.parametrize(
    ("low", "high", "margin", "shown"),
    [(-0.02, 0.04, 0.05, True), (-0.06, 0.01, 0.05, False), (-0.05, 0.01, 0.05, False)],
)
def test_non_inferior_when_the_whole_interval_is_above_the_margin(
    low: float, high: float, margin: float, shown: bool
) -> None:
    measure = Measure("d", (low + high) / 2, low=low, high=high)
    found = noninferiority(measure, margin)
    assert (found.shown, found.bound, found.alpha) == (shown, low, 0.025)
    error = Measure("d", -(low + high) / 2, low=-high, high=-low)
    assert noninferiority(error, margin, higher_is_better=False).shown is shown


def test_without_an_interval_nothing_is_shown() -> None:
    assert noninferiority(Measure("d", 0.1), 0.05).shown is None


@pytest.mark.parametrize("margin", [0, -0.05, math.inf, math.nan])
def test_a_margin_is_above_0(margin: float) -> None:
    with pytest.raises(PredictionsError, match="a margin of"):
        noninferiority(Measure("d", 0.0, low=-0.1, high=0.1), margin)

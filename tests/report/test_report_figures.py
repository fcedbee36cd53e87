"""Figures: places by hand, labels escaped, nothing drawn outside the plot."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from medtl.report.svg import figures, panels, plot


def test_frame_maps_the_corners_and_keeps_inside() -> None:
    frame = plot.Frame(width=100, height=100, left=20, right=10, top=10, bottom=20)
    assert (frame.x(0), frame.x(1), frame.y(0), frame.y(1)) == (20, 90, 80, 10)
    assert (frame.x(0.5), frame.y(0.5)) == (55, 45)
    assert (frame.x(7), frame.y(-3)) == (90, 80)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.5, 1, [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
        (3, 3, [3]),
        (-13, 27, [-10, 0, 10, 20]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, ticks: list[float]) -> None:
    assert plot.nice_ticks(low, high) == pytest.approx(ticks)


def test_epochs_are_whole_numbers() -> None:
    halves = plot.Axis().numbers(0.5, 12.5)
    assert [text for _, text in halves] == ["2.5", "5", "7.5", "10", "12.5"]
    assert [text for _, text in plot.Axis(whole=True).numbers(0.5, 12.5)] == ["5", "10"]


def test_thinning_keeps_both_ends() -> None:
    kept = plot.thin(1000, 9)
    assert len(kept) == 9
    assert (kept[0], kept[-1]) == (0, 999)
    assert plot.thin(3, 9) == [0, 1, 2]


def test_curve_drops_points_that_are_not_numbers() -> None:
    curve = {"x": [0, None, 0.5, "inf"], "y": [0, 1, "x", 1], "low": [0.1]}
    assert figures.columns(curve, "x", "y", "low") == [(0.0, 0.0, 0.1)]


def test_roc_marks_the_operating_point_where_it_lies() -> None:
    curve = {"x": [0, 0.25, 1], "y": [0, 0.75, 1], "threshold": ["inf", 0.5, 0.1]}
    figure = figures.roc(curve, frozen=(0.25, 0.75)).draw("a", finding="x")
    frame = plot.Frame(height=340.0)
    x, y = frame.x(0.25), frame.y(0.75)
    assert f'cx="{x:.1f}" cy="{y:.1f}"' in figure.svg
    assert f'class="frozen" d="M{x:.1f} {y:.1f}m0 -6.5' in figure.svg
    assert figure.rows[1] == ("0.25", "0.75", "0.5")


def test_histogram_bars_grow_from_the_middle_line() -> None:
    curve = {"x": [0, 0.5], "positive": [1, 3], "negative": [4, 0]}
    figure = figures.histogram(curve, finding="x", threshold=0.5).draw("a", finding="x")
    bars = re.findall(r'class="bar (\w+)" x="([\d.]+)" y="([\d.]+)"', figure.svg)
    assert [side for side, _, _ in bars] == ["with", "without", "with", "without"]
    assert float(bars[2][2]) < float(bars[0][2]) < float(bars[1][2])
    assert figure.rows == (("0", "1", "4"), ("0.5", "3", "0"))


def test_icons_are_one_mark_per_patient() -> None:
    counts = {"tp": 47, "fn": 3, "fp": 187, "tn": 763}
    svg = panels.thousand(counts, ident="a", finding="x")
    for name, shape in (("tp", "h5.4"), ("fn", "l5.2 5.2"), ("fp", "h4.6"), ("tn", "h1.8")):
        path = re.search(rf'class="icon {name}" d="([^"]*)"', svg)
        assert path is not None
        assert path.group(1).count(shape) == counts[name]


def test_small_groups_are_hollow_and_undefined_ones_say_so() -> None:
    fair = {"name": "auroc", "value": 0.8, "low": 0.7, "high": 0.9, "n": 90, "n_positive": 40}
    rows = [
        {**fair, "subset": "sex=F"},
        {**fair, "subset": "sex=", "n": 12, "n_positive": 4},
        {**fair, "subset": "<b>=1", "value": None, "low": None, "high": None},
    ]
    sizes = {"all": fair, **{row["subset"]: row for row in rows}}
    figure = panels.forest("auroc", {**fair, "subset": "all"}, rows, sizes=sizes, ident="a")
    assert figure.svg.count('class="dot small"') == 1
    assert ">sex</text>" in figure.svg
    assert ">unknown</text>" in figure.svg
    assert figure.rows[2][:2] == ("sex: unknown", "12 (4)")
    assert "not estimable" in figure.svg
    assert "<b>" not in figure.svg


@pytest.mark.parametrize("figure_of", [figures.reliability, figures.decision])
def test_curves_with_one_class_or_no_band_are_drawn(
    figure_of: Callable[[figures.Curve], plot.Plot],
) -> None:
    curve = {"x": [0.1, 0.2], "y": [0.0, -0.4], "treat_all": [-0.2, -0.5], "count": [5, 6]}
    figure = figure_of(curve).draw("a", finding="<i>")
    assert "NaN" not in figure.svg
    assert "<i>" not in figure.svg


@pytest.mark.parametrize(
    ("scale", "shown"), [(1.0, "+12.0"), (0.001, "+0.012"), (100.0, "+1200.0")]
)
def test_limits_of_agreement_have_digits_for_their_range(scale: float, shown: str) -> None:
    curve = {"x": [10.0, 20.0], "y": [-12.0 * scale, 14.0 * scale]}
    lines = [0.0, -12.0 * scale, 12.0 * scale]
    figure = figures.bland_altman(curve, lines=lines).draw("a", finding="volume")
    assert f">{shown}<" in figure.svg


def test_calibration_is_drawn_smooth_with_its_band_and_after_recalibration() -> None:
    bins = {"x": [0.2, 0.8], "y": [0.1, 0.7], "low": [0.0, 0.5], "high": [0.3, 0.9]}
    smooth = {"x": [0.1, 0.5, 0.9], "y": [0.1, 0.4, 0.8], "low": [0, 0.3, 0.7], "high": [0.2] * 3}
    bare = figures.reliability(bins).draw("a", finding="x").svg
    assert not re.search('class="(band|line main|line train)"', bare)
    drawn = figures.reliability(bins, smooth=smooth, mended=smooth).draw("a", finding="x").svg
    assert drawn.count('class="band"') == 1
    assert drawn.count('class="line main"') == 1
    assert ">recalibrated</text>" in drawn
    frame = plot.Frame()
    assert f"{frame.x(0.5):.1f},{frame.y(0.4):.1f}" in drawn


def test_a_decision_curve_below_the_picture_does_not_run_along_its_floor() -> None:
    curve = {"x": [0.1, 0.2, 0.3, 0.4, 0.5], "y": [0.1, 0.08, -3.0, 0.05, 0.04]}
    svg = figures.decision(curve).draw("a", finding="x").svg
    lines = re.findall(r'class="line main" d="M([^"]*)"', svg)
    assert [len(line.split()) for line in lines if "," in line] == [2, 2]  # the third is the legend


def test_axes_and_forests_name_their_unit() -> None:
    curve = {"x": [10.0, 20.0], "y": [-1.0, 2.0]}
    figure = figures.bland_altman(curve, lines=[0.0, None, None])
    assert "reference, months</text>" in figure.draw("a", finding="x", unit=", months").svg
    rows = [{"subset": "sex=F", "value": 0.5, "low": 0.4, "high": 0.6, "n": 90, "n_positive": 40}]
    sizes = {"sex=F": rows[0]}
    shares = panels.forest("sensitivity", None, rows, sizes=sizes, ident="a")
    assert shares.title.endswith(", %")
    assert ">100</text>" in shares.svg
    months = panels.forest("mae_months", None, rows, sizes=sizes, ident="a")
    assert months.title == "Mean absolute error, months"

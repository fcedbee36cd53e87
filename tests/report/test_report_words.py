"""Numbers, names and sentences of the report."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import medtl.report
from medtl.report import texts, words

SOURCES = Path(medtl.report.__file__).parent


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (0.0, "0"), (0.004, "<1"), (0.5, "50"), (0.945, "95"), (0.996, ">99"), (1.0, "100"),
    ],
)  # fmt: skip
def test_of_100_never_rounds_to_none_or_all(share: float, shown: str) -> None:
    assert words.of_100(share) == shown


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0.0, "0%"), (0.05, "5%"), (0.034, "3.4%"), (0.0012, "0.12%"), (0.87, "87%"), (0.999, ">99%")],
)
def test_percent_keeps_two_figures_below_ten(share: float, shown: str) -> None:
    assert words.percent(share) == shown


@pytest.mark.parametrize("value", [None, float("nan"), "nan", "many", True])
def test_what_is_not_a_number_is_none(value: object) -> None:
    assert words.number(value) is None


def test_infinite_threshold_is_said_in_words() -> None:
    assert words.threshold_text("inf") == "above every score"
    assert words.threshold_text(0.24129) == "0.241"
    assert words.threshold_text(0.0001) == "1.0e-04"


@pytest.mark.parametrize(
    ("name", "described"),
    [
        ("auroc", ("AUROC", "score")),
        ("within_12_months", ("Within 12 months", "share")),
        ("volume_bias_ml", ("Volume bias", "ml")),
        ("ece_after_temperature", ("Expected calibration error (0 is best), after temperature"
                                   " scaling", "score")),
        ("hd95_mm_p05", ("Hausdorff distance, 95th percentile, 5th percentile", "mm")),
        ("something_new", ("Something new", "number")),
    ],
)  # fmt: skip
def test_measures_have_names_and_units(name: str, described: tuple[str, str]) -> None:
    assert words.describe(name) == described


def test_interval_has_one_unit_and_true_minus() -> None:
    measure = {"low": -2.61, "high": 0.3}
    assert words.interval_text(measure, "months") == "−2.6 to 0.3 months"
    assert words.interval_text({"low": 0.88, "high": 0.98}, "share") == "88% to 98%"
    assert words.interval_text({"low": None, "high": 0.98}, "share") == ""


def test_values_are_escaped_when_a_text_is_filled() -> None:
    assert "&lt;b&gt;" in texts.fill("summary.no_point", finding="<b>")


def test_a_text_that_is_missing_raises() -> None:
    with pytest.raises(KeyError, match="no_such_key"):
        texts.plain("no_such_key")


def test_every_text_is_used_and_every_used_text_exists() -> None:
    files = [*SOURCES.glob("*.py"), *SOURCES.glob("templates/*.j2")]
    code = "\n".join(f.read_text(encoding="utf-8") for f in files if f.name != "texts.py")
    used = set(re.findall(r'\bt\(\s*["\']([\w. ]+)["\']\s*[,)]', code))
    used |= set(re.findall(r'\b(?:fill|plain)\(\s*f?"([\w. ]+)"\s*[,)]', code))
    assert used - set(texts.EN) == set()
    # Keys put together at run time start with one of these.
    stems = tuple(re.findall(r'["\']([\w]+\.(?:[\w.]+\.)?)(?:["\'] ~|\{)', code))
    used |= set(re.findall(r'\bt\("([\w.]+)" if .*? else "[\w.]+"', code))
    used |= set(re.findall(r'\bt\("[\w.]+" if .*? else "([\w.]+)"', code))
    used |= set(re.findall(r'EN\["(\w+)"\]', code))
    literal = set(re.findall(r'"([\w]+\.[\w. ]+)"', code))
    unused = {k for k in texts.EN if k not in used | literal and not k.startswith(stems)}
    assert unused == set()


def test_a_label_keeps_its_capitals() -> None:
    assert words.sentence("NA") == "NA"
    assert words.sentence("pleural effusion") == "Pleural effusion"
    assert words.sentence("") == ""

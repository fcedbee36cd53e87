"""Numbers, names and sentences of the report."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import medtl.report
from medtl.errors import RunError
from medtl.report.language import numbers as words
from medtl.report.language import texts

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
    [
        (0.0, "0%"),
        (0.05, "5%"),
        (0.034, "3.4%"),
        (0.0012, "0.12%"),
        (0.87, "87%"),
        (0.999, ">99%"),
        (4.6e-12, "<0.1%"),
    ],
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
        ("volume_bias_ml", ("Bias (estimate minus truth), volume", "ml")),
        ("nsd_2_mm", ("Surface Dice at 2 mm", "score")),
        ("mae_months_gap", ("Mean absolute error, gap", "months")),
        ("ece_after_temperature", ("Expected calibration error (0 is best), after temperature"
                                   " scaling", "score")),
        ("hd95_mm_p05", ("HD95 (Hausdorff distance, 95th percentile), 5th percentile", "mm")),
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
    files = [*SOURCES.rglob("*.py"), *SOURCES.glob("templates/*.j2")]
    code = "\n".join(f.read_text(encoding="utf-8") for f in files)
    known = set(texts.texts_of("en"))
    used = set(re.findall(r'\bt\(\s*["\']([\w. ]+)["\']\s*[,)]', code))
    used |= set(re.findall(r'\b(?:fill|plain)\(\s*"([\w. ]+)"\s*[,)]', code))
    assert used - known == set()
    # Keys put together at run time start with one of these.
    stems = tuple(re.findall(r'["\']([\w]+\.(?:[\w.]+\.)?)(?:["\'] ~|\{)', code))
    literal = set(re.findall(r'"([\w]+\.[\w. ]+)"', code))
    whole = set(re.findall(r'plain\("(\w+)"', code)) | set(re.findall(r't\("(\w+)"', code))
    unused = {k for k in known if k not in used | literal | whole and not k.startswith(stems)}
    assert unused == set()


def test_all_languages_have_the_same_keys_and_the_same_values_to_fill() -> None:
    english = texts.texts_of("en")
    for language in texts.LANGUAGES:
        other = texts.texts_of(language)
        assert set(other) == set(english), language
        for key, text in english.items():
            braces = [set(re.findall(r"{(\w+)}", t)) - {"counter"} for t in (text, other[key])]
            assert braces[0] == braces[1], (language, key)
            assert re.findall(r"</?\w+>", text) == re.findall(r"</?\w+>", other[key]), key


def test_phrases_keep_their_numbers() -> None:
    for english, korean in texts.phrases_of("ko").items():
        assert english.count("#") == korean.count("#"), english


def test_what_metrics_says_is_translated_by_phrase() -> None:
    reason = "small group: 12 rows, 3 positives (fewer than 30 or 10)"
    assert texts.translated(reason) == reason
    with texts.speaking("ko"):
        assert texts.translated(reason) == "작은 집단: 12행, 양성 3 (30 또는 10 미만)"
        assert texts.translated("percentile bootstrap of patients, B=500").endswith(", B=500")
        assert texts.translated("never said before") == "never said before"
        assert words.value_text(6.13, "months") == "6.1개월"
    assert texts.spoken() == "en"


@pytest.mark.parametrize(
    "note",
    [
        "no threshold is stated (--threshold): no sensitivity and no specificity",
        "'Dr. A' read 5 of the 80 cases of 'mass'",
        "'Dr. A' read 3 cases of 'mass' that the model did not",
        "the readings of 'Dr. A' are not 0 and 1 and were left out",
        "'mass' has validation rows and no test rows: nothing is said of it",
        "'sex' holds 'F', 'f': groups that differ in spelling alone",
        "no quadratic kappa: the classes have no stated order",
        "all marks are 0 and 1: sensitivity and specificity, no AUROC",
        "no --cutoff of the models is stated: their decisions were not compared",
        "2 of 40 cases were not read by all: left out",
        "12 rows of the table's own train or val split left out",
        "the run knows no label 'hernia', 'mass': left out",
        "the table has no rows of 'effusion'",
        "no row of 'effusion' has a truth: it is not judged",
        "'run' has no list of its patients: that none of them is here is unchecked",
        "3 patients are of the test set of 'run': for them nothing is external",
        "patients of 'run' were left out: 4 of its train and 2 of its val set",
        "the run froze no threshold of 'nodule', 'mass': no sensitivity and no specificity",
        "updates are of each class alone: the updated ones need not sum to 1",
        "updates start from the probabilities that the run's recalibration mends",
    ],
)
def test_notes_of_readers_and_of_another_place_are_korean(note: str) -> None:
    with texts.speaking("ko"):
        said = texts.translated(note)
    assert not re.search(r"\b(the|of|and|no|left|are)\b", said)


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(RunError, match="no language 'xx'"), texts.speaking("xx"):
        pass


def test_a_label_keeps_its_capitals() -> None:
    assert words.sentence("NA") == "NA"
    assert words.sentence("pleural effusion") == "Pleural effusion"
    assert words.sentence("") == ""


OLD_WORDS = ("운영점", "대상군", "견고성", "혼동표", "절단값", "표지", "오경보")


@pytest.mark.parametrize("word", OLD_WORDS)
def test_korean_keeps_to_the_words_of_the_field(word: str) -> None:
    content = [*texts.texts_of("ko").values(), *texts.phrases_of("ko").values()]
    assert [text for text in content if word in text] == []


def test_korean_names_the_four_cells_and_tells_calibration_from_multiplicity() -> None:
    korean = texts.texts_of("ko")
    cells = ("진양성(찾아냄)", "위음성(놓침)", "위양성(잘못 표시)", "진음성(바르게 표시 안 함)")
    for stem, names in (("op", ("tp", "fn", "fp", "tn")),
                        ("thousand", ("found", "missed", "false", "cleared"))):  # fmt: skip
        assert tuple(korean[f"{stem}.{name}"] for name in names) == cells
    assert korean["fig.rel"] == korean["check.calibration"] == "교정도(calibration)"
    everything = [*korean.values(), *texts.phrases_of("ko").values()]
    assert all("다중비교" in text for text in everything if "보정" in text)


@pytest.mark.parametrize(
    ("label", "name"),
    [("pneumonia", "폐렴"), ("Pneumothorax", "기흉"), ("CARDIOMEGALY", "심비대"),
     ("pleural_effusion", "흉수"), ("Effusion", "흉수"), ("lung-nodule", "폐결절"),
     ("bone_age_months", "골연령"), ("something_else", "something else")],
)  # fmt: skip
def test_findings_have_korean_names(label: str, name: str) -> None:
    assert words.finding_name(label) != "폐렴"
    with texts.speaking("ko"):
        assert words.finding_name(label) == name

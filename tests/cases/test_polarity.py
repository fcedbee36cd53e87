"""Which of two words is the finding: right, or asked for; never the absence."""

from __future__ import annotations

import pytest

from medtl.cases.polarity import finding_of, is_presence

CERTAIN = [
    # finding, absence
    ("pneumonia", "normal"), ("PNEUMONIA", "NORMAL"), ("Fracture", "No fracture"),
    ("fractured", "not fractured"), ("effusion", "no effusion"), ("Parasitized", "Uninfected"),
    ("CT_COVID", "CT_NonCOVID"), ("positive", "negative"), ("1", "0"), ("malignant", "benign"),
    ("yes", "no"), ("case", "control"), ("abnormal", "normal"), ("not normal", "normal"),
    ("ja", "nein"), ("Pneumonie", "gesund"), ("Fraktur", "keine Fraktur"), ("krank", "gesund"),
    ("Erguss", "ohne Befund"), ("positiv", "negativ"), ("auffällig", "unauffällig"),
    ("oui", "non"), ("malade", "sain"), ("fracture", "sans fracture"), ("positif", "négatif"),
    ("sí", "no"), ("enfermo", "sano"), ("derrame", "sin derrame"), ("positivo", "negativo"),
    ("sì", "no"), ("malato", "sano"), ("versamento", "senza versamento"),
    ("sim", "não"), ("doente", "saudável"), ("derrame", "sem derrame"),
    ("ja", "nee"), ("ziek", "gezond"), ("breuk", "geen breuk"),
    ("tak", "nie"), ("chory", "zdrowy"), ("да", "нет"), ("болен", "здоров"),
    ("양성", "음성"), ("폐렴", "정상"), ("골절", "골절 없음"), ("골절", "골절없음"),
    ("예", "아니오"),
    ("陽性", "陰性"), ("肺炎", "正常"), ("骨折", "骨折なし"), ("はい", "いいえ"),
    ("阳性", "阴性"), ("肺炎", "健康"), ("感染", "未感染"), ("是", "否"),
    ("evet", "hayır"), ("kırık", "kırık yok"), ("+", "-"),
]  # fmt: skip

ASKED = [
    ("AD", "CN"), ("cat", "dog"), ("healed", "not healed"), ("union", "nonunion"),
    ("responder", "non-responder"), ("stable", "unstable"), ("양성", "악성"), ("normal", "healthy"),
    ("left", "right"), ("A", "B"), ("survivor", "non survivor"), ("negative", "normal"),
    ("infected", "uninfectious"), ("Typ 1", "Typ 2"), ("generic", "nonspecific"),
]  # fmt: skip


@pytest.mark.parametrize(("finding", "absence"), CERTAIN)
def test_the_finding_is_found_in_either_order(finding: str, absence: str) -> None:
    assert finding_of(finding, absence) == finding
    assert finding_of(absence, finding) == finding


@pytest.mark.parametrize("pair", ASKED)
def test_what_is_not_certain_is_asked(pair: tuple[str, str]) -> None:
    assert finding_of(*pair) is None
    assert finding_of(*reversed(pair)) is None


def test_the_last_in_the_alphabet_would_be_the_absence() -> None:
    """The control: the rule that was here before takes the absence in many of these pairs."""
    turned = [pair for pair in CERTAIN if max(pair) == pair[1]]
    assert len(turned) > 10
    assert all(finding_of(*pair) == pair[0] for pair in turned)


@pytest.mark.parametrize("word", ["yes", "Yes", "pos.", "+", "1", "ja", "sí", "양성", "예", "是"])
def test_a_word_that_only_says_yes_names_no_finding(word: str) -> None:
    assert is_presence(word)


@pytest.mark.parametrize("word", ["pneumonia", "malignant", "case", "AD", "no", "-", "0", "폐렴"])
def test_a_finding_is_no_such_word(word: str) -> None:
    assert not is_presence(word)

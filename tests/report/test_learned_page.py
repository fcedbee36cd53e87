"""The chapter on what was learned: controls, more patients, checks before, in both languages."""

from __future__ import annotations

import json

import pytest
import report_example as example

from medtl.errors import RunError
from medtl.report.language.texts import speaking
from medtl.report.page.learned import checks, curve_view, forgetting_view, shortcuts_view
from medtl.report.render import write_report
from medtl.run.files import RunFiles
from medtl.run.record import adopt_study
from medtl.storage.yaml import dump_yaml


def measure(name, value, low=None, high=None):
    ends = {"low": low, "high": high, "n": 100, "method": "", "reason": "", "status": "ok"}
    return {"name": name, "value": value, **ends}


def control(name, reaches, gain, *, subset="all", of="auroc"):
    own = measure(f"{of}_mean_of_folds", *reaches)
    return {
        "label": "pneumonia",
        "subset": subset,
        "name": name,
        "reaches": own,
        "gain": measure(f"{of}_difference", *gain),
        "verdict": "",
    }


SHORTCUTS = {
    "folds": 5,
    "metadata": ["view", "sex"],
    "recipe": [
        {"label": "pneumonia", "subset": "all",
         "reaches": measure("auroc_mean_of_folds", 0.87, 0.84, 0.90)},
        {"label": "pneumonia", "subset": "view=AP",
         "reaches": measure("auroc_mean_of_folds", 0.80, 0.74, 0.86)},
    ],
    "controls": [
        control("thumbnail", (0.85, 0.82, 0.88), (0.02, -0.01, 0.05)),
        control("metadata", (0.70, 0.66, 0.74), (0.17, 0.13, 0.21)),
        control("random_weights_x2", (0.89, 0.86, 0.92), (-0.02, -0.03, -0.01)),
        control("thumbnail", (0.70, 0.64, 0.76), (0.10, 0.04, 0.16), subset="view=AP"),
    ],
}  # fmt: skip

CURVE = {
    "measure": "auroc",
    "lower_is_better": False,
    "patients": [50, 100, 200],
    "values": {
        "fine_tuned": [[0.70, 0.72], [0.78, 0.80], [0.84, 0.86]],
        "frozen_features": [[0.71, 0.71], [0.76, 0.76], [0.80, 0.80]],
    },
    "more": 200,
    "gain": measure("gain_of_more", 0.01, 0.0, 0.03),
    "limit": "variance",
}


def test_each_control_says_what_it_reaches_and_what_the_recipe_adds():
    everyone, part = shortcuts_view(SHORTCUTS)["parts"]
    said = [(row["name"], row["shown"].value, row["verdict"]) for row in everyone["rows"]]
    assert said == [
        ("the recipe", "0.870", ""),
        ("an 8 x 8 thumbnail", "0.850", "not shown that the recipe adds to it"),
        ("header and manifest without the image", "0.700", "the recipe adds to it"),
        ("the recipe from random weights, twice the steps", "0.890", "pretraining is worse"),
    ]
    assert [row["verdict"] for row in part["rows"]] == ["", "the recipe adds to it"]
    assert part["figure"] is None
    assert everyone["figure"].rows[1] == ("an 8 x 8 thumbnail", "0.85", "0.82", "0.88")
    assert shortcuts_view(None) is None


def test_of_an_error_less_is_better():
    own = {"label": "pneumonia", "subset": "all", "reaches": measure("mae_mean_of_folds_months", 8)}
    worse = control("median", (12.0, 11.0, 13.0), (-4.0, -5.0, -3.0), of="mae")
    study = {"folds": 5, "metadata": [], "recipe": [own], "controls": [worse]}
    row = shortcuts_view(study)["parts"][0]["rows"][1]
    assert row["verdict"] == "the recipe adds to it"


def test_more_patients_are_said_with_their_interval():
    view = curve_view(CURVE)
    assert view["text"].startswith("200 more patients: +0.010 (+0.000 to +0.030)")
    assert "more patients" in view["limit"]
    assert view["figure"].rows[0] == ("50", "0.710", "0.710")
    fallen = curve_view({**CURVE, "lower_is_better": True, "measure": "mae_months"})
    assert fallen["text"].startswith("200 more patients: the error falls by +0.01")


FORGETTING = {
    "start": "north",
    "tuned": "south",
    "images": 40,
    "patients": 30,
    "left_out": 12,
    "is_start": False,
    "labels": [
        {"label": "pneumonia", "start": measure("auroc", 0.9, 0.8, 0.95),
         "tuned": measure("auroc", 0.8, 0.7, 0.9),
         "change": measure("auroc_difference", -0.1, -0.15, -0.05), "verdict": "forgotten"},
    ],
}  # fmt: skip


def test_what_tuning_cost_is_said_label_by_label():
    view = forgetting_view(FORGETTING)
    (row,) = view["rows"]
    assert (row["start"].value, row["tuned"].value) == ("0.900", "0.800")
    assert row["change"].startswith("−0.100 (−0.150 to −0.050)")
    assert row["verdict"] == "tuning cost some of it"
    assert forgetting_view(None) is None


def test_checks_before_say_what_failed_and_what_has_no_meaning():
    facts = {"start": 0.7, "end": 0.6, "steps": 150, "images": 16}
    rows = [
        {"name": "one_batch", "passed": False, "facts": facts},
        {"name": "small", "passed": None, "facts": {"reason": "sanity.masks"}},
    ]
    failed, none = checks({"checks": rows})
    assert (failed.state, none.state) == ("failed", "none")
    assert "0.700 to 0.600 in 150 steps" in failed.text
    assert "contradict" in failed.advice
    assert "no meaning for masks" in none.text
    with speaking("ko"):
        assert "한 배치" in checks({"checks": rows})[0].text


@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_chapter_stands_in_the_report(tmp_path, language):
    facts = {"start": 0.7, "end": 0.05, "steps": 20, "images": 16}
    sanity = {"checks": [{"name": "one_batch", "passed": True, "facts": facts}]}
    page = write_report(
        tmp_path / "report.html",
        metrics=example.single(),
        study={},
        language=language,
        history=[{"stage": "s", "train_loss": 1, "val_loss": 1}],
        shortcuts=SHORTCUTS,
        curve=CURVE,
        forgetting=FORGETTING,
        sanity=sanity,
    ).read_text("utf-8")
    for part in ('id="learned"', 'href="#learned"', 'data-panel="controls"', 'data-panel="curve"',
                 'data-check="one_batch"', 'data-table="forgetting"'):  # fmt: skip
        assert part in page


def test_a_run_takes_the_finding_of_a_study_of_its_own_recipe_only(tmp_path):
    run, study = RunFiles(tmp_path / "run"), RunFiles(tmp_path / "study")
    recipe = {
        "study": {"question": "?"},
        "data": {"manifest": "m.csv", "target": "y"},
        "image": {"modality": "cxr"},
    }
    for files in (run, study):
        files.folder.mkdir()
        files.recipe.write_text(dump_yaml(recipe))
    with pytest.raises(RunError, match="no finding of a study"):
        adopt_study(run, study.folder)
    study.shortcuts.write_text(json.dumps(SHORTCUTS))
    assert adopt_study(run, study.folder) == ["shortcuts.json"]
    assert json.loads(run.shortcuts.read_text()) == SHORTCUTS
    run.recipe.write_text(dump_yaml({**recipe, "finetune": {"weight_decay": 0.5}}))
    with pytest.raises(RunError, match=r"another recipe \(finetune\)"):
        adopt_study(run, study.folder)

"""The HTML as text: numbers, undefined values, escaping, missing parts, no outside reference."""

from __future__ import annotations

import copy
import itertools
import json
import math
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import report_example as example
from PIL import Image, PngImagePlugin

from medtl.errors import RunError
from medtl.report.language.texts import speaking
from medtl.report.page import caveats as limits
from medtl.report.page import finding as findings
from medtl.report.page import headline, slider
from medtl.report.page import sections as records
from medtl.report.page.diagnosis import diagnose
from medtl.report.render import write_report
from medtl.run.folder import Run

MAX_BYTES = 5_000_000


def text_of(html: str) -> str:
    """The visible words of a page, white space made single."""
    html = re.sub(r"<(script|style)\b.*?</\1>", " ", html, flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html)).replace(" .", ".").replace(" ,", ",")


def written(tmp_path: Path, metrics: dict[str, Any], **more: Any) -> str:
    given = {"study": example.STUDY, **more}
    out = write_report(tmp_path / "report.html", metrics=metrics, **given)
    return out.read_text(encoding="utf-8")


def read(metrics: dict[str, Any]) -> list[findings.Finding]:
    return findings.read_findings({**metrics, "measures": findings.read_measures(metrics)})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return example.write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def full(run: Path) -> str:
    return Run(run).report().read_text(encoding="utf-8")


def test_page_one_says_the_measured_shares_in_words(full: str) -> None:
    measures = {m["name"]: m for m in example.single()["measures"] if m["subset"] == "all"
                and m["split"] == "test"}  # fmt: skip
    found = round(100 * measures["sensitivity"]["value"])
    false = round(100 * (1 - measures["specificity"]["value"]))
    words = text_of(full)
    assert f"Of 100 images with pleural effusion, {found} are found" in words
    assert f"Of 100 images without it, {false} are wrongly flagged" in words
    assert "87 of 92 in the test set" in words
    assert "Is there a pleural effusion on this frontal chest radiograph?" in words
    assert "Not a medical device" in words
    assert "Synthetic images" in words


@pytest.mark.parametrize(
    ("unit", "bias", "way", "lead"),
    [
        ("percent", 1.2, "on average 1.2 % too high", "above zero the estimate is too high"),
        ("percent", -1.2, "on average 1.2 % too low", "above zero the estimate is too high"),
        ("months", 1.2, "on average 1.2 months too old", "above zero the estimate is too old"),
    ],
)
def test_a_quantity_of_any_unit_is_reported_in_it(
    tmp_path: Path, unit: str, bias: float, way: str, lead: str
) -> None:
    size = {"n": 80, "n_patients": 80}
    values = {"mae": 4.1, "bias": bias, "loa_low": -8.5, "loa_high": 9.5}
    rows = [example.measure(f"{name}_{unit}", v, "lvef", **size) for name, v in values.items()]
    rows += [
        example.measure(f"mae_{unit}", 3.9, "lvef", **size, low=3.0, high=4.9, subset=f"sex={sex}")
        for sex in "FM"
    ]
    curve = {"x": [50.0, 60.0], "y": [1.0, -1.0], "truth": [50, 60], "prediction": [51, 59]}
    metrics = example.join({"measures": rows})
    metrics["curves"] = [{"name": "bland_altman", "label": "lvef", "split": "test", **curve}]
    page = written(tmp_path, metrics)
    words = text_of(page)
    shown = "%" if unit == "percent" else unit
    assert f"The estimate is off by 4.1 {shown} on average." in words
    assert f"8.5 below to 9.5 {shown} above the reference" in words
    assert way in words
    assert lead in words
    assert ("months" in words) == (unit == "months")
    assert page.count('data-figure="forest"') == 1
    assert ">+9.5<" in page  # a limit of agreement, drawn


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-0.4, 2.8, "no bias shown: 1.2 months on average (−0.4 to 2.8 months)"),
        (0.3, 2.1, "on average 1.2 months too old (0.3 to 2.1 months)"),
    ],
)
def test_a_bias_has_a_direction_where_its_interval_has_one(
    tmp_path: Path, low: float, high: float, said: str
) -> None:
    rows = [
        example.measure("bias_months", 1.2, "bone_age_months", low=low, high=high),
        example.measure("loa_low_months", -8.5, "bone_age_months", low=-10.0, high=-7.0),
        example.measure("loa_high_months", 9.5, "bone_age_months", low=8.0, high=11.0),
        example.measure("mae_months", 4.1, "bone_age_months"),
    ]
    page = text_of(written(tmp_path, example.join({"measures": rows})))
    ends = "their intervals −10.0 to −7.0 months and 8.0 to 11.0 months"
    assert f"95% limits of agreement; {ends}; {said}" in page
    assert ("too old" in page.split("Intended use")[0]) == (low > 0)


def test_unit_is_patients_only_when_each_has_one_image() -> None:
    row = {"n": 10, "n_patients": 10}
    assert findings.unit_of([row]) == "patients"
    assert findings.unit_of([{**row, "n_patients": 9}]) == "images"
    assert findings.unit_of([{**row, "n_patients": None}]) == "cases"


def test_per_thousand_by_hand_and_sums_to_1000() -> None:
    metrics = example.join(
        {
            "measures": [
                example.measure("sensitivity", 0.9, "x"),
                example.measure("specificity", 0.8, "x"),
            ],
            "operating_points": [{"label": "x", "threshold": 0.5, "chosen_on": "val"}],
        }
    )
    counts = headline.per_thousand(read(metrics)[0], 0.05)
    assert counts == {
        "tp": 45, "fn": 5, "fp": 190, "tn": 760, "prevalence": 0.05, "source": "stated",
    }  # fmt: skip
    assert headline.per_thousand(read(metrics)[0], None) is None


def test_per_thousand_of_metrics_json_comes_first(tmp_path: Path) -> None:
    metrics = example.single()
    row = {"label": "pleural_effusion", "prevalence": 0.142, "source": "test set",
           "tp": 134, "fn": 8, "fp": 169, "tn": 689}  # fmt: skip
    html = written(tmp_path, {**metrics, "per_1000": [row]}, study={})
    assert "the prevalence in the test set, 14%" in text_of(html)
    assert "Of the 303 patients who would be flagged, 134 have" in text_of(html)


def test_a_finding_that_nobody_of_1000_has_is_not_said_to_be_absent(tmp_path: Path) -> None:
    metrics = example.single()
    row = {"label": "pleural_effusion", "prevalence": 0.0001, "source": "stated",
           "tp": 0, "fn": 0, "fp": 186, "tn": 814}  # fmt: skip
    html = written(tmp_path, {**metrics, "per_1000": [row]}, study={})
    page = text_of(html)
    assert "If &lt;1 of 1000 patients have" in page
    assert "Of the 186 patients who would be flagged, &lt;1 have" in page
    assert "1000 patients: &lt;1 with" in html
    rare = {**row, "prevalence": 0.001, "fn": 1, "tn": 813}
    page = text_of(written(tmp_path, {**metrics, "per_1000": [rare]}, study={}))
    assert "If 1 of 1000 patients have" in page
    assert "Of the 186 patients who would be flagged, 0 have" in page


def test_undefined_is_said_with_its_reason_and_never_as_a_number(tmp_path: Path) -> None:
    words = text_of(written(tmp_path, example.several()))
    assert "How many images with hernia are found is not estimable" in words
    assert "not estimable: no positives in the test set" in words
    assert "nan" not in words.lower().split()
    assert "hernia: AUROC could not be estimated" in words


def test_degenerate_is_flagged_where_it_is_shown(tmp_path: Path) -> None:
    html = written(tmp_path, example.several())
    assert "read the interval with care: the classes are perfectly separated" in text_of(html)
    assert html.count('class="degenerate"') >= 3


def test_several_findings_have_a_table_and_a_section_each(tmp_path: Path) -> None:
    html = written(tmp_path, example.several())
    assert html.count('class="finding"') == 3
    assert "One network, 3 findings" in html
    assert "Average over the findings" in html
    assert "Confusion table" in html


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (
            "bone_age",
            "The estimate is off by 7.9 months on average. 95% interval 7.1 to 8.8 months",
        ),
        ("bone_age", "Of 100 estimates, 79 are within 12 months. 95% interval 73% to 84%"),
        ("segmentation", "mean Dice of 0.963. 95% interval 0.955 to 0.970"),
        ("segmentation", "not estimable: one prediction is empty"),
    ],
)
def test_measurements_and_masks_are_reported(tmp_path: Path, kind: str, sentence: str) -> None:
    assert sentence in text_of(written(tmp_path, example.KINDS[kind]()))


def test_no_threshold_makes_no_statement_about_patients(tmp_path: Path) -> None:
    metrics = {**example.single(), "operating_points": [], "counts": []}
    words = text_of(written(tmp_path, metrics))
    assert "No threshold was fixed for pleural effusion" in words
    assert "are found." not in words
    assert "What it would mean for 1000 patients" not in words


def test_threshold_of_the_test_set_is_called_optimistic(tmp_path: Path) -> None:
    metrics = example.single()
    metrics["operating_points"][0]["chosen_on"] = "test"
    words = text_of(written(tmp_path, metrics))
    assert "The threshold was chosen on the test set: these figures are optimistic" in words
    assert "Threshold (not an operating point)" in words
    assert "Frozen threshold" not in words
    assert "the threshold was chosen on the test set itself" in words


def test_threshold_that_flags_nobody(tmp_path: Path) -> None:
    metrics = example.single()
    metrics["operating_points"][0]["threshold"] = "inf"
    metrics["counts"][0].update(threshold="inf", tp=0, fp=0, fn=92, tn=548)
    html = written(tmp_path, metrics)
    assert "flags nobody" in text_of(html)
    points, frozen = slider.slider_points(read(metrics)[0])
    assert points[frozen] == ["inf", 0, 0, 92, 548]
    assert frozen == len(points) - 1


def test_slider_holds_the_stored_counts_and_starts_at_the_frozen_threshold() -> None:
    metrics = example.single()
    finding = read(metrics)[0]
    points, frozen = slider.slider_points(finding)
    counts = metrics["counts"][0]
    assert points[frozen] == [counts[k] for k in ("threshold", "tp", "fp", "fn", "tn")]
    stored = next(c for c in metrics["curves"] if c["name"] == "threshold_table")
    rows = {tuple(row) for row in zip(*(stored[k] for k in ("threshold", "tp", "fp", "fn", "tn")),
                                      strict=True)}  # fmt: skip
    assert {tuple(p) for i, p in enumerate(points) if i != frozen} <= rows
    assert [p[0] for p in points] == sorted(p[0] for p in points)
    assert len(points) <= slider.SLIDER_POINTS + 1


EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{7*7}}"


def test_everything_a_user_can_write_is_escaped(tmp_path: Path) -> None:
    text = json.dumps(example.single()).replace("pleural_effusion", json.dumps(EVIL)[1:-1])
    metrics = json.loads(text)
    metrics["notes"] = [EVIL]
    metrics["measures"][0].update(method=EVIL)
    metrics["measures"][1].update(value=None, status="undefined", reason=EVIL)
    metrics["measures"].append(
        example.measure("auroc", 0.5, EVIL, subset=f"site={EVIL}", n=40, n_positive=20)
    )
    metrics["operating_points"][0]["rule"] = EVIL
    gallery = example.write_gallery(tmp_path / "gallery", 1)
    entries = json.loads((gallery / "gallery.json").read_text())
    entries[0].update(case_id=EVIL, label=EVIL, kind=EVIL)
    (gallery / "gallery.json").write_text(json.dumps(entries))
    html = written(
        tmp_path,
        metrics,
        study={"question": EVIL, "title": EVIL, "intended_use": EVIL, "prevalence": 0.1},
        gallery=gallery,
        history=[{**row, "stage": EVIL} for row in example.history()],
        cohort={"splits": {EVIL: {EVIL: EVIL, "labels": {EVIL: {"positive": 1}}}},
                "excluded": [{"reason": EVIL, "n": 1}], "notes": [EVIL], "split_hash": EVIL},
        data_quality={"cases": [{"case_id": EVIL, "file": EVIL, "flags": [EVIL]}],
                      "quarantined": [{"case_id": EVIL, "cause": EVIL}], "notes": [EVIL]},
        recipe_text=EVIL,
        environment={EVIL: {EVIL: EVIL}},
    )  # fmt: skip

    class Tags(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.scripts = 0
            self.handlers: list[str] = []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.scripts += tag == "script"
            self.handlers += [name for name, _ in attrs if name.startswith("on")]

    tags = Tags()
    tags.feed(html)
    assert tags.scripts == 2
    assert tags.handlers == []
    assert "<img src=x" not in html
    assert "{{7*7}}" in html


def test_nothing_points_outside_the_file(full: str) -> None:
    assert re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", full) == []
    assert re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', full) == []
    assert "url(" not in full
    assert "@import" not in full
    assert "default-src &#39;none&#39;" in full


def test_file_is_small_with_many_pictures(tmp_path: Path) -> None:
    gallery = example.write_gallery(tmp_path / "gallery", 4, side=400)
    html = written(tmp_path, example.several(), gallery=gallery)
    assert html.count("data:image/jpeg") == 24
    assert len(html.encode()) < MAX_BYTES


def test_pictures_over_the_budget_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "PICTURE_BUDGET", 8_000)
    html = written(
        tmp_path, example.single(), gallery=example.write_gallery(tmp_path / "gallery", 2)
    )
    kept = html.count("data:image/jpeg")
    assert 0 < kept < 12
    assert f"{12 - kept} pictures were left out to keep this file small" in html


def test_same_input_gives_the_same_bytes(run: Path, full: str, tmp_path: Path) -> None:
    again = Run(run).report(tmp_path / "again.html").read_text(encoding="utf-8")
    assert again == full


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ("gallery/gallery.json", "pictures of cases"),
        ("cohort.json", "the description of the cohort"),
        ("data_quality.json", "the data-quality record"),
        ("history.csv", "the training history"),
        ("environment.json", "the environment"),
        ("recipe.yaml", "the recipe"),
    ],
)
def test_a_missing_record_is_named(run: Path, tmp_path: Path, record: str, said: str) -> None:
    part = Path(shutil.copytree(run, tmp_path / "run"))
    (part / record).unlink()
    html = Run(part).report().read_text(encoding="utf-8")
    assert f"Not available: {said}" in text_of(html)


def test_a_missing_curve_is_named(tmp_path: Path) -> None:
    metrics = example.single()
    metrics["curves"] = [c for c in metrics["curves"] if c["name"] == "roc"]
    words = text_of(written(tmp_path, metrics))
    assert "Not available: the curve “decision” in metrics.json" in words
    assert "Not available: the counts at other thresholds" in words


def test_an_empty_study_is_said_to_be_empty(tmp_path: Path) -> None:
    words = text_of(written(tmp_path, example.single(), study={}))
    assert "The study states no question" in words
    assert "A result without an intended use must not be used" in words
    assert "The study states no prevalence" in words


def test_metrics_without_measures_still_give_a_report(tmp_path: Path) -> None:
    assert "holds no measure of the test set" in written(tmp_path, example.join())


def test_other_schema_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"medtl-metrics/1.*Evaluate the predictions again"):
        write_report(tmp_path / "r.html", metrics={"schema": "other/9"}, study={})
    assert not (tmp_path / "r.html").exists()


def test_run_without_metrics_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no metrics.json.*medtl evaluate"):
        Run(tmp_path).report()


def test_broken_record_is_named(run: Path, tmp_path: Path) -> None:
    part = Path(shutil.copytree(run, tmp_path / "run"))
    (part / "cohort.json").write_text("{not json")
    with pytest.raises(RunError, match=r"cohort.json: not a readable JSON file"):
        Run(part).report()


def test_gallery_that_is_not_a_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gallery.json").write_text('{"a": 1}')
    with pytest.raises(RunError, match="not a list of cases"):
        records.read_gallery(tmp_path)


def test_only_pictures_inside_the_gallery_are_opened(tmp_path: Path) -> None:
    gallery = example.write_gallery(tmp_path / "gallery", 1)
    Image.new("L", (8, 8)).save(tmp_path / "secret.png")
    (gallery / "link.png").symlink_to(tmp_path / "secret.png")
    (gallery / "text.png").write_text("no picture")
    entries = json.loads((gallery / "gallery.json").read_text())
    for entry, name in zip(entries, ("../secret.png", "link.png", "text.png"), strict=True):
        entry.update(image=name, overlay=None)
    (gallery / "gallery.json").write_text(json.dumps(entries))
    view = records.read_gallery(gallery)
    assert view is not None
    faults = [case["image_fault"] for group in view["groups"] for case in group["cases"]]
    assert [case["image"] for group in view["groups"] for case in group["cases"]] == [""] * 3
    assert faults == [
        "picture not available: secret.png",
        "picture not available: link.png",
        "picture not available: text.png: not a readable PNG or JPEG.",
    ]


def test_a_picture_bomb_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "PICTURE_PIXELS", 100)
    Image.new("L", (20, 20)).save(tmp_path / "big.png")
    with pytest.raises(RunError, match=r"big.png: the picture is too large"):
        records.embed(tmp_path / "big.png", 384)


def test_embedded_pictures_carry_no_metadata(tmp_path: Path) -> None:
    import base64

    text = PngImagePlugin.PngInfo()
    text.add_text("PatientName", "CANARY^NAME")
    Image.new("L", (600, 400), 90).save(tmp_path / "a.png", pnginfo=text)
    data = base64.b64decode(records.embed(tmp_path / "a.png", 384)[0].partition(",")[2])
    assert b"CANARY" not in data
    assert b"Exif" not in data


def test_absolute_paths_do_not_get_into_the_file(full: str, run: Path) -> None:
    assert str(run.parent) not in full


def _course(train: list[float], val: list[float]) -> list[dict[str, Any]]:
    return [{"stage": "s", "train_loss": t, "val_loss": v} for t, v in zip(train, val, strict=True)]


@pytest.mark.parametrize(
    ("train", "val", "said"),
    [
        ([1, 0.8, 0.6, 0.4, 0.3, 0.2], [1, 0.8, 0.7, 0.7, 0.9, 1.1], "Overfitting after epoch 3"),
        ([1, 0.9, 0.8, 0.7, 0.6, 0.5], [1, 0.9, 0.8, 0.7, 0.6, 0.5], "Possibly underfit"),
        ([1, 0.8, 0.6, 0.5, 0.5, 0.5], [1, 0.8, 0.6, 0.52, 0.51, 0.515], "No sign of over"),
        ([0.2, 0.1, 0.1, 0.1, 0.1, 0.1], [0.5, 0.4, 0.4, 0.4, 0.4, 0.4], "well above training"),
        ([1, 0.5], [1, 0.5], "Too few epochs"),
    ],
)
def test_learning_curves_are_read_by_fixed_rules(
    train: list[float], val: list[float], said: str
) -> None:
    assert any(said in sign.evidence for sign in diagnose(_course(train, val)))


def test_limits_name_small_groups_and_shifted_prevalence() -> None:
    metrics = example.single()
    small = example.measure("auroc", 0.7, "pleural_effusion", subset="site=B", n=12, n_positive=3)
    metrics["measures"].append(small)
    found = limits.find_limits(
        read(metrics), prevalences={"pleural_effusion": 0.05}, quality=None, synthetic=False
    )
    assert any("comparing subgroups with few cases: site: B" in limit for limit in found)
    assert any("where 14% have it; the study assumes 5%" in limit for limit in found)


def test_headings_follow_each_other_without_a_gap(full: str) -> None:
    levels = [int(level) for level in re.findall(r"<h([1-6])\b", full)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_a_quantity_has_no_rows_of_with_and_without() -> None:
    labels = {"age_months": {"missing": 2}, "nodule": {"positive": 3, "negative": 0}}
    rows = dict(records.cohort_view({"splits": {"test": {"images": 9, "labels": labels}}})["rows"])
    assert (rows["nodule: with"], rows["nodule: without"]) == (["3 (100%)"], ["0"])
    assert [name for name in rows if name.startswith("age")] == ["age: not labelled"]


def test_flags_and_times_are_korean_in_korean() -> None:
    with speaking("ko"):
        flags = records.quality_view({"cases": [{"flags": ["spacing_from_imager"]}]})["flags"]
        stages = records.learning_view(
            [{"stage": "head", "seconds": 120, "val_loss": 1}], None, None
        )
    meaning = "화소 크기가 검출기 기준이며 단순촬영에서는 보통 그렇습니다"
    assert flags == [(f"검출기 간격 사용: {meaning}; 조치할 것 없음", "1")]
    assert stages["stages"][0]["seconds"] == "2.0분"


def test_three_planes_take_two_places(tmp_path: Path) -> None:
    folder = tmp_path / "gallery"
    folder.mkdir()
    for name, size in (("planes.png", (90, 30)), ("film.png", (30, 40))):
        Image.new("RGB", size).save(folder / name)
    entries = [{"case_id": n, "kind": "worst", "image": f"{n}.png"} for n in ("planes", "film")]
    (folder / "gallery.json").write_text(json.dumps(entries), "utf-8")
    (group,) = records.read_gallery(folder)["groups"]
    assert [case["wide"] for case in group["cases"]] == [True, False]


def test_every_figure_has_a_name_a_description_and_a_table(full: str) -> None:
    figures = re.findall(r'<figure class="panel".*?</figure>', full, flags=re.S)
    assert len(figures) == 10
    for figure in figures:
        assert re.search(r"<title[^>]*>[^<]+</title><desc[^>]*>[^<]+</desc>", figure)
        assert "<table>" in figure
    ids = re.findall(r'\bid="([^"]+)"', full)
    assert len(ids) == len(set(ids))


def test_real_evaluation_is_rendered(tmp_path: Path) -> None:
    import numpy as np
    import pandas as pd

    from medtl.evaluation.assemble import evaluate
    from medtl.metrics.scores import CI

    rng = np.random.default_rng(4)
    rows = []
    for split, n in (("val", 120), ("test", 200)):
        for index in range(n):
            y = int(rng.random() < 0.3)
            score = 1 / (1 + math.exp(-(rng.normal(-1.5, 1) + 2 * y)))
            rows.append({"case_id": f"{split}{index}", "patient_id": f"{split}{index}",
                         "split": split, "label": "effusion", "y_true": y, "y_score": score,
                         "sex": "FM"[index % 2]})  # fmt: skip
    result = evaluate(
        pd.DataFrame(rows),
        rule={"sensitivity": 0.9},
        prevalence=0.1,
        strata=["sex"],
        ci=CI(resamples=50),
    )  # fmt: skip
    metrics = json.loads(json.dumps(result.to_json()))
    html = written(tmp_path, metrics, study={"question": "?", "prevalence": 0.1})
    words = text_of(html)
    sensitivity = next(m for m in metrics["measures"] if m["name"] == "sensitivity")
    assert f"Of 100 patients with effusion, {100 * sensitivity['value']:.0f} are found" in words
    assert "Gaps between groups" in words
    assert "Not available: the curve" not in words


def test_report_does_not_import_torch() -> None:
    code = "import sys, medtl.report.render; print('torch' in sys.modules, 'pandas' in sys.modules)"
    root = Path(__file__).parents[2]
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["False", "False"]


def test_input_is_not_changed(tmp_path: Path) -> None:
    metrics = example.several()
    before = copy.deepcopy(metrics)
    written(tmp_path, metrics)
    assert metrics == before

"""A model in use: planted changes are found, and without one the page is silent."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest
from typed import fails, medtl

from medtl.errors import PredictionsError, RunError
from medtl.metrics.transfer import drift
from medtl.run.folder import Run
from medtl.run.use import monitor as watched
from medtl.run.use.monitor import monitor

HEAD = "case_id,patient_id,label,y_true,y_score,split,date,content_sha256,unlike_training"


def cases(seed, n=160, *, prevalence=0.4, shift=0.0, start=0, split="test", found=1.0):
    """Rows of a predictions table: normal scores, 1.6 apart; `found` < 1 pushes positives down."""
    rng = np.random.default_rng(seed)
    rows = []
    for k in range(start, start + n):
        truth = int(rng.random() < prevalence)
        logit = rng.normal(1.6 * truth * (1 if rng.random() < found else -1) - 0.8 + shift)
        score = 1 / (1 + np.exp(-logit))
        date = f"2026-{1 + k // 28 % 12:02d}-{1 + k % 28:02d}"
        rows.append([f"c{seed}-{k}", f"p{seed}-{k}", "effusion", truth, f"{score:.5f}", split, date,
                     f"{seed}-{k}", ""])  # fmt: skip
    return rows


def write(path: Path, rows, *, truth=True) -> Path:
    head = HEAD.split(",")
    if not truth:
        rows = [[*row[:3], "", *row[4:]] for row in rows]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    return path


def make_run(folder: Path, seed: int = 0, n: int = 200) -> Run:
    """The folder of a run with predictions, a threshold and a list of odd images; no network."""
    folder.mkdir(parents=True)
    rows = [*cases(seed, n, start=0, split="val"), *cases(seed + 1, n, start=1000)]
    write(folder / "predictions.csv", rows)
    (folder / "recipe.yaml").write_text(
        "study: {question: 'Is there an effusion?', operating_point: {sensitivity: 0.9}}\n"
        "data: {strata: []}\n"
    )
    odd = [{"case_id": row[0], "split": "test", "flags": ["odd"]} for row in rows[n:][:4]]
    quality = {"cases": odd, "quarantined": [], "counts": {}, "n_images": 2 * n}
    (folder / "data_quality.json").write_text(json.dumps(quality))
    point = {"label": "effusion", "threshold": 0.4}
    (folder / "metrics.json").write_text(json.dumps({"operating_points": [point]}))
    return Run(folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("used") / "run")


def changed(found) -> set[str]:
    return {check.what for check in found.checks if check.changed}


@pytest.mark.slow
def test_without_a_change_the_page_alarms_at_the_stated_rate(tmp_path, monkeypatch):
    monkeypatch.setattr(drift, "DRAWS", 199)
    monkeypatch.setattr(watched, "write_drift_page", lambda path, _, language: path)  # noqa: ARG005
    alarms = 0
    for seed in range(60):
        run = make_run(tmp_path / f"{seed}" / "run", 10_000 + 10 * seed, 120)
        new = write(tmp_path / f"{seed}.csv", cases(seed, 120, start=5000))
        alarms += bool(changed(monitor(run, [new], tmp_path / f"page-{seed}")))
    assert binomtest(alarms, 60, 0.05, alternative="greater").pvalue > 0.05


def test_scores_that_moved_are_found_without_a_truth(run, tmp_path):
    new = write(tmp_path / "new.csv", cases(7, shift=1.2), truth=False)
    found = monitor(run, [new], tmp_path / "page")
    assert {"scores", "flagged"} <= changed(found)
    assert not {check.what for check in found.checks} & {"prevalence", "sensitivity", "misses"}
    page = found.page.read_text(encoding="utf-8")
    assert "What changed since the test set" in page
    assert "The new tables hold no truths" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_misses_that_grew_are_found_with_truths(run, tmp_path):
    new = write(tmp_path / "new.csv", cases(8, 240, found=0.5))
    found = monitor(run, [new], tmp_path / "page")
    assert {"sensitivity", "misses", "auroc"} <= changed(found)
    assert "specificity" not in changed(found)
    content = json.loads((tmp_path / "page" / "monitor.json").read_text())
    account = content["accounts"]["effusion"]
    said = f"limit passed at positive {account['alarm']} of {len(account['path'])}"
    assert said in (tmp_path / "page" / "monitor.html").read_text()
    assert account["alarm"] is not None
    assert max(account["path"]) > account["limit"]
    rows = list(csv.DictReader((tmp_path / "page" / "monitor.csv").read_text().splitlines()))
    sensitivity = next(row for row in rows if row["what"] == "sensitivity")
    assert sensitivity["changed"] == "1"
    assert float(sensitivity["now_high"]) < float(sensitivity["then_low"])


def test_a_prevalence_that_doubled(run, tmp_path):
    new = write(tmp_path / "new.csv", cases(9, 240, prevalence=0.8))
    assert "prevalence" in changed(monitor(run, [new], tmp_path / "page"))


def test_small_numbers_are_not_compared(run, tmp_path):
    found = monitor(run, [write(tmp_path / "new.csv", cases(5, 6))], tmp_path / "page")
    scores = found.checks[0]
    assert scores.p is None
    assert scores.reason == "6 patients now"
    assert "not compared: 6 patients now" in found.page.read_text()


def test_images_that_are_odd_unlike_or_unreadable(run, tmp_path):
    rows = cases(11)
    for row in rows[:60]:
        row[8] = "pixel spacing outside the training range"
    new = write(tmp_path / "new.csv", rows)
    quality = {
        "flagged": [{"case_id": row[0], "flags": ["odd"]} for row in rows[:40]],
        "quarantined": [{"case_id": f"x{n}", "cause": "cut"} for n in range(60)],
    }
    (tmp_path / "new.quality.json").write_text(json.dumps(quality))
    found = monitor(run, [new], tmp_path / "page")
    assert changed(found) == {"oddities", "unreadable", "unlike_training"}
    assert "pixel spacing outside the training range: 60" in found.page.read_text()


def test_time_orders_the_account(run, tmp_path):
    rows = cases(12, 200)
    for k, row in enumerate(rows):
        row[6] = f"2026-01-01T{k:06d}"
        if k >= 150 and row[3] == 1:
            row[4] = "0.001"
    paths = []
    shuffled = [rows[k] for k in np.random.default_rng(0).permutation(len(rows))]
    for number, part in enumerate((rows, shuffled)):
        path = write(tmp_path / f"new{number}.csv", part)
        monitor(run, [path], tmp_path / f"page{number}", time="date")
        content = json.loads((tmp_path / f"page{number}" / "monitor.json").read_text())
        paths.append(content["accounts"]["effusion"]["path"])
    assert paths[0] == paths[1]
    monitor(run, [tmp_path / "new1.csv"], tmp_path / "other")
    content = json.loads((tmp_path / "other" / "monitor.json").read_text())
    assert content["accounts"]["effusion"]["path"] != paths[0]


def test_one_image_in_two_tables_counts_once_and_one_name_in_two_folders_twice(run, tmp_path):
    rows = cases(13, 40)
    twins = [[*row[:7], f"other-{row[7]}", ""] for row in rows]
    for row in twins:
        row[1] = row[0]
    tables = [write(tmp_path / f"{n}.csv", part) for n, part in enumerate((rows, rows, twins))]
    found = monitor(run, tables, tmp_path / "page")
    content = json.loads((tmp_path / "page" / "monitor.json").read_text())
    assert content["now"] == {"images": 80, "patients": 80}
    assert found.notes == ("40 images stand in the tables twice and are counted once",)


def test_what_cannot_be_monitored(run, tmp_path):
    stranger = [[*row[:2], "nodule", *row[3:]] for row in cases(1, 20)]
    with pytest.raises(PredictionsError, match="does not know 'nodule'; expected its findings"):
        monitor(run, [write(tmp_path / "s.csv", stranger)], tmp_path / "page")
    with pytest.raises(PredictionsError, match="the run's own predictions"):
        monitor(run, [run.files.predictions], tmp_path / "page")
    with pytest.raises(PredictionsError, match="no column 'when'"):
        monitor(run, [write(tmp_path / "t.csv", cases(1, 20))], tmp_path / "page", time="when")
    masks = tmp_path / "m.csv"
    masks.write_text("case_id,patient_id,truth,prediction\na,p,t.nii,p.nii\n")
    with pytest.raises(PredictionsError, match="there are no scores"):
        monitor(run, [masks], tmp_path / "page")
    with pytest.raises(RunError, match=r"no predictions.csv"):
        monitor(Run(tmp_path / "nowhere"), [masks], tmp_path / "page")
    assert not (tmp_path / "page").exists()


def test_the_command(run, tmp_path, monkeypatch, capsys):
    new = write(tmp_path / "new.csv", cases(7, shift=1.2))
    said = medtl("monitor", run.path, new, "--out", tmp_path / "page", "--language", "ko")
    assert "changed: effusion: scores (p " in said
    assert f"Page: {tmp_path / 'page' / 'monitor.html'}" in said
    page = (tmp_path / "page" / "monitor.html").read_text(encoding="utf-8")
    assert "시험 세트 이후 달라진 점" in page
    assert "위음성 누적합" in page
    quiet = medtl(
        "monitor", run.path, write(tmp_path / "q.csv", cases(21)), "--out", tmp_path / "q"
    )
    assert "comparisons shows a change beyond chance" in quiet
    status, text = fails(monkeypatch, capsys, "monitor", run.path, tmp_path / "none.csv")
    assert status == 1
    assert "none.csv: there is no such file" in text


def test_masks_have_no_scores_to_watch(tmp_path):
    folder = tmp_path / "masks"
    folder.mkdir()
    (folder / "predictions.csv").write_text(
        "case_id,patient_id,truth,prediction\na,p,t.nii,p.nii\n"
    )
    with pytest.raises(RunError, match="measures of masks"):
        monitor(Run(folder), [folder / "predictions.csv"], tmp_path / "page")

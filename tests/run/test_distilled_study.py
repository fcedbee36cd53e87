"""`finetune.learn: {method: distill}`: who teaches whom, what is refused, the same bits again."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from resumed import stopped_and_resumed
from tiny_study import write_tiny_study

from medtl.errors import LeakError, RecipeError, RunError
from medtl.recipe.schema import parse_recipe
from medtl.run.build import build_manifest, build_task
from medtl.run.chain import build_training, run_study, train_study
from medtl.run.check import read_recipe
from medtl.run.folder import Run
from medtl.run.learning.teacher import find_teachers
from medtl.run.plan import describe_plan
from medtl.run.prepare import read_study, split_cases
from medtl.studies.kfold import ensemble_kfold
from medtl.training.checkpoint import load_checkpoint
from medtl.training.objective import Distilled

SHORT = ["finetune.stages.1.epochs=1"]


def taught_by(folder, **options):
    text = ", ".join(f"{k}: {v}" for k, v in options.items())
    return f"finetune.learn={{method: distill, teacher: {folder}{text and ', ' + text}}}"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study, and a teacher that was trained on it."""
    folder = tmp_path_factory.mktemp("taught")
    path = write_tiny_study(folder / "data", patients=16)
    train_study(read_recipe(path, SHORT), folder / "teacher").seal()
    return folder, path


@pytest.fixture(scope="module")
def folds(study):
    """The same, and a study of folds that keeps its test patients apart."""
    folder, path = study
    ensemble_kfold(read_recipe(path, SHORT), folder / "folds", folds=3)
    return study


def given(**changes):
    plain = {
        "study": {"question": "Is it?"},
        "data": {"manifest": "m.csv", "target": "t"},
        "image": {"modality": "cxr"},
        "finetune": {"learn": {"method": "distill", "teacher": "run"}},
    }
    return parse_recipe({**plain, **changes}, where="r")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"image": {"modality": "hand"}, "task": {"kind": "bone_age"}},
            "compares probabilities of labels, which bone_age does not have",
        ),
        (
            {
                "data": {"manifest": "m.csv", "mask": "m"},
                "task": {"kind": "segmentation", "structures": {"lung": 1}},
            },
            "compares probabilities of labels, which segmentation does not have",
        ),
        (
            {"finetune": {"learn": {"method": "distill", "teacher": "r"}, "mix": {"mixup": 0.2}}},
            "finetune.mix and finetune.learn distill both change the images",
        ),
        ({"finetune": {"learn": {"method": "distill"}}}, "teacher: this key is missing"),
        (
            {"finetune": {"learn": {"method": "distill", "teacher": "r", "temperature": 0}}},
            "temperature",
        ),
        ({"finetune": {"learn": {"method": "distil", "teacher": "r"}}}, "Did you mean 'distill'"),
    ],
)
def test_what_has_no_meaning_is_refused(changes, reason):
    with pytest.raises(RecipeError, match=reason):
        given(**changes)


def test_a_teacher_is_a_trained_run(study, tmp_path):
    _, path = study
    with pytest.raises(RecipeError, match="no folder 'nobody'"):
        read_recipe(path, [taught_by(tmp_path / "nobody")])
    (tmp_path / "fold_0").mkdir()
    recipe = read_recipe(path, [taught_by(tmp_path)])
    with pytest.raises(RunError, match="fold_0: not finished"):
        find_teachers(recipe, read_study(recipe))
    recipe = read_recipe(path, [taught_by(tmp_path / "fold_0")])
    with pytest.raises(RunError, match="no trained run there"):
        find_teachers(recipe, read_study(recipe))


def test_a_teacher_answers_the_same_question(study):
    folder, path = study
    prepared = read_study(read_recipe(path, [taught_by(folder / "teacher")]))
    other = replace(prepared, task=replace(prepared.task, labels=("dark",)))
    with pytest.raises(RunError, match="answers findings, bright"):
        find_teachers(prepared.recipe, other)


def test_a_teacher_of_test_patients_is_refused_with_their_number(study):
    folder, path = study
    recipe = read_recipe(path, [taught_by(folder / "teacher"), "data.split.seed=1"])
    prepared = read_study(recipe)
    rows = Run(folder / "teacher").manifest
    learned = set(rows.loc[rows["split"] != "test", "patient_id"])
    tested = {case.patient_id for case in prepared.split("test")}
    leaked = len(learned & tested)
    assert leaked
    said = f"trained or tuned on {leaked} of {len(tested)} test patients"
    with pytest.raises(LeakError, match=said):
        build_training(prepared, folder)
    with pytest.raises(LeakError, match=said):
        list(describe_plan(recipe))
    # Under other ids the pixels tell.
    strange = [replace(case, patient_id=f"x{case.patient_id}") for case in prepared.cases]
    with pytest.raises(LeakError, match=said):
        find_teachers(recipe, replace(prepared, cases=tuple(strange)))


@pytest.mark.slow
def test_folds_teach_what_they_did_not_train_on(folds):
    folder, path = folds
    recipe = read_recipe(path, [taught_by(folder / "folds")])
    prepared = read_study(recipe)
    teachers = find_teachers(recipe, prepared)
    assert sorted(c.case_id for lesson in teachers.lessons for c in lesson) == sorted(
        case.case_id for case in prepared.split("train")
    )
    for run, lesson in zip(teachers.runs, teachers.lessons, strict=True):
        split = run.manifest.set_index("case_id")["split"]
        assert {split[case.case_id] for case in lesson} == {"val"}
    said = teachers.outputs(prepared)
    one, first = teachers.lessons[0], teachers.runs[0].trained
    place = [case.case_id for case in prepared.split("train")].index(one[0].case_id)
    expected = next(iter(first.outputs(prepared.store, one)))[0]
    np.testing.assert_allclose(said[place], expected, rtol=1e-5)
    assert teachers.facts["validation_patients_known"] == teachers.facts["validation_patients"] > 0


def test_every_model_that_trained_on_a_case_cannot_teach_it(study, tmp_path):
    folder, path = study
    for number in range(2):  # twice the same run: its training cases are in both
        (tmp_path / f"fold_{number}").symlink_to(folder / "teacher", target_is_directory=True)
    recipe = read_recipe(path, [taught_by(tmp_path)])
    with pytest.raises(
        RunError, match=r"every model of .* has trained on \d+ of \d+ training cases"
    ):
        find_teachers(recipe, read_study(recipe))


def test_a_pupil_reads_by_its_teachers_preprocessing(study):
    folder, path = study
    recipe = read_recipe(path, [taught_by(folder / "teacher"), "image.size=48"])
    prepared = read_study(recipe)
    said = find_teachers(recipe, prepared).outputs(prepared)
    plain = read_recipe(path)
    assert prepared.store.unit(0).shape[1:] == (48, 48)
    same = read_study(plain)
    expected = torch.cat(
        [*Run(folder / "teacher").trained.outputs(same.store, same.split("train"))]
    )
    np.testing.assert_array_equal(said, expected)


@pytest.mark.slow
def test_a_distilled_run_says_so_and_goes_on_to_the_same_bits(folds, tmp_path):
    folder, path = folds
    asked = [*SHORT, taught_by(folder / "folds", temperature=4.0, weight=0.7)]
    recipe = read_recipe(path, asked)
    whole = run_study(recipe, tmp_path / "whole")
    plain = train_study(read_recipe(path, SHORT), tmp_path / "plain")
    again = stopped_and_resumed(recipe, tmp_path / "again", after=1)
    assert again.files.predictions.read_bytes() == whole.files.predictions.read_bytes()
    assert plain.files.best.read_bytes() != whole.files.best.read_bytes()
    asked.append("run.workers=2")
    workers = train_study(read_recipe(path, asked), tmp_path / "workers")
    tensors = [load_checkpoint(run.files.best)[0] for run in (whole, workers)]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
    rows = whole.history
    mixed = 0.3 * rows["label_loss"] + 0.7 * rows["teacher_loss"]
    np.testing.assert_allclose(rows["train_loss"], mixed, rtol=1e-5)
    assert rows["teacher_agreement"].between(0, 1).all()
    assert "teacher_loss" not in plain.history
    page = whole.files.report.read_text("utf-8")
    assert "a share of 0.7 of the loss at temperature 4, from what folds says of the" in page
    assert "folds is a study of 3 folds" in page
    assert "student and teacher said the same of" in page
    korean = whole.report(tmp_path / "ko.html", language="ko").read_text("utf-8")
    assert "폴드 3개의 연구입니다" in korean
    assert str(folder) not in whole.files.recipe.read_text()

    facts = json.loads(again.files.learning.read_text())
    again.files.learning.write_text(json.dumps({**facts, "teacher_sha256": "0"}))
    again.files.checksums.unlink()
    with pytest.raises(RunError, match=r"has changed since it was started \(teacher_sha256\)"):
        run_study(recipe, tmp_path / "again", resume=True)


def test_stored_activations_serve_distillation(study):
    folder, path = study
    asked = [taught_by(folder / "teacher"), "finetune.cached_views=1"]
    lines = "\n".join(describe_plan(read_recipe(path, [*asked, "finetune.stages.0.epochs=3"])))
    assert "run once for each of 1 views" in lines
    assert "from what teacher says of the" in lines


def test_a_distilled_batch_is_both_losses_in_their_shares(study):
    folder, path = study
    recipe = read_recipe(path, [taught_by(folder / "teacher", weight=0.25)])
    training, _ = build_training(read_study(recipe), folder, rehearsal=True)
    objective = training.objective
    assert isinstance(objective, Distilled)
    assert objective.teacher.shape == (len(training.train), 1)
    assert not objective.teacher.any(), "a rehearsal asks nobody"


@pytest.mark.slow
def test_the_split_of_folds_is_that_of_the_recipe(folds):
    """Why the models of `--ensemble` may teach: they leave out the test patients of the recipe."""
    folder, path = folds
    recipe = read_recipe(path)
    manifest = build_manifest(recipe)
    split = split_cases(recipe, manifest, build_task(recipe, manifest.cases))
    tested = {case.case_id for case in split.cases if case.split == "test"}
    rows = Run(folder / "folds" / "fold_0").manifest
    assert set(rows.loc[rows["split"] == "test", "case_id"]) == tested


@pytest.mark.parametrize("method", ["distill", "fixmatch", "adversarial"])
def test_a_teacher_that_was_taught_itself_is_refused(study, tmp_path, method):
    """Its own teacher may have seen the test patients; adversarial training asks nobody else."""
    folder, path = study
    shutil.copytree(folder / "teacher", tmp_path / "pupil")
    learning = {"schema": "medtl-learning/1", "method": method}
    if method != "adversarial":
        learning |= {"teacher": "big", "validation_patients_known": 0}
    (tmp_path / "pupil/learning.json").write_text(json.dumps(learning))
    recipe = read_recipe(path, [taught_by(tmp_path / "pupil")])
    prepared = read_study(recipe)
    if method == "adversarial":
        assert find_teachers(recipe, prepared).facts["models"] == 1
        return
    with pytest.raises(RunError, match=f"pupil learned by {method}.*Teach by whom it learned from"):
        find_teachers(recipe, prepared)


@pytest.mark.slow
def test_a_run_that_was_taught_is_known_as_such(study, tmp_path):
    folder, path = study
    recipe = read_recipe(path, [*SHORT, taught_by(folder / "teacher")])
    train_study(recipe, tmp_path / "pupil").seal()
    again = read_recipe(path, [taught_by(tmp_path / "pupil")])
    with pytest.raises(RunError, match=r"learned by distill.*\(teacher\)"):
        find_teachers(again, read_study(again))

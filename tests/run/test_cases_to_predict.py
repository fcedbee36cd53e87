"""What a prediction takes, what it leaves out, and what it says of both."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from tiny_study import write_tiny_study
from typer.testing import CliRunner

from medtl.cli.main import app
from medtl.errors import ManifestError, RunError
from medtl.run.chain import train_study
from medtl.run.check import read_recipe
from medtl.run.folder import Run
from medtl.run.predicted import Predictions
from medtl.run.spread.jobs import FeaturesJob, PredictJob
from medtl.storage.parts import WHOLE
from medtl.types import silent


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(data folder with a copy of an image and a broken one, trained run)."""
    recipe = write_tiny_study(tmp_path_factory.mktemp("study") / "data", patients=16)
    data = recipe.parent
    (data / "images" / "broken.png").write_bytes(b"none")
    shutil.copy(data / "images" / "000_0.png", data / "images" / "copy.png")
    with (data / "manifest.csv").open("a") as file:
        file.write("images/broken.png,Kim-1,1,north,41,F\nimages/copy.png,Kim-0,0,south,40,F\n")
    run = data.with_name("run")
    changes = ["finetune.stages.*.epochs=1", "data.duplicates=drop"]
    train_study(read_recipe(recipe, changes), run)
    return data, run


def parts(run: Path) -> dict[str, int]:
    found = Run(run).manifest
    return dict(found[found["content_sha256"] != ""].groupby("split").size())


def test_the_runs_own_manifest_says_what_it_leaves_out(study, tmp_path):
    data, run = study
    done = Run(run).predict(data / "manifest.csv", tmp_path / "out.csv")
    counts = parts(run)
    table = pd.read_csv(tmp_path / "out.csv")
    assert dict(table.groupby("split").size()) == {k: counts[k] for k in ("val", "test")}
    said = done.told("out.csv")
    assert said[0] == (
        f"The run's own manifest: of its 34 images {counts['train']} were left out, those of "
        "train, from which the network learned. Predicted: val and test. For all: --splits "
        "train,val,test"
    )
    assert said[1].startswith("2 images of the manifest are left out here as by the run")


def test_all_parts_of_it_are_predicted_when_asked_for(study, tmp_path):
    data, run = study
    asked = ("train", "val", "test")
    done = Run(run).predict(data / "manifest.csv", tmp_path / "out.csv", splits=asked)
    table = pd.read_csv(tmp_path / "out.csv")
    assert dict(table.groupby("split").size()) == parts(run)
    assert not any("those of" in line for line in done.told("out.csv"))
    few = Run(run).predict(data / "manifest.csv", tmp_path / "few.csv", splits=("test",))
    assert "those of train and val, from which" in few.notes[0]
    assert set(few.frame["split"]) == {"test"}
    held = Run(run).predict(data / "manifest.csv", None, splits=("train", "val"))
    assert "those of test. Predicted: train and val." in held.notes[0]


def test_parts_that_are_none_or_of_other_images(study, tmp_path):
    data, run = study
    with pytest.raises(ManifestError, match="no part of a run is called 'valid'"):
        Run(run).predict(data / "manifest.csv", splits=("valid",))
    with pytest.raises(ManifestError, match="these images are not the run's own"):
        Run(run).predict(data / "images", splits=("test",))
    own = pd.read_csv(run / "manifest.csv", dtype=str)
    shutil.copytree(run, tmp_path / "run")
    own.assign(content_sha256="").to_csv(tmp_path / "run" / "manifest.csv", index=False)
    with pytest.raises(ManifestError, match="no image of val or test that could be read"):
        Run(tmp_path / "run").predict(data / "manifest.csv")


def test_dropped_rows_under_the_ids_of_another_machine(study, tmp_path, monkeypatch):
    """By position nothing fits, and by id nothing is found: guessing would mix truths."""
    data, run = study
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "other-machine"))
    with pytest.raises(ManifestError, match="kept 33 of 34 rows, and its ids are of another"):
        Run(run).predict(data / "manifest.csv")


def test_images_that_the_run_learned_from_are_known_by_their_pixels(study, tmp_path):
    data, run = study
    counts = parts(run)
    done = Run(run).predict(data / "images", tmp_path / "out.csv")
    known = counts["train"] + counts["val"] + 1  # and the copy of one of them
    line = f"The run was trained or tuned on {known} of these images (equal pixels): their scores"
    assert [said[: len(line)] for said in done.notes] == [line]
    new = write_tiny_study(tmp_path / "new", patients=40).parent / "images"
    for path in new.iterdir():
        if int(path.name[:3]) < 16:  # those of the study
            path.unlink()
    assert Run(run).predict(new, tmp_path / "new.csv").notes == ()


def test_a_file_that_cannot_be_read_is_named(study, tmp_path):
    data, run = study
    pd.read_csv(data / "manifest.csv").tail(4).to_csv(data / "new.csv", index=False)
    done = Run(run).predict(data / "new.csv", tmp_path / "out.csv")
    assert any(line.startswith("  images/broken.png: ") for line in done.told("out.csv"))
    quality = json.loads((tmp_path / "out.quality.json").read_text("utf-8"))
    assert [one["file"] for one in quality["quarantined"]] == ["images/broken.png"]
    with pytest.raises(RunError, match=r"^broken\.png: no image could be read"):
        Run(run).predict(data / "images" / "broken.png")


def test_what_is_written_of_the_runs_own_cases_names_no_file(study, tmp_path, monkeypatch):
    """As their table: a path may name a patient."""
    data, run = study
    monkeypatch.setattr("medtl.run.predict.unlike_training", lambda *_: ["too dark"])
    done = Run(run).predict(data / "manifest.csv", tmp_path / "own.csv", splits=("train", "val"))
    assert done.flagged
    assert all(one["file"] for one in done.flagged)
    text = (tmp_path / "own.quality.json").read_text("utf-8")
    assert "images/" not in text
    assert done.flagged[0]["case_id"] in text


def test_features_name_it_too_and_take_parts(study, tmp_path):
    data, run = study
    job = FeaturesJob(str(run), str(data / "images"), str(tmp_path / "f.csv"))
    assert job.finish([job.do(WHOLE, silent)])[-1].startswith("  broken.png: ")
    own = FeaturesJob(str(run), str(data / "manifest.csv"), str(tmp_path / "g.csv"), ("train",))
    said = own.finish([own.do(WHOLE, silent)])
    assert "those of val and test. Predicted: train." in said[0]
    assert set(pd.read_csv(tmp_path / "g.csv")["split"]) == {"train"}


def test_a_table_that_exists_is_kept(study, tmp_path):
    data, run = study
    out = tmp_path / "out.csv"
    out.write_text("mine")
    with pytest.raises(RunError, match=r"out\.csv: the table exists; .*|the table exists"):
        Run(run).predict(data / "images", out)
    told = [str(run), str(data / "images"), "--out", str(out)]
    for command in (["predict"], ["features"], ["predict", "--shard", "1/2"]):
        refused = CliRunner().invoke(app, [*command, *told])
        assert "the table exists" in str(refused.exception)
    assert out.read_text() == "mine"


def test_shares_may_be_done_again_where_their_table_is(study, tmp_path):
    data, run = study
    out = tmp_path / "out.csv"
    told = ["predict", str(run), str(data / "images"), "--out", str(out)]
    for share in ("1/2", "2/2", "again"):
        number = share.replace("again", "1/2")
        done = CliRunner().invoke(app, [*told, "--shard", number], catch_exceptions=False)
        assert f"Share {number}" in done.output
        if share == "2/2":
            assert CliRunner().invoke(app, ["merge", str(out)]).exit_code == 0
    whole = PredictJob(str(run), str(data / "images"), str(tmp_path / "whole.csv"))
    whole.finish([whole.do(WHOLE, silent)])
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert "the table exists" in str(CliRunner().invoke(app, told).exception)


def test_a_study_of_a_server_has_no_parts(study, tmp_path):
    told = ["--dicomweb", "http://x", "--study", "1", "--splits", "test"]
    done = CliRunner().invoke(app, ["predict", str(study[1]), "--out", "x.csv", *told])
    assert "in no part of the run" in str(done.exception)


def test_masks_beside_images_are_not_predicted(study, tmp_path):
    data, run = study
    for name in ("images/a.png", "images/b.png", "images/b_mask.png", "masks/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(data / "images" / "001_0.png", tmp_path / name)
    done = Run(run).predict(tmp_path, tmp_path / "out.csv")
    assert set(done.frame["file"]) == {"images/a.png", "images/b.png"}
    line = "2 files are named like masks of others (images/b_mask.png) and were left out"
    assert done.told("out.csv")[0] == line


def test_flags_are_said_in_words_with_what_is_to_be_done():
    flagged = (
        {"flags": ["spacing_from_imager"], "unlike_training": []},
        {"flags": ["spacing_from_imager", "burned_in_annotation"], "unlike_training": ["size"]},
        {"flags": ["sex_unknown"], "unlike_training": []},
    )
    done = Predictions(pd.DataFrame(), 3, flagged, unknown={"sex_unknown": 1}, quality=Path("q"))
    assert done.told("out.csv")[-3:] == [
        "  2 spacing_from_imager: the pixel size is that of the detector, as is usual of "
        "radiographs; nothing to do",
        "  1 burned_in_annotation: look at these images",
        "  1 unlike the training images: read their scores with care",
    ]


@pytest.mark.parametrize("ending", [".tsv", ".xlsx"])
def test_a_list_is_a_list_in_whatever_table(study, tmp_path, ending):
    data, run = study
    shutil.copy(data / "images" / "000_0.png", tmp_path / "a.png")
    rows = pd.DataFrame({"image": ["a.png"], "patient_id": ["new"]})
    if ending == ".xlsx":
        rows.to_excel(tmp_path / "list.xlsx", index=False)
    else:
        rows.to_csv(tmp_path / "list.tsv", sep="\t", index=False)
    assert Run(run).predict(tmp_path / f"list{ending}").images == 1
    assert Run(run).predict(tmp_path).images == 1  # nor is it an image of its folder

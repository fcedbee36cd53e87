"""A run folder and its images to DICOM objects: whose result goes where, and whose not."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from export_example import NAMES, faults, write_ct, write_json, write_radiograph, write_run
from pydicom import dcmread
from typer.testing import CliRunner

pytest.importorskip("highdicom")

from medtl.cases.leaks import content_hash
from medtl.cli.main import app
from medtl.errors import (
    ImageError,
    InstallationError,
    ManifestError,
    MedtlError,
    PredictionsError,
    RunError,
)
from medtl.export import objects as export_module
from medtl.export.objects import Exported
from medtl.io.read import read_image
from medtl.run.folder import Run

FIRST, SECOND, THIRD = (f"c-{number:012d}" for number in range(3))


@pytest.fixture
def images(tmp_path) -> Path:
    return tmp_path / "images"


@pytest.fixture
def run(tmp_path, images) -> Path:
    return write_run(tmp_path, images)


def listed(out: Path) -> list[dict[str, str]]:
    return json.loads((out / "export.json").read_text())["objects"]


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns) for p in files}


def test_every_test_case_goes_to_its_own_patient(run, images, tmp_path):
    before = snapshot(run), snapshot(images)
    done = Run(run).export(tmp_path / "out", images=images)
    assert done == Exported(cases=2, objects=3, left_out={})
    found = [(entry["case_id"], entry["kind"]) for entry in listed(tmp_path / "out")]
    assert found == [(FIRST, "SR"), (FIRST, "SC"), (SECOND, "SR")]
    names = {FIRST: NAMES[0], SECOND: NAMES[1]}
    for entry in listed(tmp_path / "out"):
        dataset = dcmread(tmp_path / "out" / entry["file"])
        assert dataset.PatientName == names[entry["case_id"]]
        assert entry["file"] == f"{entry['kind']}.{dataset.SOPInstanceUID}.dcm"
    assert (snapshot(run), snapshot(images)) == before


def test_every_file_is_valid(run, images, tmp_path):
    Run(run).export(tmp_path / "out", images=images)
    for entry in listed(tmp_path / "out"):
        assert faults(tmp_path / "out" / entry["file"]) == []


def test_a_repeated_export_is_the_same_bytes(run, images, tmp_path):
    for name in ("one", "two"):
        Run(run).export(tmp_path / name, images=images)
    one, two = (
        {name: data for name, (data, _) in snapshot(tmp_path / folder).items()}
        for folder in ("one", "two")
    )
    assert one == two


def test_one_case_is_the_same_alone(run, images, tmp_path):
    Run(run).export(tmp_path / "all", images=images)
    Run(run).export(tmp_path / "one", images=images, case_ids=[SECOND])
    (entry,) = listed(tmp_path / "one")
    assert entry in listed(tmp_path / "all")


def test_neither_names_nor_folders_decide_whose_a_result_is(run, images, tmp_path):
    """Negative control: the two files swap their names; each result follows the pixels."""
    first, second = images / "0" / "IM.dcm", images / "1" / "IM.dcm"
    first.rename(images / "x")
    second.rename(first)
    (images / "x").rename(second)
    Run(run).export(tmp_path / "out", images=images, case_ids=[FIRST])
    entry = listed(tmp_path / "out")[0]
    assert dcmread(tmp_path / "out" / entry["file"]).PatientName == NAMES[0]


def test_a_changed_image_gets_no_result(run, images, tmp_path):
    path = images / "0" / "IM.dcm"
    dataset = dcmread(path)
    pixels = dataset.pixel_array.copy()
    pixels[0, 0] += 1
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(path)
    done = Run(run).export(tmp_path / "out", images=images)
    assert done.left_out == {FIRST: "no DICOM image with these pixels among the images given"}
    assert done.cases == 1
    with pytest.raises(RunError, match=r"1 case\(s\) cannot be exported; c-0+: no DICOM image"):
        Run(run).export(tmp_path / "other", images=images, case_ids=[FIRST])
    assert not (tmp_path / "other").exists()


def test_two_people_with_the_same_pixels_get_no_result(run, images, tmp_path):
    dataset = dcmread(images / "0" / "IM.dcm")
    dataset.SOPInstanceUID, dataset.PatientName = "1.2.3", "Other^Person"
    dataset.save_as(images / "twin.dcm", enforce_file_format=True)
    done = Run(run).export(tmp_path / "out", images=images)
    assert done.left_out == {FIRST: "2 images have these same pixels; leave only the right one"}


def test_copies_of_one_image_are_one_image(run, images, tmp_path):
    shutil.copy(images / "0" / "IM.dcm", images / "copy.dcm")
    assert Run(run).export(tmp_path / "out", images=images).left_out == {}
    dataset = dcmread(images / "copy.dcm")
    dataset.PatientID = "somebody else"
    dataset.save_as(images / "copy.dcm")
    assert FIRST in Run(run).export(tmp_path / "other", images=images).left_out


def test_two_cases_with_the_same_pixels_get_no_result(run, images, tmp_path):
    text = (run / "manifest.csv").read_text()
    first, second = (line.split(",")[-1] for line in text.splitlines()[1:3])
    (run / "manifest.csv").write_text(text.replace(second, first))
    with pytest.raises(RunError, match="2 cases of the run have these same pixels"):
        Run(run).export(tmp_path / "out", images=images)


def test_a_manifest_limits_the_images(run, images, tmp_path):
    (images / "m.csv").write_text("image,patient_id\n0/IM.dcm,a\n")
    (images / "notes.txt").write_text("no image")
    done = Run(run).export(tmp_path / "out", images=images / "m.csv")
    assert (done.cases, list(done.left_out)) == (1, [SECOND])
    done = Run(run).export(tmp_path / "file", images=images / "1" / "IM.dcm")
    assert (done.cases, list(done.left_out)) == (1, [FIRST])


def test_images_that_are_no_dicom_get_no_result(run, images, tmp_path):
    shutil.rmtree(images)
    images.mkdir()
    (images / "x.png").write_bytes(b"\x89PNG")
    with pytest.raises(RunError, match="no DICOM image"):
        Run(run).export(tmp_path / "out", images=images)


def test_a_run_in_colour_is_recognised(run, images, tmp_path):
    text = (run / "manifest.csv").read_text()
    path = images / "0" / "IM.dcm"
    grey, rgb = (content_hash(read_image(path, color=c).array) for c in ("grey", "rgb"))
    (run / "manifest.csv").write_text(text.replace(grey, rgb))
    assert Run(run).export(tmp_path / "out", images=path).cases == 1


def test_a_run_with_the_files_own_window_is_recognised(run, tmp_path):
    path = write_radiograph(tmp_path / "w.dcm", 0, WindowCenter=2000, WindowWidth=100)
    digest = content_hash(read_image(path, voi=True).array)
    text = (run / "manifest.csv").read_text().splitlines()
    text[1] = f"{FIRST},p,test,{digest}"
    (run / "manifest.csv").write_text("\n".join(text))
    with pytest.raises(RunError, match="no DICOM image"):
        Run(run).export(tmp_path / "out", images=path)
    (run / "recipe.yaml").write_text("image: {scale: voi}\nmodel: {backbone: x}\n")
    assert Run(run).export(tmp_path / "out", images=path).cases == 1


def test_other_predictions_are_exported_whole(run, images, tmp_path):
    digest = content_hash(read_image(images / "2" / "IM.dcm").array)
    table = tmp_path / "new.csv"
    table.write_text(f"case_id,split,label,y_score,content_sha256\nz,,pneumonia,0.7,{digest}\n")
    Run(run).export(tmp_path / "out", images=images, predictions=table)
    (entry,) = listed(tmp_path / "out")
    assert (entry["case_id"], entry["kind"]) == ("z", "SR")
    assert dcmread(tmp_path / "out" / entry["file"]).PatientName == NAMES[2]
    table.write_text("case_id,label,y_score\nz,pneumonia,0.7\n")
    with pytest.raises(PredictionsError, match="nothing says which image the case z is"):
        Run(run).export(tmp_path / "other", images=images, predictions=table)


def test_a_pdf_goes_to_one_study(run, images, tmp_path):
    pdf = tmp_path / "report.pdf"
    pdf.write_bytes(b"%PDF-1.4")
    with pytest.raises(RunError, match=r"report.pdf: the exported cases are of 2 studies"):
        Run(run).export(tmp_path / "out", images=images, pdf=pdf)
    Run(run).export(tmp_path / "out", images=images, pdf=pdf, case_ids=[FIRST])
    assert [entry["kind"] for entry in listed(tmp_path / "out")] == ["SR", "SC", "PDF"]
    with pytest.raises(RunError, match=r"missing.pdf: cannot be read"):
        Run(run).export(
            tmp_path / "x", images=images, pdf=tmp_path / "missing.pdf", case_ids=[FIRST]
        )


@pytest.mark.parametrize(
    "content", [b"%PDF-1.4 /Title (Effusion medtl evaluation report)",
                b"%PDF-1.4 /Title (" + "x medtl evaluation report".encode("utf-16-be"),
                b"%PDF-1.4 /Title <" + "medtl evaluation report".encode("utf-16-be").hex().upper()
                .encode()],
)  # fmt: skip
def test_the_report_of_a_cohort_cannot_enter_a_patients_study(run, images, tmp_path, content):
    pdf = tmp_path / "any.pdf"
    pdf.write_bytes(content)
    with pytest.raises(RunError, match=r"any.pdf: this is the report of the whole study"):
        Run(run).export(tmp_path / "out", images=images, pdf=pdf, case_ids=[FIRST])
    (run / "report.pdf").write_bytes(b"%PDF-1.4")
    with pytest.raises(RunError, match=r"report.pdf: this is the report of the whole study"):
        Run(run).export(tmp_path / "out", images=images, pdf=run / "report.pdf", case_ids=[FIRST])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["run/dicom", "images/dicom", "images"])
def test_identities_stay_out_of_run_and_images(run, images, tmp_path, place):
    with pytest.raises(RunError, match="name patients and are kept apart"):
        Run(run).export(tmp_path / place, images=images)
    assert not (run / "dicom").exists()


def test_nothing_is_overwritten(run, images, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    for name in ("out", "out/mine"):
        with pytest.raises(RunError, match="the folder is not empty"):
            Run(run).export(tmp_path / name, images=images)


def test_a_run_that_is_none_and_cases_that_are_none(run, images, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(RunError, match="no result for the case c-9"):
        Run(run).export(out, images=images, case_ids=["c-9"])
    with pytest.raises(RunError, match=f"no result for the case {THIRD}"):  # of the validation
        Run(run).export(out, images=images, case_ids=[THIRD])
    with pytest.raises(ManifestError, match="nowhere: there is no such file or folder"):
        Run(run).export(out, images=tmp_path / "nowhere")
    text = (run / "predictions.csv").read_text()
    (run / "predictions.csv").write_text(text.replace("test", "val"))
    with pytest.raises(RunError, match="there are no results"):
        Run(run).export(out, images=images)
    (run / "recipe.yaml").unlink()
    with pytest.raises(RunError, match=r"run: no recipe.yaml"):
        Run(run).export(out, images=images)
    assert not out.exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0.9", "high", "y_score is not a number"),
        (f"{SECOND},p-{SECOND[2:]}", f"{FIRST},p", "1 rows repeat another: row 3"),
        ("y_score", "score", "no column y_score; expected the columns case_id"),
    ],
)
def test_tables_that_are_not_predictions(run, images, tmp_path, old, new, message):
    text = (run / "predictions.csv").read_text()
    (run / "predictions.csv").write_text(text.replace(old, new))
    with pytest.raises(PredictionsError, match=message):
        Run(run).export(tmp_path / "out", images=images)


def test_a_case_without_a_score_is_left_out(run, images, tmp_path):
    text = (run / "predictions.csv").read_text()
    (run / "predictions.csv").write_text(text.replace(",0.2", ",").replace(",0.9", ",nan"))
    done = Run(run).export(tmp_path / "out", images=images)
    assert done.left_out == {SECOND: f"{SECOND}: there is neither a score nor a mask."}
    assert [entry["kind"] for entry in listed(tmp_path / "out")] == ["SC"]


def test_a_header_that_cannot_be_used_costs_its_own_case(run, images, tmp_path):
    dataset = dcmread(images / "0" / "IM.dcm")
    dataset.StudyInstanceUID = ""
    dataset.save_as(images / "0" / "IM.dcm")
    done = Run(run).export(tmp_path / "out", images=images)
    assert (done.cases, list(done.left_out)) == (1, [FIRST])
    assert "StudyInstanceUID" in done.left_out[FIRST]
    for case_ids in ([FIRST], [FIRST, SECOND]):  # a case that is asked for must be there
        out = tmp_path / f"{len(case_ids)}"
        with pytest.raises(RunError, match="StudyInstanceUID"):
            Run(run).export(out, images=images, case_ids=case_ids)
        assert out.exists() == (SECOND in case_ids)


def masks(run: Path, **labels: str) -> None:
    """Turn the run into one of segmentations of the first two cases, in planes."""
    (run / "masks").mkdir()
    (run / "predictions.csv").write_text(
        f"case_id,patient_id,split,truth,prediction\n{FIRST},p,test,t.png,masks/0.png\n"
    )
    (run / "predictions.yaml").write_text("labels: {0: background, '1': lung, 2: heart}\n")
    pixels = np.zeros((40, 48), np.uint8)
    pixels[2:9, 3:20], pixels[20:30, 3:20] = 1, 2
    from PIL import Image

    Image.fromarray(pixels).save(run / "masks" / "0.png")


def test_a_mask_becomes_a_segmentation(run, images, tmp_path):
    masks(run)
    shutil.rmtree(run / "gallery")
    Run(run).export(tmp_path / "out", images=images)
    (entry,) = listed(tmp_path / "out")
    assert entry["kind"] == "SEG"
    assert faults(tmp_path / "out" / entry["file"]) == []
    dataset = dcmread(tmp_path / "out" / entry["file"])
    assert [segment.SegmentLabel for segment in dataset.SegmentSequence] == ["lung", "heart"]
    assert dataset.pixel_array.sum(axis=(1, 2)).tolist() == [7 * 17, 10 * 17]


def test_masks_of_overlapping_structures_are_one_segmentation(run, images, tmp_path):
    masks(run)
    shutil.copy(run / "masks" / "0.png", run / "masks" / "1.png")
    rows = [f"{FIRST},p,test,{label},,masks/{n}.png" for n, label in enumerate(("lung", "heart"))]
    text = "\n".join(["case_id,patient_id,split,label,truth,prediction", *rows])
    (run / "predictions.csv").write_text(text)
    Run(run).export(tmp_path / "out", images=images)
    (entry,) = [one for one in listed(tmp_path / "out") if one["kind"] == "SEG"]
    dataset = dcmread(tmp_path / "out" / entry["file"])
    assert [segment.SegmentLabel for segment in dataset.SegmentSequence] == ["lung", "heart"]


def test_masks_without_meanings_or_files_are_refused(run, images, tmp_path):
    masks(run)
    (run / "predictions.yaml").write_text("labels: []\n")
    with pytest.raises(PredictionsError, match=r"predictions.yaml: labels do not name the values"):
        Run(run).export(tmp_path / "out", images=images)
    (run / "predictions.yaml").unlink()
    with pytest.raises(PredictionsError, match="nothing says what the values"):
        Run(run).export(tmp_path / "out", images=images)
    for name in ("../../images/0/IM.dcm", "masks/9.png"):
        text = f"case_id,patient_id,split,truth,prediction\n{FIRST},p,test,t,{name}\n"
        (run / "predictions.csv").write_text(text)
        with pytest.raises(PredictionsError, match="a predicted mask is missing"):
            Run(run).export(tmp_path / "out", images=images)


def test_a_series_is_exported_with_its_volume_mask(run, images, tmp_path):
    folder = images / "ct"
    write_ct(folder)
    (folder / "notes.txt").write_text("beside the series")
    volume = read_image(folder)
    lines = ["case_id,patient_id,split,content_sha256"]
    lines.append(f"{FIRST},p,test,{content_hash(volume.array)}")
    (run / "manifest.csv").write_text("\n".join(lines))
    masks(run)
    text = (run / "predictions.csv").read_text()
    (run / "predictions.csv").write_text(text.replace("0.png", "0.nii.gz"))
    mask = np.zeros(volume.array.shape[1:], np.uint8)
    mask[1, 2:5, 3:9], mask[3, 2:5, 3:9] = 1, 2
    nibabel.save(nibabel.Nifti1Image(mask, volume.affine), run / "masks" / "0.nii.gz")
    Run(run).export(tmp_path / "out", images=images)
    entry = next(e for e in listed(tmp_path / "out") if e["kind"] == "SEG")
    assert faults(tmp_path / "out" / entry["file"]) == []
    import highdicom

    found = highdicom.seg.segread(tmp_path / "out" / entry["file"])
    uids = [dcmread(folder / f"{9 - place}.dcm").SOPInstanceUID for place in range(4)]
    pixels = found.get_pixels_by_source_instance(
        uids,
        combine_segments=True,
        ignore_spatial_locations=True,
        assert_missing_frames_are_empty=True,
    )
    np.testing.assert_array_equal(pixels, mask)


def test_a_series_without_identifiers_cannot_be_referenced(tmp_path):
    for path in write_ct(tmp_path / "ct"):
        dataset = dcmread(path)
        del dataset.SeriesInstanceUID
        dataset.save_as(path)
    with pytest.raises(ImageError, match="ct: no image of the series says which it is"):
        export_module._headers(tmp_path / "ct")


def test_without_highdicom_it_says_what_to_install(run, images, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(InstallationError, match=r"highdicom is not installed.*medtl\[export\]"):
        Run(run).export(tmp_path / "out", images=images)


def test_the_command(run, images, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    arguments = ["export", str(run), "--out", str(out), "--images", str(images)]
    with pytest.raises(MedtlError, match="one format is to be asked for"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    result = CliRunner().invoke(app, [*arguments, "--dicom"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "3 DICOM objects of 2 cases" in result.output
    assert "They name patients. Research use only." in result.output
    write_json(run / "metrics.json", {})
    shutil.rmtree(images / "1")
    arguments = [*arguments[:3], f"{out}2", *arguments[4:], "--dicom"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert "1 cases left out, with the reasons in" in result.output
    assert not any(name in result.output for name in NAMES)


def test_times_are_those_of_the_predictions(run, images, tmp_path):
    os.utime(run / "predictions.csv", (1_700_000_000, 1_700_000_000.9))
    Run(run).export(tmp_path / "out", images=images)
    (first, *_) = listed(tmp_path / "out")
    dataset = dcmread(tmp_path / "out" / first["file"])
    assert dataset.ContentDate in ("20231114", "20231115")
    assert dataset.ContentDate == dataset.InstanceCreationDate


def test_importing_the_export_loads_no_heavy_library():
    import subprocess

    heavy = "{'torch', 'highdicom', 'pandas'}"
    code = f"import sys, medtl.export.objects; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_what_the_run_keeps_makes_a_probability_of_its_scores(run, images, tmp_path):
    fit = {"method": "temperature", "slope": 0.5, "intercept": 0.0, "fitted_on": "val", "n": 9,
           "slope_error": 0.1}  # fmt: skip
    why = {"name": "calibration_slope", "value": 0.5}
    metrics = json.loads((run / "metrics.json").read_text())
    write_json(run / "metrics.json", {**metrics, "recalibrations": [
        {"label": "pneumonia", "fit": fit, "why": why}]})  # fmt: skip
    Run(run).export(tmp_path / "out", images=images)
    said = {entry["case_id"]: dcmread(tmp_path / "out" / entry["file"]).to_json()
            for entry in listed(tmp_path / "out") if entry["kind"] == "SR"}  # fmt: skip
    assert '"Probability"' in said[FIRST]
    assert "0.75" in said[FIRST]  # 0.9 at a temperature of 2
    assert "0.333" in said[SECOND]

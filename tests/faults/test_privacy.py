"""What identifies a person goes into a study in many places, and comes out in none."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import make_dicom
import numpy as np
import pytest
from tiny_study import RECIPE

from medtl.errors import MedtlError
from medtl.run.chain import run_study
from medtl.run.check import read_recipe
from medtl.run.folder import Run
from medtl.storage.traces import find_traces

PLANTED = (
    *("CANARYNAME", "Gildong", "길동", "CANARYPID", "CANARYPHYSICIAN", "CANARYADDRESS"),
    *("CANARYINSTITUTION", "CANARYACCESSION", "CANARYSTATION", "CANARYPRIVATE", "CANARYCOMMENT"),
    *("19340219", "20190807", "1.2.826.0.1.3680043.99", "CANARYFOLDER", "CANARYFILE"),
)
PATIENTS = 24


def write_planted_study(folder: Path) -> Path:
    """DICOM files full of identifiers, below a folder named after a patient; one cannot be read."""
    data = folder / "CANARYFOLDER Hong Gildong"
    (data / "images").mkdir(parents=True)
    lines = ["image,patient_id,bright,site,age,sex"]
    for number in range(2 * PATIENTS):
        patient, bright = number // 2, (number // 2) % 2
        pixels = np.random.default_rng(number).integers(0, 600, (40, 40))
        pixels[10:30, 10:30] += 900 if bright else 300
        path = data / "images" / f"CANARYFILE_{number}.dcm"
        make_dicom.write(path, pixels.astype(np.uint16), **planted(number))
        lines.append(f"images/{path.name},CANARYPID-{patient},{bright},CANARYSITE,{40 + patient},F")
    broken = data / "images" / "CANARYFILE_5.dcm"
    broken.write_bytes(broken.read_bytes()[:-900])
    (data / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (data / "recipe.yaml").write_text(RECIPE.replace("strata: [site]", "strata: [sex]"))
    return data / "recipe.yaml"


def planted(number: int) -> dict[str, object]:
    """Elements of a header that name a person, a place or a moment."""
    uid = f"1.2.826.0.1.3680043.99.{number}"
    return {
        "SpecificCharacterSet": ["", "ISO 2022 IR 149"],
        "PatientName": "CANARYNAME^Gildong=洪^吉洞=홍^길동",
        "PatientID": f"CANARYPID-{number // 2}",
        "PatientBirthDate": "19340219",
        "StudyDate": "20190807",
        "SOPInstanceUID": uid,
        "StudyInstanceUID": uid + ".1",
        "SeriesInstanceUID": uid + ".2",
        "ReferringPhysicianName": "CANARYPHYSICIAN",
        "PatientAddress": "CANARYADDRESS 1",
        "InstitutionName": "CANARYINSTITUTION",
        "AccessionNumber": "CANARYACCESSION",
        "StationName": "CANARYSTATION",
        "ImageComments": "CANARYCOMMENT",
        "BurnedInAnnotation": "YES" if number == 7 else "NO",
    }


@pytest.fixture
def debug_log(tmp_path: Path) -> Iterator[Path]:
    """Everything that any library says, at the level DEBUG."""
    path = tmp_path / "debug.txt"
    handler = logging.FileHandler(path, encoding="utf-8")
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield path
    root.setLevel(level)
    root.removeHandler(handler)
    handler.close()


@pytest.mark.slow
def test_nothing_that_identifies_comes_out(
    tmp_path: Path, debug_log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_planted_study(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(out / "cache"))
    checked = read_recipe(recipe)
    run_study(checked, out / "run")
    images = recipe.parent / "manifest.csv"
    Run(out / "run").predict(images, out / "predicted.csv")
    errors = []
    for change in (["data.max_unreadable=0.0"], ["data.target=site"], ["data.manifest=nowhere"]):
        with pytest.raises(MedtlError) as error:
            run_study(read_recipe(recipe, change), out / "failed")
        errors.append(str(error.value))
    (out / "errors.txt").write_text("\n".join(errors), encoding="utf-8")
    (out / "debug.txt").write_bytes(debug_log.read_bytes())
    assert len(errors) == 3
    quality = json.loads((out / "run" / "data_quality.json").read_text())
    assert len(quality["quarantined"]) == 1
    assert quality["counts"]["burned_in_annotation"] == 1
    assert "burned" in (out / "run" / "report.html").read_text("utf-8").lower()
    assert list((out / "cache").rglob("*.*")), "what a run keeps of the images is searched too"
    assert find_traces(out, PLANTED) == []
    scan = Path(__file__).resolve().parents[3] / "shared" / "corpus" / "phi_scan.py"
    if scan.is_file():
        command = [sys.executable, scan, out, scan.with_name("manifest.json"), *PLANTED]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_the_search_itself_finds_what_was_planted(tmp_path: Path) -> None:
    """The negative control: the same strings, in the files they were planted in."""
    write_planted_study(tmp_path)
    found = {number for _, number in find_traces(tmp_path, PLANTED)}
    private = PLANTED.index("CANARYPRIVATE") + 1  # no file has it
    assert found == set(range(1, len(PLANTED) + 1)) - {private}


def test_doctor_searches_and_repeats_nothing(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("<p>M&#252;ller</p> Maier")
    medtl = Path(sys.executable).with_name("medtl")
    command = [medtl, "doctor", "--privacy", tmp_path]
    found = subprocess.run(
        command, input="Nobody\nMaier\n", capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (1, "report.html: string 2\n")
    command += ["--strings", tmp_path.parent / f"{tmp_path.name}.txt"]
    Path(command[-1]).write_text("Somebody\n")
    clean = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (clean.returncode, clean.stdout) == (0, "None of the strings was found.\n")

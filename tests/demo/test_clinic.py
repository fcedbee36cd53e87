"""Models in an archive: the series that is sent, the archive that is started, the whole way."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from export_example import faults, require_orthanc
from pydicom import dcmread
from typer.testing import CliRunner

from medtl.cli.main import app
from medtl.demo import orthanc as module
from medtl.demo.clinic import SERVICES, Served, _refuse_incomplete
from medtl.demo.mr_series import WHITE, write_mr_series
from medtl.demo.organ import draw_volume
from medtl.demo.orthanc import local_archive
from medtl.errors import InstallationError, RunError
from medtl.io.dicom.web import Server, find_objects, find_studies
from medtl.io.read import read_image


@pytest.mark.parametrize("number", [0, 1, 3])  # devices with three orders of axes
def test_a_series_lies_where_the_volume_lay(tmp_path: Path, number: int) -> None:
    volume = draw_volume(1, number).image
    write_mr_series(tmp_path / "series", volume, "SYNTH-1", entropy="test")
    back = read_image(tmp_path / "series")
    assert volume.affine is not None
    assert back.affine is not None
    places = np.argwhere(volume.array[0] == volume.array.max())[:1]
    world = volume.affine @ np.append(places[0], 1)
    voxel = np.linalg.solve(back.affine, world)[:3]
    np.testing.assert_allclose(voxel, np.rint(voxel), atol=1e-3)
    assert back.array[0][tuple(np.rint(voxel).astype(int))] == WHITE
    wrong = np.diag([-1, 1, 1, 1]) @ world  # negative control: the other side of the patient
    beside = np.rint(np.linalg.solve(back.affine, wrong)[:3]).astype(int)
    inside = np.clip(beside, 0, np.array(back.array.shape[1:]) - 1)
    assert back.array[0][tuple(inside)] < WHITE


def test_every_slice_is_a_valid_object_that_says_what_it_is(tmp_path: Path) -> None:
    paths = write_mr_series(tmp_path, draw_volume(1, 0).image, "SYNTH-1", entropy="test")
    header = dcmread(paths[0])
    assert header.PatientName == "SYNTHETIC^PHANTOM"
    assert "SYNTHETIC" in header.ImageComments
    assert len({dcmread(path).SOPInstanceUID for path in paths}) == len(paths)
    assert faults(paths[0]) == []


def test_without_an_archive_it_is_said_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    result = CliRunner().invoke(app, ["demo", "--pacs", "--out", str(tmp_path / "out")])
    assert isinstance(result.exception, InstallationError)
    assert "orthanc-dicomweb" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_an_archive_that_does_not_start_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "Orthanc"
    broken.write_text("#!/bin/sh\necho no room\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(module, "find_orthanc", lambda: str(broken))
    with pytest.raises(RunError, match=r"Orthanc does not start. no room"):
        local_archive(tmp_path / "archive").__enter__()


def test_a_study_without_its_objects_is_said() -> None:
    service = SERVICES[0]
    _refuse_incomplete(service, Served("chest", "1.2", counted(SR=1, OT=2)))
    with pytest.raises(RunError, match="no OT in the archive"):
        _refuse_incomplete(service, Served("chest", "1.2", counted(SR=1)))


def counted(**counts: int) -> Counter[str]:
    return Counter(counts)


@pytest.mark.slow
def test_from_an_archive_through_two_models_and_back(tmp_path: Path) -> None:
    require_orthanc()
    pytest.importorskip("highdicom")
    out = tmp_path / "clinic"
    result = CliRunner().invoke(app, ["demo", "--pacs", "--out", str(out)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    lines = [line for line in result.output.splitlines() if ", study " in line]
    films = [line for line in lines if line.startswith("chest")]
    (volume,) = [line for line in lines if line.startswith("abdomen")]
    new = len([*(out / "new" / "chest").rglob("*.dcm")])
    assert len(films) == new > 0
    assert all("1 SR" in line and "OT" in line for line in films)
    assert "1 SEG" in volume
    assert "1 SR" in volume
    assert f"{len([*(out / 'new' / 'abdomen').iterdir()])} MR" in volume
    records = [*(out / "results").rglob("*.json")]
    done = [json.loads(p.read_text()) for p in records if "quality" not in p.name]
    assert len(done) == new + 1
    assert {one["outcome"] for one in done} == {"done"}
    tables = [pd.read_csv(path) for path in (out / "results" / "chest").glob("*.csv")]
    assert all(set(table["label"]) == {"effusion", "nodule", "cardiomegaly"} for table in tables)


def test_an_archive_counts_what_it_has(tmp_path: Path) -> None:
    require_orthanc()
    from medtl.io.dicom.stow import store_objects

    paths = write_mr_series(tmp_path / "mr", draw_volume(1, 0).image, "SYNTH-1", entropy="test")
    with local_archive(tmp_path / "archive") as url:
        server = Server(url)
        store_objects(server, paths[:3])
        ((study, objects),) = find_studies(server, "StudyDescription=*abdomen*")
        assert objects == 3
        assert find_objects(server, study) == {"MR": 3}
        assert find_studies(server, "StudyDescription=*other*") == []

"""Predicting a study of a DICOMweb server: what is kept, what is not, what the command refuses.

The server and the model are stand-ins here; `test_orthanc.py` has the real ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from medtl.cli.main import app
from medtl.errors import MedtlError, RunError
from medtl.io.dicom import web
from medtl.io.dicom.web import Fetched, Server
from medtl.run.folder import Run
from medtl.run.predicted import Predictions

URL, STUDY = "https://pacs.example/dicom-web", "1.2.3"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the stand-ins were asked."""
    asked: dict[str, Any] = {}

    def fetch(server: Server, study: str, folder: Path) -> Fetched:
        asked.update(server=server, study=study, folder=folder)
        (folder / "1.2.dcm").write_bytes(b"pixels")
        return Fetched((folder / "1.2.dcm",), {"no image": 2, "a result of medtl": 1})

    def predict(_run: Run, data: Path, _out: Path, *, progress: Any) -> Predictions:
        asked["files"] = sorted(path.name for path in data.iterdir())
        asked["mode"] = data.stat().st_mode & 0o777
        return Predictions(pd.DataFrame(), 1, (), ())

    monkeypatch.setattr(web, "fetch_study", fetch)
    monkeypatch.setattr(Run, "predict", predict)
    return asked


def test_a_study_leaves_nothing_but_its_table(seen, tmp_path):
    done = Run(tmp_path / "run").predict_study(URL, STUDY, tmp_path / "out.csv")
    assert (done.images, done.left_out) == (1, 3)
    assert seen["files"] == ["1.2.dcm"]
    assert (seen["server"], seen["study"]) == (Server(URL), STUDY)
    assert seen["mode"] == 0o700
    assert not seen["folder"].exists()


def test_images_are_kept_when_asked(seen, tmp_path):
    Run(tmp_path).predict_study(URL, STUDY, tmp_path / "out.csv", keep=tmp_path / "kept")
    assert (tmp_path / "kept" / "1.2.dcm").read_bytes() == b"pixels"
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o700
    assert not seen["folder"].exists()
    with pytest.raises(RunError, match="kept: the folder exists"):
        Run(tmp_path).predict_study(URL, STUDY, tmp_path / "out.csv", keep=tmp_path / "kept")


def test_a_failure_keeps_no_images(seen, tmp_path, monkeypatch):
    def fail(*_args: Any, **_kwargs: Any) -> Predictions:
        raise RunError("no best checkpoint")

    monkeypatch.setattr(Run, "predict", fail)
    with pytest.raises(RunError, match="no best checkpoint"):
        Run(tmp_path).predict_study(URL, STUDY, tmp_path / "out.csv", keep=tmp_path / "kept")
    assert not seen["folder"].exists()
    assert not (tmp_path / "kept").exists()


def test_the_destination_is_checked_before_the_server_is_asked(seen, tmp_path):
    with pytest.raises(RunError, match=r"the ending '.txt' is unknown"):
        Run(tmp_path).predict_study(URL, STUDY, tmp_path / "out.txt")
    assert seen == {}


@pytest.mark.parametrize(
    "arguments",
    [[], ["data"], ["--dicomweb", URL], ["--study", STUDY], ["data", "--dicomweb", URL]],
)
def test_the_command_wants_either_data_or_a_study(seen, tmp_path, arguments):
    if arguments == ["data"]:
        arguments = ["data", "--study", STUDY]
    arguments = [str(tmp_path) if text == "data" else text for text in arguments]
    command = ["predict", str(tmp_path), *arguments, "--out", str(tmp_path / "out.csv")]
    with pytest.raises(MedtlError, match="DATA, or --dicomweb URL with --study UID"):
        CliRunner().invoke(app, command, catch_exceptions=False)
    assert seen == {}


def test_the_command_says_what_was_left_out(seen, tmp_path):
    command = ["predict", str(tmp_path), "--dicomweb", URL, "--study", STUDY]
    command += ["--out", str(tmp_path / "out.csv")]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert "3 objects of the study are no images and were left out" in result.output
    assert "1 images predicted" in result.output

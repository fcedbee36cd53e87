from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from make_dicom import write

from medtl.cli.main import app
from medtl.errors import MedtlError


def medtl(*words: object) -> None:
    app([str(word) for word in words], standalone_mode=False)


@pytest.fixture
def films(tmp_path):
    for number in range(5):
        write(tmp_path / f"{number}.dcm", np.full((3, 4), number, np.uint16), PatientID=str(number))
    return tmp_path


def test_a_scan_in_shares_is_merged(films, capsys):
    medtl("manifest", "scan", films)
    whole = (films / "manifest.csv").read_bytes()
    (films / "manifest.csv").unlink()
    out = films / "manifest.csv"
    for share in ("2/2", "1/2", "1/2"):
        medtl("manifest", "scan", films, "--shard", share)
    with pytest.raises(MedtlError, match="there are no parts"):
        medtl("merge", films / "other.csv")
    medtl("merge", out)
    assert out.read_bytes() == whole
    said = capsys.readouterr().out
    assert "Share 2/2 done" in said
    assert "Share 1/2 there already" in said
    assert f"medtl merge {out}" in said


def test_two_ways_at_once_are_refused(films):
    with pytest.raises(MedtlError, match="--shard and --dask are two ways"):
        medtl("manifest", "scan", films, "--shard", "1/2", "--dask", "local")


def test_a_study_of_a_server_is_not_predicted_in_shares(tmp_path):
    server = ["--dicomweb", "http://127.0.0.1", "--study", "1.2"]
    with pytest.raises(MedtlError, match="not predicted in shares"):
        medtl("predict", tmp_path, *server, "--out", tmp_path / "a.csv", "--shard", "1/2")


def test_a_script_that_predicts_names_its_run(capsys):
    recipe = Path("pipelines/chest_xray.yaml")
    with pytest.raises(MedtlError, match="no run to predict with"):
        medtl("slurm", "--predict", "films.csv", "--out", "a.csv")
    with pytest.raises(MedtlError, match=r"predictions need no recipe, and .*chest_xray"):
        medtl("slurm", recipe, "--predict", "films.csv", "--run", "r")
    with pytest.raises(MedtlError, match="no recipe to run"):
        medtl("slurm", "--folds", 4)
    medtl("slurm", "--predict", "films.csv", "--out", "a.csv", "--run", "r", "--shares", 3)
    medtl("slurm", recipe, "image.size=64", "--out", "runs/a")
    medtl("slurm", recipe, "--out", "runs/a", "--folds", 4)
    said = capsys.readouterr().out
    for words in ("--array=1-3", "image.size=64 --out", "--array=0-3"):
        assert words in said

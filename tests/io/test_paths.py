"""A file may be named by a text, a Path, or any other path-like object."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from make_dicom import write
from PIL import Image as Pillow

from medtl.cases.intake.discover import discover
from medtl.cases.intake.scan import scan_dicom
from medtl.cases.manifest import read_manifest, write_manifest
from medtl.cases.predictions import read_predictions
from medtl.io.dicom.image import read_dicom, read_header
from medtl.io.dicom.series import read_series
from medtl.io.nifti import read_nifti
from medtl.io.raster import read_raster
from medtl.io.read import read_image
from medtl.networks.pretrained.weight_files import read_tensors
from medtl.storage.tables import read_columns, read_table
from medtl.storage.yaml import load_yaml


class Named:
    """Path-like, and nothing else."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return self.path


@pytest.fixture
def files(tmp_path: Path) -> Path:
    pixels = np.arange(64 * 64, dtype=np.int16).reshape(64, 64)
    (tmp_path / "series").mkdir()
    write(tmp_path / "series" / "a.dcm", pixels, SliceThickness="1", PixelSpacing=["1", "1"],
          ImagePositionPatient=["0", "0", "0"],
          ImageOrientationPatient=["1", "0", "0", "0", "1", "0"])  # fmt: skip
    Pillow.fromarray(pixels.astype(np.uint8)).save(tmp_path / "a.png")
    nibabel.save(nibabel.Nifti1Image(pixels[..., None], np.eye(4)), tmp_path / "a.nii")
    write_manifest([{"image": "a.png", "patient_id": "p1", "target": "1"}], tmp_path / "chest.csv")
    (tmp_path / "scores.csv").write_text("case_id,patient_id,y_true,y_score\na,p,1,0.5\n")
    (tmp_path / "a.yaml").write_text("a: 1\n")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "a.pt")
    return tmp_path


READERS: dict[str, tuple[str, Callable[..., object]]] = {
    "read_image": ("a.png", lambda path: read_image(path).array.sum()),
    "read_dicom": ("series/a.dcm", lambda path: read_dicom(path).array.sum()),
    "read_header": ("series/a.dcm", read_header),
    "read_series": ("series", lambda path: read_series(path).array.sum()),
    "read_nifti": ("a.nii", lambda path: read_nifti(path).array.sum()),
    "read_raster": ("a.png", lambda path: read_raster(path).array.sum()),
    "read_manifest": ("chest.csv", lambda path: read_manifest(path, salt=b"s").sha256),
    "read_table": ("chest.csv", read_table),
    "read_columns": ("chest.csv", read_columns),
    "read_predictions": ("scores.csv", lambda path: read_predictions(path).to_csv()),
    "load_yaml": ("a.yaml", load_yaml),
    "discover": ("chest.csv", discover),
    "scan_dicom": ("series", lambda path: scan_dicom(path, salt=b"s", workers=1)),
    "read_tensors": ("a.pt", lambda path: list(read_tensors(path))),
}


@pytest.mark.parametrize("name", READERS)
def test_every_kind_of_name_reads_the_same_file(files: Path, name: str) -> None:
    file, read = READERS[name]
    path = files / file
    expected = read(path)
    assert read(str(path)) == expected
    assert read(Named(os.fspath(path))) == expected


def test_a_root_may_be_a_text_too(files: Path) -> None:
    with pytest.raises(Exception, match=r"^series/none\.dcm: "):
        read_image(str(files / "series" / "none.dcm"), root=str(files))

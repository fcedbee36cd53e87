"""Devices of a study: maker, model and year of the images, and nothing that names anybody."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from medtl.cases.intake.devices import device_facts
from medtl.run.record import cohort
from medtl.types import Case


def film(path: Path, **header: str) -> Path:
    """A radiograph with some elements changed; "" takes one away."""
    dataset = dcmread(get_testdata_file("CT_small.dcm"))
    names = ("Manufacturer", "ManufacturerModelName", "AcquisitionDate", "StudyDate")
    for name, said in {**dict.fromkeys(names, ""), **header}.items():
        if said:
            setattr(dataset, name, said)
        elif name in dataset:
            delattr(dataset, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path)
    return path


SECRET = {
    "InstitutionName": "St Elsewhere", "StationName": "ROOM7", "DeviceSerialNumber": "SN-4711",
    "PatientName": "Doe^Jane", "AcquisitionDate": "20190304",
}  # fmt: skip


def test_makers_devices_and_years_are_counted_and_nothing_else_is_told(tmp_path: Path) -> None:
    images = [
        film(tmp_path / "a.dcm", Manufacturer="Acme", ManufacturerModelName="Ray 1", **SECRET),
        film(tmp_path / "series" / "1.dcm", Manufacturer="Acme", ManufacturerModelName="Acme R2",
             StudyDate="20210101"),
        film(tmp_path / "bare.dcm"),
        tmp_path / "none.png",
    ]  # fmt: skip
    images[1] = images[1].parent
    found = device_facts(images)
    assert found == {
        "manufacturer": {"Acme": 2, "unknown": 2},
        "device": {"Acme R2": 1, "Acme Ray 1": 1, "unknown": 2},
        "year": {"2019": 1, "2021": 1, "unknown": 2},
    }
    told = json.dumps(found)
    assert not [word for word in ("Elsewhere", "ROOM7", "4711", "Doe", "0304") if word in told]


@pytest.mark.parametrize("asked", [False, True])
def test_a_cohort_counts_its_groups_and_on_request_its_devices(tmp_path: Path, asked: bool) -> None:
    image = film(tmp_path / "a.dcm", Manufacturer="Acme", ManufacturerModelName="Ray 1")
    cases = [
        Case(f"c{i}", f"p{i}", image, strata={"severity": word, "room": str(i)}, split="test")
        for i, word in enumerate(["mild"] * 8 + ["severe"] * 5 + [""])
    ]
    task = SimpleNamespace(tally=lambda cases: {"pneumonia": {"positive": len(cases)}})
    about = {"excluded": {}, "manifest_sha256": "m", "split_hash": "s", "notes": []}
    part = cohort(cases, task, **about, devices=asked)["splits"]["test"]  # type: ignore[arg-type]
    assert part["severity"] == {"mild": 8, "severe": 5, "unknown": 1}
    assert "room" not in part  # as many values as cases
    assert part.get("device") == ({"Acme Ray 1": 14} if asked else None)

"""The round trip through a real archive: Orthanc on loopback, started here, over DICOMweb."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_example import ALGORITHM, faults, require_orthanc, write_ct, write_radiograph
from pydicom import dcmread
from pydicom.dataset import Dataset
from tiny_study import RECIPE
from typer.testing import CliRunner

pytest.importorskip("highdicom")

from medtl.cli.main import app
from medtl.demo.orthanc import local_archive
from medtl.errors import MedtlError
from medtl.export.document import encapsulated_pdf
from medtl.export.identity import write_object
from medtl.export.pictures import secondary_capture
from medtl.export.segments import segmentation
from medtl.export.source import read_source
from medtl.export.structured_report import Finding, structured_report
from medtl.io.dicom.web import PASSWORD, USER, Server, fetch_study

ACCOUNT = ("ann", "secret of the test")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The DICOMweb address of an empty archive that only this machine can reach."""
    require_orthanc()
    with local_archive(tmp_path_factory.mktemp("orthanc"), dict([ACCOUNT])) as url:
        yield url


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(USER, ACCOUNT[0])
    monkeypatch.setenv(PASSWORD, ACCOUNT[1])


def ask(url: str, data: bytes | None = None, **headers: str) -> bytes:
    """A request with the test's account, by a client that is not medtl's own."""
    passwords = urllib.request.HTTPPasswordMgrWithPriorAuth()
    passwords.add_password(None, url, *ACCOUNT, is_authenticated=True)
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPBasicAuthHandler(passwords)
    )
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    with opener.open(urllib.request.Request(url, data, named), timeout=30) as answer:
        found: bytes = answer.read()
        return found


def store(url: str, paths: list[Path]) -> None:
    """STOW-RS (PS3.18 10.5)."""
    parts = [b"--x\r\nContent-Type: application/dicom\r\n\r\n" + p.read_bytes() for p in paths]
    body = b"\r\n".join([*parts, b"--x--\r\n"])
    kind = 'multipart/related; type="application/dicom"; boundary=x'
    answer = json.loads(
        ask(f"{url}/studies", body, Content_Type=kind, Accept="application/dicom+json")
    )
    assert not answer.get("00081198", {}).get("Value"), answer  # Failed SOP Sequence
    assert len(answer["00081199"]["Value"]) == len(paths)


def query(url: str, study: str) -> dict[str, dict[str, Any]]:
    """QIDO-RS (PS3.18 10.6): SOP Instance UID -> what the archive says of it."""
    found = json.loads(ask(f"{url}/studies/{study}/instances", Accept="application/dicom+json"))
    return {one["00080018"]["Value"][0]: one for one in found}


def retrieve(url: str, dataset: Dataset, folder: Path) -> Dataset:
    """WADO-RS of one instance, as the archive stores it."""
    address = (
        f"{url}/studies/{dataset.StudyInstanceUID}/series/{dataset.SeriesInstanceUID}"
        f"/instances/{dataset.SOPInstanceUID}"
    )
    accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
    body = ask(address, Accept=accept)
    start = body.index(b"\r\n\r\n") + 4
    end = body.rindex(b"\r\n--", 0, body.rindex(b"--"))
    (folder / "back.dcm").write_bytes(body[start:end])
    return dcmread(folder / "back.dcm")


def test_every_kind_comes_back_as_it_was_sent(archive, tmp_path):
    source_path = write_radiograph(tmp_path / "source.dcm", 0)
    source = read_source(source_path)
    slices = [read_source(path) for path in write_ct(tmp_path / "ct", number=1)]
    mask = np.zeros((4, 12, 16), np.uint8)
    mask[1:3, 2:9, 3:8] = 1
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    made = {
        "SR": structured_report([Finding("폐렴", 0.8, 0.5)], [source], ALGORITHM),
        "SEG": segmentation([mask], slices, ALGORITHM, labels={1: "Lung"}),
        "SC": secondary_capture(picture, source, ALGORITHM, caption="pneumonia 0.8"),
        "PDF": encapsulated_pdf(b"%PDF-1.4\n%%EOF", source, ALGORITHM),
    }
    paths = {kind: tmp_path / f"{kind}.dcm" for kind in made}
    for kind, dataset in made.items():
        write_object(dataset, paths[kind])
    store(archive, [source_path, *sorted((tmp_path / "ct").iterdir()), *paths.values()])
    for kind, path in paths.items():
        sent = dcmread(path)
        known = query(archive, sent.StudyInstanceUID)
        assert known[sent.SOPInstanceUID]["00080016"]["Value"] == [sent.SOPClassUID], kind
        assert retrieve(archive, sent, tmp_path) == sent, kind
    assert (
        retrieve(archive, made["PDF"], tmp_path).EncapsulatedDocument.rstrip(b"\0")
        == b"%PDF-1.4\n%%EOF"
    )


def test_a_study_is_fetched_without_the_results_in_it(archive, tmp_path):
    paths = write_ct(tmp_path / "ct", number=2)
    slices = [read_source(path) for path in paths]
    report = structured_report([Finding("x", 0.2)], slices, ALGORITHM)
    write_object(report, tmp_path / "sr.dcm")
    store(archive, [*paths, tmp_path / "sr.dcm"])
    (tmp_path / "study").mkdir()
    fetched = fetch_study(Server(archive), slices[0].StudyInstanceUID, tmp_path / "study")
    assert fetched.left_out == {"a result of medtl": 1}
    sent = {dcmread(path).SOPInstanceUID: dcmread(path) for path in paths}
    assert {path.stem: dcmread(path) for path in fetched.images} == sent


def test_an_archive_that_refuses_or_knows_nothing(archive, tmp_path, monkeypatch):
    with pytest.raises(MedtlError, match=r"knows no such study|has no images"):
        fetch_study(Server(archive), "1.2.3.4.5", tmp_path)
    with pytest.raises(MedtlError, match=r"not that of a DICOMweb|knows no such study"):
        fetch_study(Server(archive.replace("dicom-web", "app")), "1.2.3.4.5", tmp_path)
    monkeypatch.setenv(PASSWORD, "wrong")
    with pytest.raises(MedtlError, match="asks for credentials, or refuses them"):
        fetch_study(Server(archive), "1.2.3.4.5", tmp_path)
    with pytest.raises(urllib.error.HTTPError):  # negative control: the account is needed
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(archive, timeout=30)


@pytest.mark.slow
def test_from_the_archive_through_a_model_and_back(archive, tmp_path):
    """Train, predict a new study over DICOMweb, export the result, store it beside the images."""
    data, out = tmp_path / "data", tmp_path / "scores.csv"
    lines = ["image,patient_id,bright,site"]
    for number in range(40):
        write_radiograph(data / f"{number}.dcm", number)
        lines.append(f"{number}.dcm,p{number},{number % 2},{'ab'[number % 3 > 0]}")
    (data / "manifest.csv").write_text("\n".join(lines))
    (data / "recipe.yaml").write_text(RECIPE)
    medtl("run", data / "recipe.yaml", "--out", tmp_path / "run")
    new = write_radiograph(tmp_path / "new" / "x.dcm", 99)
    store(archive, [new])
    sent, study = dcmread(new), dcmread(new).StudyInstanceUID
    web = ("--dicomweb", archive, "--study", study)
    medtl("predict", tmp_path / "run", *web, "--out", out, "--keep", tmp_path / "kept")
    assert sent.SOPInstanceUID in out.read_text()
    for source in (tmp_path / "kept", tmp_path / "new"):
        medtl("export", tmp_path / "run", "--dicom", "--out", tmp_path / f"from-{source.name}",
              "--predictions", out, "--images", source)  # fmt: skip
    made = sorted((tmp_path / "from-kept").glob("*.dcm"))
    assert [path.name for path in made] == [
        path.name for path in sorted((tmp_path / "from-new").glob("*.dcm"))
    ]
    store(archive, made)
    assert len(query(archive, study)) == 2
    assert medtl("predict", tmp_path / "run", *web, "--out", tmp_path / "again.csv").startswith(
        "1 objects of the study are no images and were left out"
    )
    assert (tmp_path / "again.csv").read_text() == out.read_text()
    own = ("--images", data / "manifest.csv", "--out", tmp_path / "own")
    assert "cases" in medtl("export", tmp_path / "run", "--dicom", *own)
    kinds = {path.name.split(".")[0] for path in (tmp_path / "own").glob("*.dcm")}
    assert kinds == {"SR", "SC"}
    assert all(faults(path) == [] for path in (tmp_path / "own").glob("*.dcm"))


def medtl(*arguments: object) -> str:
    """Run a command; return what it printed."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout

"""A watch over incoming studies: each once, whatever happens; what cannot be read is set aside."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from make_dicom import write
from portable_folder import film, write_folder

from medtl.errors import MedtlError, RunError
from medtl.io.dicom.web import Server, find_studies
from medtl.run.folder import Run
from medtl.run.service import watch as module
from medtl.run.service.watch import ATTEMPTS, Archive, Folder, Incoming, Watch, source_of

ROOT = Path(__file__).parents[2]


def study(folder: Path, number: int, images: int = 2) -> None:
    """Put a study into a folder, as if it had been there for a while."""
    folder.mkdir(exist_ok=True)
    for index in range(images):
        path = folder / f"{number}-{index}.dcm"
        write(path, film(20 + 200 * (index % 2)), Modality="DX", StudyInstanceUID=f"1.2.{number}")
        os.utime(path, (1, 1))


@pytest.fixture
def watched(tmp_path: Path) -> Watch:
    """A watch over two studies of two images."""
    for number in (1, 2):
        study(tmp_path / "in", number)
    return Watch(Run(write_folder(tmp_path / "edge")), Folder(tmp_path / "in"), tmp_path / "out")


def records(watched: Watch) -> dict[str, dict[str, Any]]:
    paths = [path for path in watched.out.glob("*.json") if "quality" not in path.name]
    found = [json.loads(path.read_text()) for path in paths]
    assert len({one["study"] for one in found}) == len(found)
    return {one["study"]: one for one in found}


def test_studies_are_seen_on_an_oblong_grid(tmp_path: Path) -> None:
    study(tmp_path / "in", 1)
    run = Run(write_folder(tmp_path / "edge", (16, 32)))
    watched = Watch(run, Folder(tmp_path / "in"), tmp_path / "out")
    assert watched.round() == 1
    (found,) = records(watched).values()
    assert (found["outcome"], found["images"]) == ("done", 2), found


def test_each_study_gets_one_result(watched: Watch) -> None:
    assert watched.round() == 2
    found = records(watched)
    assert {uid: one["outcome"] for uid, one in found.items()} == {"1.2.1": "done", "1.2.2": "done"}
    tables = sorted(watched.out.glob("*.csv"))
    assert len(tables) == 2
    assert sorted(pd.read_csv(tables[0])["decision"]) == [0, 1]
    before = {path: path.stat().st_mtime_ns for path in watched.out.iterdir()}
    assert watched.round() == 0
    assert {path: path.stat().st_mtime_ns for path in watched.out.iterdir()} == before
    study(watched.source.path, 2, images=3)  # type: ignore[attr-defined]
    assert watched.round() == 1
    assert records(watched)["1.2.2"]["images"] == 3
    assert watched.health()["studies"] == {"done": 2}


def test_a_study_that_is_still_written_waits(watched: Watch) -> None:
    newest = watched.source.path / "2-0.dcm"  # type: ignore[attr-defined]
    os.utime(newest)
    assert watched.round() == 1
    os.utime(newest, (1, 1))
    assert watched.round() == 1


def test_what_cannot_be_read_is_set_aside(watched: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = watched.source.path / "broken.dcm"  # type: ignore[attr-defined]
    broken.write_bytes(b"DICM" * 50)
    os.utime(broken, (1, 1))
    true = module.predict_images

    def hostile(model: Any, data: Path, *rest: Any, **more: Any) -> Any:
        if any("2-" in path.name for path in data.iterdir()):
            raise MemoryError
        return true(model, data, *rest, **more)

    monkeypatch.setattr(module, "predict_images", hostile)
    assert watched.round() == 1
    found = records(watched)
    assert found["1.2.1"]["outcome"] == "done"
    assert found["1.2.2"]["cause"] == "MemoryError while reading it"
    assert "no image could be read" in found["file broken.dcm"]["cause"]
    assert watched.health()["studies"] == {"done": 1, "set aside": 2}
    monkeypatch.undo()
    assert watched.round() == 0  # not again before it changes


def test_a_study_that_ends_the_program_is_set_aside(watched: Watch) -> None:
    uids = {one.uid: one for one in watched.source.studies()}
    begun = {"study": "1.2.1", "state": uids["1.2.1"].state, "outcome": "begun"}
    path = watched.out / f"{uids['1.2.1'].name}.json"
    path.write_text(json.dumps(begun | {"attempts": ATTEMPTS}))
    assert watched.round() == 1
    assert f"ended {ATTEMPTS} times" in records(watched)["1.2.1"]["cause"]
    path.write_text(json.dumps(begun | {"attempts": ATTEMPTS - 1}))  # control
    assert watched.round() == 1
    path.write_text("{")  # a damaged record is no record
    assert watched.round() == 1


def test_a_full_disk_loses_nothing(watched: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise RunError("the file cannot be written") from OSError(28, "No space left on device")

    monkeypatch.setattr(module, "predict_images", full)
    assert watched.round() == 0
    health = watched.health()
    assert (health["status"], health["waiting"]) == ("waiting", 2)
    assert health["reasons"] == ["the file cannot be written."]
    monkeypatch.undo()
    monkeypatch.setattr(module, "write_json", full)
    assert watched.round() == 0
    monkeypatch.undo()
    assert watched.round() == 2
    assert watched.health()["status"] == "well"


def test_a_source_that_is_gone_is_said(watched: Watch, tmp_path: Path) -> None:
    (tmp_path / "in").rename(tmp_path / "away")
    assert watched.round() == 0
    assert watched.health()["reasons"] == ["in: the folder is not there."]
    (tmp_path / "away").rename(tmp_path / "in")
    assert watched.round() == 2
    with pytest.raises(MedtlError, match="takes no query"):
        source_of("incoming", "Modality=CR")
    with pytest.raises(RunError, match="results go back as DICOM from a run alone"):
        Watch(watched.run, watched.source, tmp_path / "o", stow="http://127.0.0.1/dicom-web")


def test_what_was_sent_is_no_change_of_the_study(
    watched: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = next(iter(watched.source.studies()))

    class Server:
        """An archive with one study of so many objects."""

        objects = 2

        def studies(self) -> Iterator[Incoming]:
            yield replace(one, state=f"{self.objects} instances", objects=self.objects)

        bring = watched.source.bring

    watched.source, watched.stow = Server(), "http://127.0.0.1/dicom-web"
    monkeypatch.setattr(Run, "export", lambda *_, **__: None)
    monkeypatch.setattr("medtl.io.dicom.stow.store_objects", lambda *_: 3)
    assert watched.round() == 1
    assert watched.health()["sent"] == 1
    Server.objects = 5
    assert watched.round() == 0
    Server.objects = 6  # control: another image has come
    assert watched.round() == 1
    assert records(watched)["1.2.1"]["state_when_sent"] == "9 instances"


def test_two_watches_do_not_share_a_folder(watched: Watch) -> None:
    with watched.alone(), pytest.raises(RunError), watched.alone():
        pass


def test_the_health_is_a_page_and_json(watched: Watch) -> None:
    watched.round()
    pages = watched.pages().get
    page = pages["/"]().body.decode()
    assert "Not a medical device" in page
    assert "<td>2 done</td>" in page
    assert "<th scope='row'>reasons</th><td>none</td>" in page
    assert json.loads(pages["/health"]().body)["studies"] == {"done": 2}


@contextmanager
def server(body: bytes, status: int = 200) -> Iterator[Server]:
    """A server that answers everything alike."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield Server(f"http://127.0.0.1:{one.server_address[1]}/dicom-web")
        one.shutdown()


def test_an_archive_is_asked_for_its_studies() -> None:
    one = {"0020000D": {"vr": "UI", "Value": ["1.2"]}, "00201208": {"vr": "IS", "Value": [3]}}
    with server(json.dumps([one]).encode()) as archive:
        assert find_studies(archive) == [("1.2", 3)]
        assert [s.state for s in Archive(archive).studies()] == ["3 instances"]
    with server(b"") as archive:
        assert find_studies(archive) == []
    with server(b"<html>") as archive, pytest.raises(MedtlError, match="no list of studies"):
        find_studies(archive)
    with server(b"", 403) as archive, pytest.raises(MedtlError, match="refuses access"):
        find_studies(archive)


def test_an_archive_that_cannot_be_reached_is_said_and_asked_again(tmp_path: Path) -> None:
    with server(b"[]") as archive:
        pass
    watched = Watch(Run(write_folder(tmp_path / "edge")), Archive(archive), tmp_path / "out")
    assert watched.round() == 0
    assert "no connection" in watched.fault
    assert watched.health()["status"] == "waiting"


@pytest.mark.slow
def test_five_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    for number in range(12):
        study(tmp_path / "in", number, images=1)
    write_folder(tmp_path / "edge")
    words = [tmp_path / "in", "--run", tmp_path / "edge", "--out", tmp_path / "out"]
    command = [sys.executable, "-c", "from medtl.cli.main import main; main()", "watch", *words]
    draw = random.Random(0)
    for kill in range(5):
        process = subprocess.Popen(
            [*command, "--every", "0.1", "--port", "0"], cwd=ROOT, stdout=subprocess.DEVNULL
        )
        wanted, ends = 2 * kill, time.monotonic() + 60
        while len([*(tmp_path / "out").glob("*.csv")]) < wanted and time.monotonic() < ends:
            time.sleep(0.01)
        time.sleep(draw.random() * 0.3)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run([*command, "--once"], check=True, cwd=ROOT)
    found = [p for p in (tmp_path / "out").glob("*.json") if "quality" not in p.name]
    outcomes = [json.loads(path.read_text()) for path in found]
    assert sorted(one["study"] for one in outcomes) == sorted(f"1.2.{n}" for n in range(12))
    assert {one["outcome"] for one in outcomes} == {"done"}
    assert len([*(tmp_path / "out").glob("*.csv")]) == 12
    assert not [path for path in (tmp_path / "out").iterdir() if "medtl-tmp" in path.name]

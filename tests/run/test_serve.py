"""The page of a run: what it says of a film, what it keeps, and whom it refuses."""

from __future__ import annotations

import base64
import io
import json
import tempfile
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from make_dicom import write
from PIL import Image
from portable_folder import LUNG, SIDE, film, write_folder

from medtl.errors import MedtlError
from medtl.run.folder import Run
from medtl.run.service.loopback import Answer, Pages, make_server
from medtl.run.service.serve import serve
from medtl.tasks.regression import BONE_AGE, Regression

OURS = {"X-Medtl": "1"}


def png(value: int) -> bytes:
    body = io.BytesIO()
    Image.fromarray(film(value)).save(body, "PNG")
    return body.getvalue()


def started(server: Any) -> Any:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """The port of a page of a model that finds bright films."""
    folder = write_folder(tmp_path / "edge")
    with started(serve(Run(folder), host="127.0.0.1", port=0)) as server:
        yield server.server_address[1]
        server.shutdown()


def ask(
    port: int, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    line = HTTPConnection("127.0.0.1", port, timeout=60)
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    line.request("GET" if body is None else "POST", path, body, named)
    answer = line.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read()


def test_a_film_gets_score_threshold_decision_and_likeness(port: int, tmp_path: Path) -> None:
    status, headers, page = ask(port, "/")
    assert status == 200
    assert b"Not a medical device" in page
    assert b"Nothing is stored" in page
    assert b"<h1>Is it bright?</h1>" in page
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    write(tmp_path / "film.dcm", film(240), Modality="MR")
    before = sorted(Path(tempfile.gettempdir()).glob("medtl-film-*"))
    status, headers, body = ask(port, "/look", (tmp_path / "film.dcm").read_bytes(), X_Medtl="1")
    found = json.loads(body)
    assert status == 200, found
    (row,) = found["rows"]
    assert (row["label"], row["threshold"], row["decision"]) == ("bright", 0.5, 1.0)
    assert row["y_score"] > 0.5
    assert "modality not seen in training" in found["flags"]
    picture = Image.open(io.BytesIO(base64.b64decode(found["picture"].split(",")[1])))
    assert np.asarray(picture).mean() == pytest.approx(240, abs=1)
    assert sorted(Path(tempfile.gettempdir()).glob("medtl-film-*")) == before
    assert headers["Cache-Control"] == "no-store"
    status, _, body = ask(port, "/look", png(20), X_Medtl="1")
    assert json.loads(body)["rows"][0]["decision"] == 0.0


def test_a_model_of_oblong_images_shows_a_film_as_it_sees_it(tmp_path: Path) -> None:
    """A film twice as wide as high on the grid that was stated, neither stretched nor padded."""
    folder = write_folder(tmp_path / "edge", (16, 32))
    wide = np.tile(np.linspace(100, 250, 64, dtype=np.uint8), (32, 1))
    body = io.BytesIO()
    Image.fromarray(wide).save(body, "PNG")
    with started(serve(Run(folder), host="127.0.0.1", port=0)) as server:
        status, _, answer = ask(server.server_address[1], "/look", body.getvalue(), X_Medtl="1")
        server.shutdown()
    found = json.loads(answer)
    assert status == 200, found
    assert found["rows"][0]["decision"] == 1.0
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["picture"].split(",")[1]))))
    assert picture.shape[:2] == (16, 32)
    np.testing.assert_allclose(
        picture[:, :, 0].mean(axis=0), wide[0].reshape(32, 2).mean(1), atol=2
    )


def test_what_is_no_film_is_said(port: int) -> None:
    status, _, body = ask(port, "/look", b"no film", X_Medtl="1")
    assert status == 422
    # Nothing of the temporary file, and nothing that only a manifest has.
    assert json.loads(body)["error"] == (
        "no image could be read: not an image of a known format: by its content it is a text "
        "file; expected the bytes of a DICOM, PNG, JPEG, TIFF or NIfTI file. Convert it, or leave "
        "it out."
    )
    assert ask(port, "/nothing")[0] == 404
    assert ask(port, "/nothing", b"x", X_Medtl="1")[0] == 404


def test_a_quantity_has_a_unit_and_no_threshold(tmp_path: Path) -> None:
    outside = "the estimate lies outside the range of the training images"
    page, found = looked_at(write_folder(tmp_path / "edge", task=months(highest=300.0)))
    assert 'data-column="y_score">Estimate, months</th>' in page
    assert "hreshold" not in page
    assert [row["label"] for row in found["rows"]] == ["bone_age_months"]
    assert outside not in found["flags"]
    _, found = looked_at(write_folder(tmp_path / "young", task=months(highest=0.1)))
    assert outside in found["flags"]


def months(highest: float) -> dict[str, Any]:
    """A stored task of bone age that has seen ages from 0 months."""
    task = Regression("age", BONE_AGE, mean=0.0, sd=1.0, lowest=0.0, highest=highest)
    return task.to_dict()


def looked_at(folder: Path) -> tuple[str, dict[str, Any]]:
    """The page of a folder, and what it says of a bright film."""
    with started(serve(Run(folder), host="127.0.0.1", port=0)) as server:
        port = server.server_address[1]
        page = ask(port, "/")[2].decode()
        found = json.loads(ask(port, "/look", png(240), X_Medtl="1")[2])
        server.shutdown()
    return page, found


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example", **OURS},
        {"Origin": "null", **OURS},
        {"Sec-Fetch-Site": "cross-site", **OURS},
        {"Host": "evil.example", **OURS},
        {},  # a form of elsewhere sends no header of its own, and old browsers no Origin
    ],
)
def test_another_origin_is_refused(port: int, headers: dict[str, str]) -> None:
    status, _, body = ask(port, "/look", png(20), **headers)
    assert (status, json.loads(body)) == (
        403,
        {"error": "a request from another origin is refused"},
    )
    own = f"http://127.0.0.1:{port}"  # control: the page itself
    assert ask(port, "/look", png(20), Origin=own, Sec_Fetch_Site="same-origin")[0] == 200


def test_other_machines_need_a_token() -> None:
    pages = Pages({"/": lambda: Answer(b"in")}, {})
    with pytest.raises(MedtlError, match=r"other machines could reach 0\.0\.0\.0"):
        make_server(pages, host="0.0.0.0")
    with pytest.raises(MedtlError, match="could reach"):
        make_server(pages, host="0.0.0.0", token="short")
    token = "a token of this test"
    with started(make_server(pages, token=token)) as server:
        port = server.server_address[1]
        assert ask(port, "/")[0] == 401
        assert ask(port, "/?token=another")[0] == 401
        assert ask(port, "/", Authorization=f"Bearer {token}")[2] == b"in"
        status, headers, _ = ask(port, f"/?token={token.replace(' ', '%20')}")
        assert (status, headers["Location"]) == (303, "/")
        assert "HttpOnly; SameSite=Strict" in headers["Set-Cookie"]
        assert ask(port, "/", Cookie=headers["Set-Cookie"].partition(";")[0])[2] == b"in"
        with pytest.raises(MedtlError, match="cannot listen"):
            make_server(pages, port=port)
        server.shutdown()


def test_results_are_kept_when_asked(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "edge")
    with started(serve(Run(folder), host="127.0.0.1", port=0, keep=tmp_path / "kept")) as server:
        for _ in range(2):
            assert ask(server.server_address[1], "/look", png(20), X_Medtl="1")[0] == 200
        server.shutdown()
    (kept,) = (tmp_path / "kept").iterdir()
    assert set(json.loads(kept.read_text())) == {"rows", "flags", "status"}


def test_masks_are_drawn_with_their_size(tmp_path: Path) -> None:
    """The bright half of a film, in pixels of 0.5 mm."""
    half = film(20)
    half[:, : SIDE // 2] = 240
    write(tmp_path / "film.dcm", half, PixelSpacing=[0.5, 0.5])
    with started(
        serve(Run(write_folder(tmp_path / "edge", task=LUNG)), host="127.0.0.1", port=0)
    ) as server:
        port = server.server_address[1]
        page = ask(port, "/")[2].decode()
        status, _, body = ask(port, "/look", (tmp_path / "film.dcm").read_bytes(), X_Medtl="1")
        server.shutdown()
    found = json.loads(body)
    assert status == 200, found
    (row,) = found["rows"]
    assert (row["label"], row["size"]) == ("lung", f"{SIDE * SIDE / 2 * 0.25 / 100:.3g} cm²")
    plain, outlined = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(text.split(",")[1]))))
        for text in (found["picture"], row["heat"])
    )
    differs = (plain != outlined).any(axis=-1)
    assert differs[:, : plain.shape[1] // 2].any()
    assert not differs[:, plain.shape[1] // 2 + 1 :].any()
    assert "Structure" in page and 'data-column="size">Size</th>' in page  # noqa: PT018
    assert "Grad-CAM" not in page and "hreshold" not in page  # noqa: PT018


@pytest.mark.slow
def test_memory_stays_flat_over_200_uploads(port: int) -> None:
    sizes = []
    for number in range(200):
        assert ask(port, "/look", png(number), X_Medtl="1")[0] == 200
        if number in (50, 199):
            sizes.append(psutil.Process().memory_info().rss)
    assert sizes[1] - sizes[0] < 20 << 20

"""`medtl serve`: drop a film on a page of this machine, see what the model says of it."""

from __future__ import annotations

import base64
import io
import math
import threading
from collections.abc import Callable, Mapping
from functools import partial
from http.server import ThreadingHTTPServer
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medtl.data.reader import ImageReader
from medtl.errors import MedtlError
from medtl.prediction.gallery import grey_to_rgb, overlay
from medtl.prediction.sink import Model
from medtl.prediction.table import heat_map
from medtl.run.edge.choice import model_of
from medtl.run.predict import Judged, predict_images
from medtl.run.service.drawn import draw_masks
from medtl.run.service.loopback import Answer, Pages, make_server
from medtl.storage.atomic import write_json
from medtl.types import Case

if TYPE_CHECKING:
    from medtl.run.folder import Run

SHOWN = ("label", "y_score", "probability", "threshold", "decision")
"""Columns of a prediction that the page shows."""

OF_THE_NAME = "gzip_compressed_but_not_named_gz"
"""Flag of a file that was dropped on the page: its name does not come with it."""

OUTSIDE = "the estimate lies outside the range of the training images"
"""Said of a quantity that the model has not learned."""

PART = {"/page.css": "text/css", "/page.js": "text/javascript"}


class Desk:
    """A model at a desk, one film at a time; nothing of a film stays.

    Args:
        run: A finished run, or an exported folder.
        keep: Folder for the results, one file a film, named by its content; None keeps nothing.

    Raises:
        RunError: When the run takes features in place of films.
    """

    def __init__(self, run: Run, keep: Path | None = None) -> None:
        explains = run.files.best.is_file() and find_spec("torch") is not None
        self.model: Model = run.trained if explains else model_of(run.files, lambda: run.trained)
        self.model.reader.require_images()
        self.draws = self.model.task.encode is not None
        self.explains, self.run, self.keep = explains and not self.draws, run, keep
        self.cuts, self.mended = run.thresholds, run.recalibrations
        self.lock = threading.Lock()

    def look(self, film: Path) -> Answer:
        """Answer with what the model says of one film."""
        try:
            with self.lock:
                return Answer.of(self._seen(film))
        except MedtlError as error:
            error.where = ""  # the name of a temporary file
            return Answer.of({"error": str(error)}, 422)

    def _seen(self, film: Path) -> dict[str, Any]:
        """Scores, thresholds, likeness, the picture and where the network looked; or masks."""
        with TemporaryDirectory(prefix="medtl-film-", ignore_cleanup_errors=True) as folder:
            table = Path(folder) / "film.csv" if self.draws else None
            done = predict_images(
                self.model, film, table, own=self.run.files.manifest,
                judged=Judged(self.cuts, self.mended),
            )  # fmt: skip
            drawn = [] if table is None else draw_masks(table, self.model, film)
        rows: list[dict[str, Any]] = [{"label": one.label, "size": one.size} for one in drawn]
        rows = rows or [
            {name: _plain(row[name]) for name in SHOWN if name in row}
            for row in done.frame.to_dict("records")
        ]
        said = (word for one in done.flagged for word in (*one["flags"], *one["unlike_training"]))
        flags = [word for word in said if word != OF_THE_NAME]
        if "yes" in set(done.frame.get("outside_training_range", ())):
            flags.append(OUTSIDE)
        found = {"rows": rows, "flags": flags, "status": "Research use only. Not a medical device."}
        if self.keep is not None:
            self.keep.mkdir(parents=True, exist_ok=True)
            name = str(done.frame["content_sha256"].iloc[0])[:32]
            write_json(self.keep / f"{name}.json", found)
        if drawn:
            found["picture"] = _png(drawn[0].plain)
            for row, one in zip(rows, drawn, strict=True):
                row["heat"] = _png(one.outlined)
            return found
        unit = _unit(self.model.reader, film)
        picture = grey_to_rgb(unit)
        found["picture"] = _png(picture)
        for row in rows:
            row["heat"] = self._heat(film, unit, picture, str(row["label"]))
        return found

    def _heat(
        self, film: Path, unit: NDArray[np.float32], picture: NDArray[np.float32], label: str
    ) -> str:
        """The picture with Grad-CAM laid over it; "" where there is none."""
        if not self.explains:
            return ""
        model: Any = self.model
        laid = overlay(picture, heat_map(model, unit, Case("film", "film", film), label))
        return "" if laid is None else _png(laid)


def serve(
    run: Run, *, host: str, port: int, token: str = "", keep: Path | None = None
) -> ThreadingHTTPServer:
    """Return the server of a run's page.

    Args:
        run: A finished run, or an exported folder.
        host: Address to listen at.
        port: 0 takes a free one.
        token: Asked of every request; needed where others can reach the address.
        keep: Where results stay, if they are to.

    Raises:
        MedtlError: As `make_server` and `Desk`.
    """
    desk = Desk(run, keep)
    from jinja2 import Template

    text = _part("/page.html.j2").decode()
    page = Template(text, autoescape=True).render(
        title=_title(desk.model.meta),
        columns=_columns(desk),
        stored=keep is not None,
        explains=desk.explains,
        draws=desk.draws,
    )
    get: dict[str, Callable[[], Answer]] = {"/": lambda: Answer(page.encode())}
    for name, kind in PART.items():
        get[name] = partial(Answer, _part(name), f"{kind}; charset=utf-8")
    pages = Pages(get, {"/look": desk.look})
    return make_server(pages, host=host, port=port, token=token)


def _columns(desk: Desk) -> dict[str, str]:
    """Column of a prediction -> its heading on the page."""
    if desk.draws:
        return {"size": "Size"}
    unit = desk.model.task.unit
    if unit is not None:
        return {"y_score": ", ".join(filter(None, ("Estimate", unit)))}
    probability = {"probability": "Probability (recalibrated)"} if desk.mended else {}
    return {"y_score": "Score", **probability, "threshold": "Threshold", "decision": "Decision"}


def _title(meta: Mapping[str, Any]) -> str:
    """What the run is called."""
    study = meta["recipe"].get("study") or {}
    return str(study.get("title") or study.get("question") or "A model")


def _part(name: str) -> bytes:
    """A file of the page."""
    return resources.files("medtl.run.service").joinpath(name.lstrip("/")).read_bytes()


def _unit(reader: ImageReader, film: Path) -> NDArray[np.float32]:
    """The film as the network sees it, in [0, 1]."""
    return reader.preprocessor.to_unit(reader.read(Case("film", "film", film)))


def _png(picture: NDArray[np.float32]) -> str:
    """A picture `(H, W, 3)` in [0, 1] as a data address."""
    from PIL import Image

    body = io.BytesIO()
    Image.fromarray(np.rint(picture * 255).astype(np.uint8)).save(body, "PNG")
    return "data:image/png;base64," + base64.b64encode(body.getvalue()).decode()


def _plain(value: Any) -> Any:
    """A cell as JSON knows it."""
    if isinstance(value, str):
        return value
    if value is None or not math.isfinite(float(value)):
        return None
    return float(value)

"""`medtl watch`: every study that comes in is predicted once, whatever happens in between.

The record of a study is written last and whole. What was interrupted before is done again and
replaces itself, so a study is neither lost nor there twice; what could not be read is set aside
with the cause, and looked at again only when the study changes.
"""

from __future__ import annotations

import hashlib
import html
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol

from medtl.errors import ImageError, MedtlError, RunError
from medtl.io.dicom.file import heard_warnings, open_dicom
from medtl.io.dicom.web import Server, fetch_study, find_studies
from medtl.run.edge.choice import model_of
from medtl.run.predict import Judged, check_destination, predict_images
from medtl.run.service.loopback import Answer, Pages
from medtl.storage.atomic import read_json, remove_leftovers, write_json, write_text
from medtl.storage.lock import locked

if TYPE_CHECKING:
    from medtl.run.folder import Run

log = logging.getLogger(__name__)

ATTEMPTS = 12
"""Times that the program may end in the middle of a study before it is set aside."""

SETTLED_S = 2.0
"""A file that was changed later than so long ago may still be written."""


@dataclass(frozen=True)
class Incoming:
    """One study of a source.

    Attributes:
        uid: Its Study Instance UID, or what stands for one.
        state: Changes when the study does.
        files: Where its files lie, of a folder.
        objects: How many there are, of a server.
    """

    uid: str
    state: str
    files: tuple[Path, ...] = ()
    objects: int = 0

    @property
    def name(self) -> str:
        """Of its record: says nothing of the study."""
        return hashlib.sha256(self.uid.encode()).hexdigest()[:24]


class Source(Protocol):
    """Where studies come from."""

    def studies(self) -> Iterator[Incoming]:
        """Yield the studies that are whole, as far as can be seen."""
        ...

    def bring(self, study: Incoming, folder: Path) -> None:
        """Put the images of a study into an empty folder."""
        ...


class Folder:
    """A folder into which studies are put, at any depth; it is only read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[Path, tuple[tuple[int, int], str]] = {}

    def studies(self) -> Iterator[Incoming]:
        """Yield studies none of whose files was changed a moment ago.

        Raises:
            RunError: When the folder is not there.
        """
        if not self.path.is_dir():
            raise RunError("the folder is not there", where=self.path.name)
        files: dict[str, list[Path]] = {}
        states: dict[str, list[str]] = {}
        latest: Counter[str] = Counter()
        for path in sorted(self.path.rglob("*")):
            if path.name.startswith(".") or not path.is_file():
                continue
            try:
                found = path.stat()
            except OSError:  # it has just gone
                continue
            stamp = (found.st_size, found.st_mtime_ns)
            uid = self._study_of(path, stamp)
            files.setdefault(uid, []).append(path)
            states.setdefault(uid, []).append(f"{path.name}:{stamp}")
            latest[uid] = max(latest[uid], found.st_mtime_ns)
        now = time.time_ns()
        for uid, paths in files.items():
            if now - latest[uid] >= SETTLED_S * 1e9:
                state = hashlib.sha256("\n".join(states[uid]).encode()).hexdigest()
                yield Incoming(uid, state, tuple(paths))

    def bring(self, study: Incoming, folder: Path) -> None:
        """Link the files: nothing is copied."""
        for number, path in enumerate(study.files):
            (folder / f"{number:05d}-{path.name[-80:]}").symlink_to(path.resolve())

    def _study_of(self, path: Path, stamp: tuple[int, int]) -> str:
        """The study of a file; one that says none is a study of its own."""
        known = self._known.get(path)
        if known is None or known[0] != stamp:
            try:
                with heard_warnings(), open_dicom(path) as file:
                    uid = str(file.dataset.get("StudyInstanceUID", ""))
            except ImageError:
                uid = ""
            known = self._known[path] = stamp, uid or f"file {path.relative_to(self.path)}"
        return known[1]


@dataclass(frozen=True)
class Archive:
    """A DICOMweb server that is asked which studies it has.

    Attributes:
        server: The server.
        query: QIDO-RS parameters ("ModalitiesInStudy=CR&StudyDate=20260101-").
    """

    server: Server
    query: str = ""

    def studies(self) -> Iterator[Incoming]:
        """Yield the studies that fit the query."""
        for uid, objects in find_studies(self.server, self.query):
            yield Incoming(uid, _instances(objects), objects=objects)

    def bring(self, study: Incoming, folder: Path) -> None:
        """Fetch the images."""
        fetch_study(self.server, study.uid, folder)


@dataclass
class Watch:
    """Predictions of what a source brings.

    Attributes:
        run: A finished run, or an exported folder.
        source: Where studies come from.
        out: Folder of the results: for each study a table and a record.
        stow: Server that results go to as DICOM objects; "" for none.
        fault: What stands in the way of the source now, "" when nothing does.
        last: When it was last asked, seconds since 1970.
    """

    run: Run
    source: Source
    out: Path
    stow: str = ""
    fault: str = field(default="", init=False)
    last: float = field(default=0.0, init=False)
    waiting: dict[str, str] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Open the model once, and make the folder."""
        if self.stow and not self.run.files.recipe.is_file():
            raise RunError(
                "results go back as DICOM from a run alone", where="--stow",
                fix="Name the run folder in place of an exported one",
            )  # fmt: skip
        self.out.mkdir(parents=True, exist_ok=True)
        self.model = model_of(self.run.files, lambda: self.run.trained)
        self.model.reader.require_images()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep every other watch out of the folder.

        Raises:
            RunError: When one works in it.
        """
        with locked(self.out / ".lock", wait=False):
            remove_leftovers(self.out)
            yield

    def round(self, stopped: Callable[[], bool] = lambda: False) -> int:
        """Predict what is new or changed; return how many studies have a result now.

        What stands in the way of one study, or of all, is said and tried again in the next round.

        Args:
            stopped: Asked before each study.
        """
        done, self.last = 0, time.time()
        try:
            for study in self.source.studies():
                if stopped():
                    break
                done += self._handle(study)
            self.fault = ""
        except (MedtlError, OSError) as error:
            self.fault = str(error)
            log.error("%s", error)
        return done

    def _handle(self, study: Incoming) -> int:
        """Bring one study to its record; 1 when it got a result."""
        path, earlier = self.out / f"{study.name}.json", self._record(study)
        if earlier.get("outcome") not in (None, "begun") and study.state in (
            earlier.get("state"),
            earlier.get("state_when_sent"),
        ):
            return self._send_again(study, path, earlier)
        attempts = earlier.get("attempts", 0) if earlier.get("state") == study.state else 0
        record = {"study": study.uid, "state": study.state, "outcome": "begun", "cause": ""}
        try:
            if attempts >= ATTEMPTS:
                raise ImageError(f"the program ended {attempts} times in the middle of it")
            write_json(path, record | {"attempts": attempts + 1})
            record |= self._predicted(study)
        except ImageError as error:
            record |= {"outcome": "set aside", "cause": str(error)}
        except (MedtlError, OSError) as error:
            if self._is_outside(error):
                self.waiting[study.name] = str(error)
                log.error("%s waits: %s", study.name, error)
                return 0
            record |= {"outcome": "set aside", "cause": str(error)}
        except Exception as error:  # a hostile object must not stop the others
            log.exception("%s is set aside", study.name)
            record |= {"outcome": "set aside", "cause": f"{type(error).__name__} while reading it"}
        self.waiting.pop(study.name, None)
        try:
            write_json(path, record)
        except RunError as error:  # the disk is full: the next round does it again
            self.waiting[study.name] = str(error)
            return 0
        return int(record["outcome"] == "done") + self._send_again(study, path, record)

    def _predicted(self, study: Incoming) -> dict[str, Any]:
        """Write the table of a study; return what its record says."""
        table = check_destination(self.out / f"{study.name}.csv", again=True)
        with self._brought(study) as (_, data):
            done = predict_images(
                self.model,
                data,
                table,
                own=self.run.files.manifest,
                judged=Judged(self.run.thresholds, self.run.recalibrations),
            )
        return {
            "outcome": "done",
            "images": done.images,
            "flagged": len(done.flagged),
            "unreadable": len(done.quarantined),
        }

    @cached_property
    def _explained(self) -> Any:
        """The network, whose reasons can be shown; None where it is not there."""
        has_network = self.run.files.best.is_file() and find_spec("torch") is not None
        return self.run.trained if has_network else None

    @contextmanager
    def _brought(self, study: Incoming) -> Iterator[tuple[Path, Path]]:
        """Yield a folder with the images of a study, and what of it is predicted."""
        with TemporaryDirectory(prefix="medtl-watch-") as folder:
            images = data = Path(folder) / "study"
            images.mkdir()
            self.source.bring(study, images)
            if self.model.reader.dimensions == 3:  # the slices are one image
                data = Path(folder) / "study.csv"
                write_text(data, f"image,patient_id\nstudy,{study.name}\n")
            yield images, data

    def _send_again(self, study: Incoming, path: Path, record: dict[str, Any]) -> int:
        """Store the result of a study in the archive, if that is asked for and was not done."""
        if not self.stow or record["outcome"] != "done" or record.get("sent"):
            return 0
        from medtl.io.dicom.stow import store_objects
        from medtl.run.use.key_pictures import draw_key_pictures

        try:
            with self._brought(study) as (images, data):
                table, objects = self.out / f"{study.name}.csv", images.with_name("objects")
                shown = self._explained and draw_key_pictures(
                    self._explained, data, table, images.with_name("pictures"),
                    own=self.run.files.manifest,
                )  # fmt: skip
                self.run.export(objects, images=images, predictions=table, gallery=shown)
                sent = store_objects(Server(self.stow), sorted(objects.glob("*.dcm")))
            # What was sent into the study that is watched is no change of it.
            after = _instances(study.objects + sent)
            write_json(path, record | {"sent": sent, "state_when_sent": after})
            self.waiting.pop(study.name, None)
        except (MedtlError, OSError) as error:  # the same objects, once more, in the next round
            self.waiting[study.name] = str(error)
            log.error("%s is not stored: %s", study.name, error)
        return 0

    def _record(self, study: Incoming) -> dict[str, Any]:
        """What is known of a study; nothing of a record that was damaged."""
        path = self.out / f"{study.name}.json"
        try:
            found = read_json(path) if path.is_file() else {}
        except RunError:
            return {}
        return found if isinstance(found, dict) and "outcome" in found else {}

    def _is_outside(self, error: Exception) -> bool:
        """Whether a fault is of disk or server, not of the study."""
        if isinstance(error, OSError) or isinstance(error.__cause__, OSError):
            return True
        return isinstance(self.source, Archive) and type(error) is MedtlError

    def health(self) -> dict[str, Any]:
        """Return counts of the records, and what stands in the way."""
        records = [read_json(path) for path in self.out.glob("*.json") if _is_record(path)]
        counts = Counter(record.get("outcome", "damaged") for record in records)
        return {
            "status": "waiting" if self.fault or self.waiting else "well",
            "studies": dict(counts),
            "sent": sum(bool(record.get("sent")) for record in records),
            "waiting": len(self.waiting),
            "reasons": sorted({*self.waiting.values(), self.fault} - {""})[:5],
            "seconds_since_last_look": round(time.time() - self.last) if self.last else None,
            "free_megabytes": shutil.disk_usage(self.out).free >> 20,
        }

    def pages(self) -> Pages:
        """Return the health of the watch as a page, and as JSON for a monitor."""

        def page() -> Answer:
            lines = "".join(
                f"<tr><th scope='row'>{html.escape(name.replace('_', ' '))}</th>"
                f"<td>{html.escape(_in_words(value))}</td></tr>"
                for name, value in self.health().items()
            )
            title = "medtl watch"
            return Answer(
                f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{title}</title>"
                "<meta name='viewport' content='width=device-width'></head><body><main>"
                f"<h1>{title}</h1><p>Research use only. Not a medical device.</p>"
                f"<table>{lines}</table></main></body></html>".encode()
            )

        return Pages({"/": page, "/health": lambda: Answer.of(self.health())}, {})


def _in_words(value: Any) -> str:
    """A part of the health for people: counts, reasons, or a number.

    >>> _in_words({"done": 2, "set aside": 1}), _in_words([]), _in_words(None)
    ('2 done, 1 set aside', 'none', 'none')
    """
    if isinstance(value, Mapping):
        value = [", ".join(f"{count} {what}" for what, count in value.items())]
    if isinstance(value, list):
        value = " ".join(value)
    return "none" if value in (None, "") else str(value)


def _instances(objects: int) -> str:
    """State of a study of a server, which tells no more than how many objects it has."""
    return f"{objects} instances"


def _is_record(path: Path) -> bool:
    """Whether a file is the record of a study, not the quality of its table."""
    return not path.name.startswith(".") and not path.name.endswith(".quality.json")


def source_of(text: str, query: str = "") -> Source:
    """Return the source that a user names: a folder, or the address of a DICOMweb server.

    Args:
        text: What stands on the command line.
        query: QIDO-RS parameters, for a server.

    Raises:
        MedtlError: When a query is stated for a folder.

    >>> type(source_of("https://pacs.example/dicom-web")).__name__
    'Archive'
    """
    if text.startswith(("http://", "https://")):
        return Archive(Server(text), query)
    if query:
        raise MedtlError("a folder takes no query", where="--query")
    return Folder(Path(os.path.expanduser(text)))

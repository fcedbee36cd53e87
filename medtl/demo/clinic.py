"""`medtl demo --pacs`: models in a clinic's archive, all of it made up and on this machine.

Orthanc is started on loopback, new synthetic studies are sent to it, and two models watch it: films
get a Structured Report and a heat map, volumes a Segmentation, a report of its volume and outlines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from medtl.demo.chest import write_chest_study
from medtl.demo.demonstration import Kind, run_demo
from medtl.demo.mr_series import write_mr_series
from medtl.demo.organ import draw_volume
from medtl.demo.orthanc import find_orthanc, local_archive
from medtl.errors import RunError
from medtl.io.dicom.stow import store_objects
from medtl.io.dicom.web import Server, find_objects, find_studies
from medtl.run.files import refuse_existing
from medtl.run.service.watch import Archive, Watch
from medtl.types import Progress, silent

if TYPE_CHECKING:
    from medtl.training.callbacks import Callback

SEED = 1
"""Of the new phantoms; the models have seen those of 0."""


@dataclass(frozen=True)
class Service:
    """A model and the studies that it is for.

    Attributes:
        name: Of its folders.
        kind: Of the demo that trains it.
        patients: Phantoms to train on.
        overrides: Of the demo's recipe: seconds of training, and so poor numbers.
        query: What it asks the archive for (QIDO-RS).
        write: Writes new studies as DICOM files into a folder.
        back: Modalities of what it sends back.
    """

    name: str
    kind: Kind
    patients: int
    overrides: tuple[str, ...]
    query: str
    write: Callable[[Path], Sequence[Path]]
    back: tuple[str, ...]


@dataclass(frozen=True)
class Served:
    """What the archive holds of one study in the end.

    Attributes:
        service: Name of the service.
        study: Study Instance UID.
        objects: Modality -> number of objects.
    """

    service: str
    study: str
    objects: Counter[str]


def _films(folder: Path) -> Sequence[Path]:
    """Films of new phantoms, each a study."""
    write_chest_study(folder, patients=2, seed=SEED)
    return sorted(folder.rglob("*.dcm"))


def _series(folder: Path) -> Sequence[Path]:
    """The series of a new phantom."""
    drawn = draw_volume(SEED, 0)
    return write_mr_series(folder, drawn.image, "SYNTH-MR-0001", entropy=f"medtl demo mr {SEED} 0")


SERVICES = (
    Service(
        "chest", "classification", 40,
        ("image.size=96", "finetune.stages=[{name: head, train: head, epochs: 3, lr: 5e-3}]"),
        "StudyDescription=*chest*", _films, ("SR", "OT"),
    ),
    Service(
        "abdomen", "segmentation", 24,
        ("finetune.stages=[{name: scratch, train: all, epochs: 10, lr: 1e-2, warmup_epochs: 1}]",),
        "StudyDescription=*abdomen*", _series, ("SEG", "SR", "OT"),
    ),
)  # fmt: skip


def run_clinic(
    out: Path, *, progress: Progress = silent, callbacks: Sequence[Callback] = ()
) -> list[Served]:
    """Train, send, watch, send back; return what the archive holds of every study then.

    Args:
        out: A new folder; it keeps the runs, the new images and the results, not the archive.
        progress: Told of every step.
        callbacks: Told of training.

    Raises:
        InstallationError: When Orthanc is not installed.
        RunError: When the folder is not free, or a study did not get its objects back.
    """
    find_orthanc()  # said before any work
    refuse_existing(out, resume=False)
    runs = {
        service.name: run_demo(
            out / service.name,
            task=service.kind,
            patients=service.patients,
            overrides=service.overrides,
            progress=progress,
            callbacks=callbacks,
        )
        for service in SERVICES
    }
    served = []
    with TemporaryDirectory(prefix="medtl-archive-") as folder, local_archive(Path(folder)) as url:
        server = Server(url)
        for service in SERVICES:
            new = service.write(out / "new" / service.name)
            store_objects(server, new, progress=progress)
        for service in SERVICES:
            progress(f"Watching for {service.name}", 0, 1)
            results = out / "results" / service.name
            watch = Watch(runs[service.name], Archive(server, service.query), results, url)
            with watch.alone():
                watch.round()
            progress(f"Watching for {service.name}", 1, 1)
            if reasons := watch.health()["reasons"]:
                raise RunError(f"the watch waits: {reasons[0]}", where=service.name)
            for study, _ in find_studies(server, service.query):
                served.append(Served(service.name, study, find_objects(server, study)))
                _refuse_incomplete(service, served[-1])
    return served


def _refuse_incomplete(service: Service, served: Served) -> None:
    """Stop when a study lacks an object that it was to get."""
    if missing := [kind for kind in service.back if not served.objects[kind]]:
        raise RunError(
            f"a study has no {missing[0]} in the archive",
            expected=", ".join(service.back),
            where=f"results/{service.name}",
        )

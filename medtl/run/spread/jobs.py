"""What can be done in shares: scan, decode, features, predict; each one a frozen value of texts.

A job stands in its parts, so that `medtl merge` needs no more than them, and goes to the workers of
a cluster as it is. What it reads must lie at the same paths for all who do shares.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from medtl.cases.paths import path_below
from medtl.errors import RunError
from medtl.run.predicted import SHOWN_ROWS
from medtl.storage.cache import code_fingerprint
from medtl.storage.parts import Part, Parts, Share
from medtl.types import Manifest, Progress

if TYPE_CHECKING:
    import pandas as pd

    from medtl.prediction.sink import Model
    from medtl.run.use.cases_to_predict import CasesToPredict


class Job(Protocol):
    """A piece of work that can be done in shares."""

    kind: ClassVar[str]

    @property
    def out(self) -> str:
        """The file that is to be."""
        ...

    def __hash__(self) -> int:
        """Equal jobs have equal numbers."""
        ...

    def inputs(self) -> Iterable[object]:
        """Yield all that the results depend on, but for the code and the job itself."""
        ...

    def do(self, share: Share, progress: Progress) -> Part:
        """Do a share."""
        ...

    def finish(self, parts: Sequence[Part]) -> list[str]:
        """Make the file of all parts, and return what there is to say."""
        ...


@dataclass(frozen=True)
class ScanJob:
    """A manifest of DICOM headers.

    Attributes:
        folder: To walk.
        out: The manifest.
        per: "image" or "series".
    """

    folder: str
    out: str
    per: Literal["image", "series"] = "image"
    kind: ClassVar[str] = "scan"

    @cached_property
    def paths(self) -> list[str]:
        """The files, relative to the folder; parts that lie in it are none of them."""
        from medtl.cases.intake.scan import list_files

        root, parts = Path(self.folder), Parts(Path(self.out)).folder
        files = list_files(root)[0]
        return [path for path in files if not (root / path).is_relative_to(parts)]

    def inputs(self) -> Iterable[object]:
        """As `Job.inputs`."""
        from medtl.cases.pseudonyms import load_salt

        yield hashlib.sha256(load_salt()).hexdigest()
        yield from self.paths

    def do(self, share: Share, progress: Progress) -> Part:
        """Read the headers of a share; nothing that names a person is in the part."""
        import pandas as pd

        from medtl.cases.intake.scan import scan_share
        from medtl.cases.pseudonyms import load_salt, remember

        files, identities = scan_share(
            Path(self.folder),
            share.take(self.paths),
            salt=load_salt(),
            progress=lambda done, total: progress("Reading headers", done, total),
        )
        remember(identities.items())
        return Part(pd.DataFrame(), {"files": [asdict(file) for file in files]})

    def finish(self, parts: Sequence[Part]) -> list[str]:
        """Write the manifest."""
        from dataclasses import replace

        from medtl.cases.intake.scan import ScannedFile, assemble, list_files
        from medtl.cases.manifest import place_for, write_manifest_of

        root = Path(self.folder)
        path = place_for(root, self.out)
        files = [ScannedFile(**told) for part in parts for told in part.facts["files"]]
        found, links = assemble(root, files, per=self.per), list_files(root)[1]
        found = replace(found, skipped=tuple(sorted([*links, *found.skipped])))
        write_manifest_of(root, found.rows, path)
        return [f"{len(found.rows)} rows: {path}", *found.notes, *found.left_out]


@dataclass(frozen=True)
class DecodeJob:
    """The decoded images of a recipe in this user's cache, and a table of what was read.

    Attributes:
        recipe: The YAML file.
        out: The table: case, file, hash of its pixels, why it could not be read, flags.
        overrides: Changes of the recipe.
    """

    recipe: str
    out: str
    overrides: tuple[str, ...] = ()
    kind: ClassVar[str] = "decode"

    def inputs(self) -> Iterable[object]:
        """As `Job.inputs`."""
        yield self.study[0].sha256
        yield from _files_of(self.study[0])

    @cached_property
    def study(self) -> tuple[Manifest, Any, Any]:
        """The cases, how they are read, and what keeps them.

        Raises:
            RunError: When the recipe keeps no images between runs.
        """
        from medtl.run.build import (
            build_contract,
            build_decoder,
            build_manifest,
            build_reader,
            build_task,
        )
        from medtl.run.check import read_recipe

        recipe = read_recipe(Path(self.recipe), self.overrides)
        manifest = build_manifest(recipe)
        if not recipe.run.cache_gb or build_task(recipe, manifest.cases).encode is not None:
            raise RunError(
                "this recipe's images are not kept between runs",
                expected="run.cache_gb above 0, and a study without masks",
                where=Path(self.recipe).name,
                fix="State run.cache_gb; images with masks are decoded in every run",
            )
        reader = build_reader(recipe, build_contract(recipe), manifest.root)
        return manifest, reader, build_decoder(recipe)

    def do(self, share: Share, progress: Progress) -> Part:
        """Decode a share into the cache."""
        import pandas as pd

        manifest, reader, decode = self.study
        cases = share.take(manifest.cases)
        _, records = decode(
            cases, reader, progress=lambda done, total: progress("Reading images", done, total)
        )
        rows = [
            {
                "case_id": record.case_id,
                "file": path_below(case.image, manifest.root),
                "content_sha256": record.sha256,
                "cause": record.cause,
                "flags": "; ".join(record.flags),
            }
            for case, record in zip(cases, records, strict=True)
        ]
        return Part(pd.DataFrame(rows))

    def finish(self, parts: Sequence[Part]) -> list[str]:
        """Write the table."""
        table = _joined(parts)
        _write(table, Path(self.out))
        unread = int((table["cause"] != "").sum())
        return [f"{len(table)} images read, {unread} could not be: {self.out}"]


@dataclass(frozen=True)
class FeaturesJob:
    """The pooled features of a run's network for every image.

    Attributes:
        run: The run folder.
        data: A manifest, a folder of images, or one image.
        out: The table: case, patient, file, `feature_0000` and so on.
        splits: Of the run's own cases; none stated takes validation and test.
    """

    run: str
    data: str
    out: str
    splits: tuple[str, ...] = ()
    kind: ClassVar[str] = "features"

    def inputs(self) -> Iterable[object]:
        """As `Job.inputs`."""
        yield _of_run(self.run)
        yield from _files_of(self.study[1].manifest)

    @cached_property
    def study(self) -> tuple[Any, CasesToPredict]:
        """The network and the cases."""
        return _study(self, exported=False)

    def do(self, share: Share, progress: Progress) -> Part:
        """Compute the features of a share."""
        from medtl.run.spread.feature_table import features_of

        model, chosen = self.study
        return features_of(model, chosen.manifest, share, progress=progress)

    def finish(self, parts: Sequence[Part]) -> list[str]:
        """Write the table."""
        table = _joined(parts)
        if table.empty:
            raise RunError("no image could be read", where=Path(self.data).name)
        _write(table, Path(self.out))
        unread = [one for part in parts for one in part.facts["unread"]]
        said = f"Features of {len(table)} images, {len(unread)} could not be read: {self.out}"
        named = [f"  {one['file']}: {one['cause']}" for one in unread[:SHOWN_ROWS]]
        return [*self.study[1].notes, said, *named]


@dataclass(frozen=True)
class PredictJob:
    """The predictions of a run for every image.

    Attributes:
        run: The run folder.
        data: A manifest, a folder of images, or one image.
        out: The table.
        splits: Of the run's own cases; none stated takes validation and test.
    """

    run: str
    data: str
    out: str
    splits: tuple[str, ...] = ()
    kind: ClassVar[str] = "predict"

    def inputs(self) -> Iterable[object]:
        """As `Job.inputs`."""
        yield _of_run(self.run)
        yield from _files_of(self.study[1].manifest)

    @cached_property
    def study(self) -> tuple[Model, CasesToPredict]:
        """The model and the cases."""
        return _study(self, exported=True)

    def do(self, share: Share, progress: Progress) -> Part:
        """Predict a share; masks are written beside the table that is to be."""
        from medtl.run.predict import check_destination, score_cases

        model, chosen = self.study
        out = check_destination(Path(self.out), again=True)
        return score_cases(model, chosen.manifest, out, share, progress=progress)

    def finish(self, parts: Sequence[Part]) -> list[str]:
        """Write the table and what was odd, as one process does."""
        from medtl.run.folder import Run
        from medtl.run.predict import Judged, finish_predictions
        from medtl.run.use.mending import probability_lines

        model, chosen = self.study
        run = Run(self.run)
        records = [record for part in parts for record in part.facts["records"]]
        done = finish_predictions(
            model,
            chosen,
            Part(_joined(parts), {"records": records}),
            Judged(run.thresholds, run.recalibrations),
            out=Path(self.out),
        )
        mended = run.files.metrics.is_file()
        return done.told(
            self.out, probability_lines(run.recalibrations, run.metrics) if mended else ()
        )


JOBS: Mapping[str, Callable[..., Job]] = {
    job.kind: job for job in (ScanJob, DecodeJob, FeaturesJob, PredictJob)
}
"""Kind of a job, as its parts name it -> the job."""


def _study(job: FeaturesJob | PredictJob, *, exported: bool) -> tuple[Any, CasesToPredict]:
    """A run's model, and the cases to predict."""
    from medtl.run.edge.choice import model_of
    from medtl.run.folder import Run
    from medtl.run.use.cases_to_predict import find_cases

    run = Run(job.run)
    model = model_of(run.files, lambda: run.trained) if exported else run.trained
    return model, find_cases(run.files.manifest, Path(job.data), model, job.splits)


def _of_run(run: str) -> list[object]:
    """Hashes of the model of a run, and of what judges its predictions."""
    from medtl.run.files import RunFiles
    from medtl.storage.atomic import sha256_file

    files = RunFiles(Path(run))
    places = (files.best, files.contract, RunFiles(files.portable).contract)
    return [sha256_file(path) if path.is_file() else "" for path in places]


def _files_of(manifest: Manifest) -> Iterable[object]:
    """What the files of all cases are known by, without being read."""
    from medtl.data.decoded import file_facts

    yield manifest.sha256
    for case in manifest.cases:
        yield case.case_id, *file_facts(case)


def _joined(parts: Sequence[Part]) -> pd.DataFrame:
    """The rows of all parts in their order."""
    import pandas as pd

    tables = [part.table for part in parts if len(part.table)]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _write(table: pd.DataFrame, out: Path) -> None:
    """Write a table by its ending, atomically."""
    from medtl.storage.atomic import atomic_path

    with atomic_path(out) as temporary:
        if out.suffix.lower() == ".parquet":
            table.to_parquet(temporary, index=False)
        else:
            table.to_csv(temporary, index=False)


def read_job(told: Mapping[str, Any]) -> Job:
    """Return the job that a part names.

    Raises:
        RunError: When this version does not know it.
    """
    kind = str(told.get("kind"))
    if kind not in JOBS:
        raise RunError(
            f"the parts are of {kind!r}", expected=f"one of {', '.join(JOBS)}",
            fix="Merge them with the version that made them",
        )  # fmt: skip
    given = {name: tuple(v) if isinstance(v, list) else v for name, v in told.items()}
    del given["kind"]
    return JOBS[kind](**given)


def do_share(job: Job, share: Share, progress: Progress) -> bool:
    """Do a share of a job and keep its part; return False when it was there already.

    Raises:
        MedtlError: As the work itself.
    """
    parts = Parts(Path(job.out))
    digest = hashlib.sha256(f"{code_fingerprint()} {job!r} {share.of}".encode())
    for fact in job.inputs():
        digest.update(repr(fact).encode())
    key = digest.hexdigest()
    if parts.has(share, key):
        return False
    told = {"kind": job.kind, **asdict(job)}  # type: ignore[call-overload]
    parts.write(share, key, told, job.do(share, progress))
    return True


def merge(out: str | Path) -> list[str]:
    """Make a file of all its parts, and return what there is to say.

    Args:
        out: The file that the shares were given as `--out`.

    Raises:
        RunError: When a part is missing or damaged, or the parts are not of one piece of work.
    """
    parts = Parts(Path(out))
    return read_job(parts.job()).finish(parts.read())

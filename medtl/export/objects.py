"""From a run folder and its source images to a folder of DICOM objects.

The objects carry the patient's identity, copied from the source file when they are made. So they
are never written into the run folder, which names nobody, nor among the images.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medtl.cases.predictions import mask_labels
from medtl.errors import ImageError, PredictionsError, RunError, extras_named
from medtl.export.document import encapsulated_pdf
from medtl.export.identity import Algorithm, Kind, write_object
from medtl.export.matching import Source, find_sources
from medtl.export.pictures import read_picture, secondary_capture
from medtl.export.results import Result, RunResults, read_algorithm, read_results
from medtl.export.segments import on_series, segmentation
from medtl.export.source import read_source
from medtl.export.structured_report import Segmented, structured_report, volume_report
from medtl.io.masks import read_mask
from medtl.storage.atomic import write_json
from medtl.types import Progress, silent

REPORT_TITLE = "medtl evaluation report"
"""End of the title of a report, which a PDF of it carries too."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exported:
    """A finished export.

    Attributes:
        cases: Cases with at least one object.
        objects: DICOM files.
        left_out: Case id -> why it has no object.
    """

    cases: int
    objects: int
    left_out: dict[str, str]


def export_results(
    run: RunResults,
    out: Path,
    *,
    images: Path,
    predictions: Path | None = None,
    case_ids: Sequence[str] = (),
    pdf: Path | None = None,
    progress: Progress = silent,
) -> Exported:
    """Write a run's results as DICOM objects of the patients and studies they are about.

    Each case gets a Structured Report of its scores, a Segmentation of its mask and a Secondary
    Capture of each of its key pictures, as far as the run has them. `OUT/export.json` lists the
    files by case, and the cases that were left out.

    Args:
        run: Parts of a finished run; they are only read.
        out: A folder that is new or empty, outside of the run's and of `images`.
        images: The source images: a manifest, a folder or one file. They are only read.
        predictions: A table that `medtl predict` made with this run; None takes the test cases.
        case_ids: The cases to export; all when empty.
        pdf: A document to add to the study of the exported cases, which must then be one study.
        progress: Told of reading and writing.

    Raises:
        RunError: When a folder cannot be used, no case can be exported, or the PDF would go to
            several studies.
        MedtlError: For faults of the table, the images, the PDF, or a missing highdicom.
    """
    with extras_named():
        import highdicom  # noqa: F401 - said before any work
    _check_destination(out, run.folder, images)
    results = _chosen(read_results(run, predictions), case_ids)
    table = predictions or run.predictions
    labels = mask_labels(table)
    if not labels and any(result.masks for result in results):
        raise PredictionsError(
            "nothing says what the values of the masks mean",
            expected="`labels: {1: lung}`",
            where=table.with_suffix(".yaml").name,
        )
    read = run.recipe["image"]
    sources, left_out = find_sources(
        images,
        {result.case_id: result.content_sha256 for result in results},
        voi=read.get("scale") == "voi",
        at_least=_decoded_at(read),
        volumes=any(".nii" in path.suffixes for result in results for path in result.masks),
        progress=lambda done, total: progress("Matching images", done, total),
    )
    if case_ids or not sources:
        _refuse_unmatched(left_out)
    document = None if pdf is None else _read_pdf(pdf, sources, run.folder)
    algorithm, written = read_algorithm(run, table), list[dict[str, str]]()
    codes = (run.recipe.get("data") or {}).get("codes") or {}
    matched = [result for result in results if result.case_id in sources]
    for number, result in enumerate(matched, start=1):
        try:
            # A case has all of its objects, or none when one of them cannot be made.
            source = sources[result.case_id]
            made = list(_objects(result, source, algorithm, labels, codes, document))
        except (ImageError, PredictionsError) as error:
            left_out[result.case_id] = str(error)
        else:
            document = None  # one study, one document
            written += [_written(out, result.case_id, *one) for one in made]
        progress("Writing DICOM", number, len(matched))
    if written:
        write_json(out / "export.json", {"objects": written, "left_out": left_out})
    if case_ids or not written:
        _refuse_unmatched(left_out)
    return Exported(len({entry["case_id"] for entry in written}), len(written), left_out)


def _decoded_at(read: Mapping[str, Any]) -> int | None:
    """Pixels that the run let images be decoded at; `size` is one number or [height, width]."""
    if read.get("decode") != "reduced":
        return None
    size = read["size"]
    return 2 * (size if isinstance(size, int) else max(size))


def _written(out: Path, case_id: str, kind: Kind, dataset: Dataset) -> dict[str, str]:
    """Write an object; return its line of the list."""
    out.mkdir(parents=True, exist_ok=True)
    name = f"{kind}.{dataset.SOPInstanceUID}.dcm"
    write_object(dataset, out / name)
    return {"case_id": case_id, "kind": kind, "file": name}


def _objects(
    result: Result,
    source: Source,
    algorithm: Algorithm,
    labels: Mapping[int, str],
    codes: Mapping[str, str],
    pdf: bytes | None,
) -> Iterator[tuple[Kind, Dataset]]:
    """All objects of a case.

    Raises:
        PredictionsError: When there is nothing to make one of.
        ImageError: When the source or a mask cannot be used.
    """
    headers = _headers(source.path)
    if result.findings:
        yield (
            "SR",
            structured_report(result.findings, headers, algorithm, frame=source.frame, codes=codes),
        )
    if result.masks:
        masks = [mask_on(path, headers, labels) for path in result.masks]
        made = segmentation(masks, headers, algorithm, labels=labels)
        yield "SEG", made
        if (voxel := _voxel_mm3(headers)) is not None:
            volumes = [
                Segmented(
                    labels[value], number, voxel * sum(int((m == value).sum()) for m in masks)
                )
                for number, value in enumerate(sorted(labels), start=1)
            ]
            yield "SR", volume_report(volumes, made, headers, algorithm)
    scores = {finding.label: f" {finding.score:.3g}" for finding in result.findings}
    for label, path in result.pictures:
        caption = f"{label}{scores.get(label, '')}"
        yield "SC", secondary_capture(read_picture(path), headers[0], algorithm, caption=caption)
    if pdf is not None:
        yield "PDF", encapsulated_pdf(pdf, headers[0], algorithm)
    elif not (result.findings or result.masks or result.pictures):
        raise PredictionsError("there is neither a score nor a mask", where=result.case_id)


def _voxel_mm3(headers: Sequence[Dataset]) -> float | None:
    """The volume of a voxel of a series of slices, None where there is no such thing."""
    places = [header.get("ImagePositionPatient") for header in headers]
    if len(headers) < 2 or any(place is None for place in places):
        return None
    row, column = np.asarray(headers[0].ImageOrientationPatient, float).reshape(2, 3)
    along = sorted(float(np.dot(np.cross(row, column), place)) for place in places)
    pixel = np.prod([float(side) for side in headers[0].PixelSpacing])
    return float(pixel * (along[-1] - along[0]) / (len(along) - 1))


def _headers(path: Path) -> list[Dataset]:
    """The header of an image, or those of the series that fills a folder."""
    if path.is_file():
        return [read_source(path)]
    series: dict[str, list[Dataset]] = defaultdict(list)
    for file in sorted(path.iterdir()):
        try:
            header = read_source(file)
        except ImageError:
            continue  # what lies beside a series was no part of the image either
        series[str(header.SeriesInstanceUID)].append(header)
    if not series:
        raise ImageError("no image of the series says which it is", where=path.name)
    return max(series.values(), key=len)


def mask_on(
    path: Path, headers: Sequence[Dataset], labels: Mapping[int, str]
) -> NDArray[np.integer]:
    """A mask file's values in the order of the images."""
    mask = read_mask(path, labels=labels)
    return mask.array if mask.affine is None else on_series(mask.array, mask.affine, headers)


def _check_destination(out: Path, run: Path, images: Path) -> None:
    """Find out before the work whether its result can be written, and keep identities apart."""
    place = out.resolve()
    folders = [run.resolve(), *([images.resolve()] if images.is_dir() else [])]
    if any(place.is_relative_to(folder) for folder in folders):
        raise RunError(
            "exported objects name patients and are kept apart",
            expected="a folder outside of the run and of the images",
            where=out.name,
            fix="Choose another --out",
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError("the folder is not empty", where=out.name, fix="Choose another --out")


def _chosen(results: Sequence[Result], case_ids: Sequence[str]) -> list[Result]:
    """The results of the cases asked for."""
    unknown = set(case_ids) - {result.case_id for result in results}
    if unknown or not results:
        raise RunError(
            f"no result for the case {sorted(unknown)[0]}" if unknown else "there are no results",
            expected="a test case of the run, or a case of --predictions",
        )
    return [result for result in results if not case_ids or result.case_id in case_ids]


def _refuse_unmatched(left_out: dict[str, str]) -> None:
    """Stop when cases that must be exported cannot be."""
    if left_out:
        case_id, reason = next(iter(left_out.items()))
        raise RunError(
            f"{len(left_out)} case(s) cannot be exported; {case_id}: {reason}",
            expected="the DICOM files that the run read, unchanged",
            fix="Name them by --images",
        )


def _read_pdf(path: Path, sources: dict[str, Source], run: Path) -> bytes:
    """The bytes of a document that goes to one study, and is about no other patient."""
    studies = {str(_headers(source.path)[0].StudyInstanceUID) for source in sources.values()}
    if len(studies) > 1:
        raise RunError(
            f"the exported cases are of {len(studies)} studies",
            expected="one study to add the PDF to: a report about many patients belongs to none",
            where=path.name,
            fix="Choose the case by --case",
        )
    try:
        content = path.read_bytes()
    except OSError as fault:
        raise RunError(f"cannot be read: {fault.strerror}", where=path.name) from fault
    wide = REPORT_TITLE.encode("utf-16-be")
    marks = (REPORT_TITLE.encode(), wide, wide.hex().upper().encode())
    if path.resolve().is_relative_to(run.resolve()) or any(mark in content for mark in marks):
        raise RunError(
            "this is the report of the whole study, with other patients' pictures and results",
            expected="a document about this one patient",
            where=path.name,
        )
    return content

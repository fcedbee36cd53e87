"""The folder of an exported run: graph, contract, thresholds, card, licence; verified."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from medtl.data.store import ImageStore, RowWriter, levels
from medtl.errors import RunError, WeightsError
from medtl.prediction.portable import GRAPH, amend, read_portable
from medtl.run.edge.compress import Smaller
from medtl.run.edge.papers import write_contract, write_papers
from medtl.run.files import refuse_existing
from medtl.types import Case, Progress, silent

if TYPE_CHECKING:
    from medtl.prediction.portable import PortableModel
    from medtl.prediction.sink import TrainedModel
    from medtl.run.folder import Run

ALLOWED = 1e-4
"""Largest difference of a probability between graph and network; of a quantity, in its SD."""

PROBES = 6
"""Drawn images that graph and network are compared on."""

SEXES = ("F", "M", "")


def export_graph(
    run: Run,
    out: Path | None = None,
    smaller: Smaller | None = None,
    *,
    progress: Progress = silent,
) -> Path:
    """Write a run as a folder that predicts with onnxruntime alone; return the folder.

    Args:
        run: Trained and evaluated: thresholds are part of what leaves the lab.
        out: A new folder; None is `RUN/onnx`, which `predict` then uses in place of the network.
        smaller: What else is wanted.
        progress: Told of the steps.

    Raises:
        RunError: When the folder is not free, or something smaller lacks its images or a place of
            its own.
        WeightsError: When the graph says something else than the network.
    """
    smaller = smaller or Smaller()
    lossy = smaller.int8 or smaller.prune > 0
    if lossy and (out is None or smaller.images is None):
        raise RunError(
            "a smaller graph gives other scores",
            expected="a folder of its own, and images to set its ranges and to judge it by",
            fix="Add --out FOLDER --images MANIFEST",
        )
    if out is not None:
        refuse_existing(out, resume=False)
    target = out or run.files.portable
    metrics, trained = run.metrics, run.trained
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".onnx-", dir=target.parent) as temporary:
        folder = Path(temporary) / "folder"
        folder.mkdir()
        with _step(progress, "Exporting the graph"):
            exact = _write_exact(trained, run, folder, metrics)
        with _step(progress, "Comparing graph and network"):
            agreement = compare_with(trained, exact)
        amend(folder, agreement=agreement)
        if smaller.images is not None:
            from medtl.run.edge.judge import shrink_and_judge

            shrink_and_judge(run, folder, smaller, progress=progress)
        if out is None:
            shutil.rmtree(target, ignore_errors=True)
        elif target.is_dir():
            target.rmdir()
        shutil.move(folder, target)
    return target


def compare_with(trained: TrainedModel[Any, Any], exact: PortableModel) -> dict[str, Any]:
    """Return how far graph and network are apart on drawn images.

    Raises:
        WeightsError: When it is further than `ALLOWED`.
    """
    store, cases = _probes(trained)
    sides = [trained.scores(store, cases), exact.scores(store, cases)]
    each = ([score for batch in side for score in batch] for side in sides)  # cut differently
    apart = max(float(np.abs(a - b).max()) for a, b in zip(*each, strict=True))
    apart /= float(getattr(trained.task, "sd", 1.0))
    if not apart <= ALLOWED:
        raise WeightsError(
            f"graph and network differ by {apart:.2g}",
            expected=f"at most {ALLOWED:g}",
            fix="Export with another version of torch or onnxscript, and report it",
        )
    return {"images": len(cases), "largest_difference": apart, "allowed": ALLOWED}


def _probes(trained: TrainedModel[Any, Any]) -> tuple[ImageStore, list[Case]]:
    """Drawn unit images: smooth, noisy and constant ones; of volumes some larger than a window."""
    rng, reader = np.random.default_rng(0), trained.reader
    writer, cases = RowWriter(np.uint16), []
    for number in range(PROBES):
        if reader.dimensions == 3:
            patch = trained.recipe.image.patch
            sides = [side + (number % 3) * side // 2 + number for side in patch]
            shape: tuple[int, ...] = (1, *sides)
        else:
            shape = reader.preprocessor.unit_shape  # type: ignore[union-attr]
        lines = np.meshgrid(*(np.linspace(0, 1, side) for side in shape[1:]), indexing="ij")
        smooth = np.broadcast_to(sum(lines) / len(lines), shape)
        unit = smooth + number / PROBES * (rng.random(shape) - smooth)
        writer.append(levels(unit.astype(np.float32)))
        told = dict.fromkeys(trained.columns.inputs, SEXES[number % 3])
        cases.append(Case(f"probe-{number}", f"probe-{number}", Path("probe"), strata=told))
    return ImageStore(tuple(case.case_id for case in cases), writer.rows()), cases


def _write_exact(
    trained: TrainedModel[Any, Any], run: Run, folder: Path, metrics: Mapping[str, Any]
) -> PortableModel:
    """Write graph, contract, thresholds, card and licence; return what they are together."""
    import onnxruntime

    from medtl.run.edge.graph import write_graph

    told = {"onnxruntime": onnxruntime.__version__, **write_graph(trained, folder / GRAPH)}
    write_contract(trained, run, folder, told, [GRAPH])
    write_papers(trained, run, folder, metrics)
    return read_portable(folder)


@contextmanager
def _step(progress: Progress, name: str) -> Iterator[None]:
    """Tell of one step."""
    progress(name, 0, 1)
    yield
    progress(name, 1, 1)

"""A run's exported graph: what predicts with numpy and onnxruntime, without torch.

`medtl.run.edge.write` makes the folder. Its contract holds the preprocessing as the run had it,
which is done by the same code, so that a film meets the graph as it met the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtl.cases.columns import Columns
from medtl.data.reader import ImageReader
from medtl.data.store import ImageStore
from medtl.errors import WeightsError
from medtl.io.cost import Limits
from medtl.prediction.windows import Windows
from medtl.preprocess.pipeline import Preprocessor
from medtl.preprocess.volume import VolumePreprocessor
from medtl.storage.atomic import read_json, sha256_file, write_json
from medtl.tasks.protocols import Task
from medtl.tasks.stored import read_task
from medtl.types import Case, Progress, silent

FORMAT = "medtl-onnx/1"
"""Stands in every contract; a reader refuses what it does not know."""

CONTRACT, GRAPH, PIXEL_MEAN = "contract.json", "model.onnx", "pixel_mean.npy"
"""Files of the folder: what the graph needs and means, itself, the mean image if there is one."""

IMAGE, INPUTS, SCORES = "image", "inputs", "scores"
"""Inputs and output of the graph; of a segmenter, whose windows are averaged, the logits."""

BATCH = 32
"""Images in one call."""


@dataclass(frozen=True)
class PortableModel:
    """An exported graph with all that makes predictions of images.

    Attributes:
        folder: Where it lies.
        task: What its outputs mean.
        reader: How a file becomes a unit image.
        columns: Those of the manifest that training read.
        meta: All that the contract says.
        threads: Of onnxruntime; 0 takes one per core.
    """

    folder: Path
    task: Task
    reader: ImageReader
    columns: Columns
    meta: Mapping[str, Any]
    threads: int = 0

    @cached_property
    def session(self) -> Any:
        """The graph, ready to run.

        Raises:
            WeightsError: When onnxruntime cannot read it.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 3
        path = self.folder / GRAPH
        try:
            return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own classes have no common ancestor
            raise WeightsError(
                "onnxruntime cannot read the graph",
                expected=f"an onnxruntime of {self.meta['onnxruntime']} or newer",
                where=GRAPH,
                fix="Install that one, or export the run again",
            ) from error

    def outputs(self, batch: NDArray[np.float32], inputs: NDArray[np.float32]) -> Any:
        """Return the scores `(B, ...)` of standardised images `(B, C, *S)`.

        Args:
            batch: One image, where the graph is a segmenter.
            inputs: `(B, E)` numbers besides the image.
        """
        told = {INPUTS: inputs} if inputs.shape[1] else {}

        def network(part: NDArray[np.float32]) -> Any:
            return self.session.run([SCORES], {IMAGE: part, **told})[0]

        if self.meta["windows"] is None:
            return network(batch)
        from scipy.special import expit, softmax

        logits = self.windows(batch, network)
        return expit(logits) if self.meta["decode"] == "sigmoid" else softmax(logits, axis=1)

    @cached_property
    def windows(self) -> Windows:
        """How an image meets a segmenter."""
        told = self.meta["windows"]
        return Windows(tuple(told["patch"]), told["stride"], told["overlap"])

    def scores(
        self, store: ImageStore, cases: Sequence[Case], progress: Progress = silent
    ) -> Iterator[NDArray[np.float32]]:
        """Yield scores as `medtl.prediction.sink.Model.scores`."""
        rows, inputs = store.rows(cases), self.task.inputs(cases)
        size = BATCH if self.meta["windows"] is None else 1
        for first in range(0, len(rows), size):
            part = slice(first, first + size)
            units = [store.unit(int(row)) for row in rows[part]]
            batch = np.stack([self.reader.preprocessor.standardise(unit) for unit in units])
            yield self.outputs(batch, inputs[part])
            progress("Predicting", min(first + size, len(rows)), len(rows))


def read_portable(folder: Path, *, threads: int = 0) -> PortableModel:
    """Read a folder that `medtl export RUN --onnx` wrote.

    Args:
        folder: With `contract.json`.
        threads: Of onnxruntime; 0 takes one per core.

    Raises:
        WeightsError: When a file is missing, was changed, or is of another version.
    """
    contract = _read_contract(folder)
    return PortableModel(
        folder=folder,
        task=read_task(contract["task"]),
        reader=_reader_of(contract, folder),
        columns=Columns(**contract["columns"]),
        meta=contract,
        threads=threads,
    )


class Preparation:
    """From a file to the network's input, as the run had it: for programs that are not medtl.

    Args:
        folder: With `contract.json`: an exported folder, a MONAI bundle, a Hugging Face folder.

    Raises:
        WeightsError: As `read_portable`.
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self.reader = _reader_of(_read_contract(Path(folder)), Path(folder))

    def __call__(self, file: str | PathLike[str]) -> NDArray[np.float32]:
        """Return a standardised image `(C, *S)`; a folder is the series of a volume.

        Raises:
            ImageError: When the file cannot be read.
        """
        image = self.reader.read(Case("image", "image", Path(file)))
        return self.reader.preprocessor.standardise(self.reader.preprocessor.to_unit(image))


def _read_contract(folder: Path) -> Mapping[str, Any]:
    """The contract of a folder, whose files are what it says."""
    contract = read_json(folder / CONTRACT)
    if not isinstance(contract, dict) or contract.get("format") != FORMAT:
        found = contract.get("format") if isinstance(contract, dict) else "no contract"
        raise WeightsError(
            f"the folder's format is {found!r}", expected=FORMAT, where=CONTRACT,
            fix="Export the run again with this version",
        )  # fmt: skip
    for name, sha256 in contract["files"].items():
        if not (folder / name).is_file() or sha256_file(folder / name) != sha256:
            raise WeightsError(
                "the file is missing, or not what the contract says",
                where=name,
                fix="Copy the folder again, or export the run again",
            )
    return contract


def _reader_of(contract: Mapping[str, Any], folder: Path) -> ImageReader:
    """How a file becomes a unit image."""
    told = dict(contract["reader"])
    preprocessor: Preprocessor | VolumePreprocessor
    if told["dimensions"] == 3:
        preprocessor = VolumePreprocessor.from_dict(contract["preprocessor"])
    else:
        mean = np.load(folder / PIXEL_MEAN) if PIXEL_MEAN in contract["files"] else None
        preprocessor = Preprocessor.from_dict(contract["preprocessor"], mean)
    told["limits"] = Limits(**told["limits"])
    told["labels"] = {int(value): name for value, name in told["labels"].items()}
    return ImageReader(preprocessor, **told)


def amend(folder: Path, **more: Any) -> None:
    """Add to the contract of a folder; hashes become those of the files as they are now."""
    contract = read_json(folder / CONTRACT) | more
    contract["files"] = {name: sha256_file(folder / name) for name in contract["files"]}
    write_json(folder / CONTRACT, contract)

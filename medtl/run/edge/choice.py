"""What a run predicts by: its exported graph, without torch, or its network."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from medtl.errors import WeightsError
from medtl.run.files import RunFiles
from medtl.storage.atomic import sha256_file

if TYPE_CHECKING:
    from medtl.prediction.sink import Model


def model_of(files: RunFiles, network: Callable[[], Model]) -> Model:
    """Return what a run predicts by: its exported graph if there is one, else its network.

    Args:
        files: Of a run, or of an exported folder.
        network: Reads the network; asked where there is no graph.

    Raises:
        WeightsError: When the graph is damaged, or of another checkpoint than the run has now.
    """
    for place in (files, RunFiles(files.portable)):
        if place.contract.is_file():
            from medtl.prediction.portable import read_portable

            found = read_portable(place.folder)
            best = files.best
            if best.is_file() and sha256_file(best) != found.meta["checkpoint_sha256"]:
                raise WeightsError(
                    "the exported graph is of another checkpoint",
                    where=place.folder.name,
                    fix="Export again: medtl export RUN --onnx",
                )
            return found
    return network()

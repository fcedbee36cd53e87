"""What goes with a network that leaves the lab: its contract, thresholds, card and licence."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medtl import __version__
from medtl.prediction.portable import FORMAT, PIXEL_MEAN
from medtl.run.files import RunFiles
from medtl.storage.atomic import sha256_file, write_json, write_text

if TYPE_CHECKING:
    from medtl.prediction.sink import TrainedModel
    from medtl.run.folder import Run

KEPT = ("measures", "operating_points", "recalibrations", "unmended")
"""Of `metrics.json`: how the run did, its frozen thresholds, and what mends its probabilities."""

STATUS = "Research use only. Not a medical device."


def write_contract(
    trained: TrainedModel[Any, Any],
    run: Run,
    folder: Path,
    told: Mapping[str, Any],
    names: Sequence[str] = (),
) -> None:
    """Write how files become the network's input, and what its outputs mean.

    Args:
        trained: The run's best model.
        run: The run.
        folder: Where to.
        told: `windows` and `decode`, as `medtl.run.edge.graph` says them, and what else there is.
        names: Files of the folder that the contract vouches for.
    """
    preprocessor, reader = trained.reader.require_images(), trained.reader
    names = [*names]
    if preprocessor.pixel_mean is not None:
        np.save(folder / PIXEL_MEAN, preprocessor.pixel_mean)
        names.append(PIXEL_MEAN)
    fields = ("voi", "color", "dimensions", "labels", "overlapping", "at_least")
    contract = {
        "format": FORMAT,
        "made_by": f"medtl {__version__}",
        "status": STATUS,
        "task": dict(trained.task.to_dict()),
        "preprocessor": preprocessor.to_dict(),
        "reader": {name: getattr(reader, name) for name in fields}
        | {"limits": asdict(reader.limits)},
        "columns": asdict(trained.columns),
        **told,
        "profile": trained.meta["profile"],
        "manifest_sha256": trained.meta["manifest_sha256"],
        "checkpoint_sha256": sha256_file(run.files.best),
        "recipe": trained.meta["recipe"],
        "smaller": None,
        "files": {name: sha256_file(folder / name) for name in names},
    }
    write_json(RunFiles(folder).contract, contract)


def write_papers(
    trained: TrainedModel[Any, Any], run: Run, folder: Path, metrics: Mapping[str, Any]
) -> None:
    """Write measures with frozen thresholds, the card and the licence."""
    write_json(RunFiles(folder).metrics, {key: metrics[key] for key in KEPT if key in metrics})
    for name in ("model_card.md", "model_card.json"):
        if (run.path / name).is_file():
            shutil.copy(run.path / name, folder / name)
    write_text(folder / "LICENSE.md", _licence(trained))


def _licence(trained: TrainedModel[Any, Any]) -> str:
    """What may be done with the folder, as far as it is known."""
    model = trained.recipe.model
    stated = "not stated"
    if model.weights.source == "none":
        stated = "none: the training began from random weights"
    elif trained.reader.dimensions == 2:
        from timm.models import get_pretrained_cfg

        found = get_pretrained_cfg(model.backbone, allow_unregistered=True)
        stated = str(getattr(found, "license", "") or "not stated")
    return (
        "# Licence\n\n"
        "The preprocessing and the program that reads this folder: Apache-2.0 (medtl).\n\n"
        f"The weights that the training began from ({model.backbone}, "
        f"{model.weights.source}): {stated}.\n\n"
        "The training images: what their owner allows; a model can be bound by it. State it here "
        "before you pass the folder on.\n\n"
        f"{STATUS}\n"
    )

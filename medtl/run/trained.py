"""A checkpoint as a model that is ready to predict, or to go on from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from medtl.cases.columns import Columns
from medtl.data.reader import ImageReader
from medtl.errors import WeightsError
from medtl.networks.zero_gamma import Removal, remove
from medtl.prediction.committee import Committee
from medtl.prediction.sink import TrainedModel
from medtl.preprocess.feature_scaler import FeatureScaler
from medtl.preprocess.pipeline import Preprocessor
from medtl.preprocess.volume import VolumePreprocessor
from medtl.recipe.schema import Recipe, parse_recipe
from medtl.run.build import build_network, reader_around
from medtl.tasks.stored import read_task
from medtl.training.checkpoint import is_checkpoint, load_checkpoint, without_prefix

CONTRACT_KEYS = ("standardisation", "mean", "std", "input_range", "channels")
"""What of the preprocessing belongs to weights; size and intensity scale may change."""


def load_trained(
    path: Path, *, backbone: Callable[[], Any] | None = None
) -> TrainedModel[Any, Any]:
    """Build the model of a checkpoint with its own preprocessing. It takes no loss to predict.

    Args:
        path: `best.safetensors` of a run.
        backbone: The object that the run's backbone was, if it was given in Python.

    Raises:
        RunError: When it was, and is not given again.
        WeightsError: When the checkpoint is damaged, or does not fit the network it names.
    """
    tensors, meta = load_checkpoint(path)
    recipe = parse_recipe(meta["recipe"], where=path.name)
    task = read_task(meta["task"], recipe.task.loss)
    no_weights = recipe.model.model_copy(
        update={"weights": recipe.model.weights.random, "given": backbone}
    )
    untrained = recipe.model_copy(update={"model": no_weights})
    members = meta.get("members", [meta])
    stored = meta["preprocessor"]
    width = task.inputs.width + stored.get("features", 0)
    networks = []
    for member in members:
        network, _ = build_network(untrained, task.outputs, extra=width)
        for removal in member.get("removed") or ():
            remove(network, Removal(**removal))
        networks.append(network)
    model = Committee(networks) if "members" in meta else networks[0]
    try:
        model.load_state_dict(without_prefix("model", tensors))
    except RuntimeError as error:
        raise WeightsError(
            "the tensors do not fit the network that the checkpoint names",
            expected=f"{recipe.model.backbone} with {task.outputs} outputs",
            where=path.name,
            fix="Use the timm version of environment.json",
        ) from error
    arrays = {n: t.numpy() for n, t in without_prefix("extra", tensors).items()}
    preprocessor: Preprocessor | VolumePreprocessor | FeatureScaler
    if recipe.model.is_of_features:
        preprocessor = FeatureScaler.from_dict(stored, arrays.get("moments"))
    elif recipe.image.spacing is not None:
        preprocessor = VolumePreprocessor.from_dict(stored)
    else:
        preprocessor = Preprocessor.from_dict(stored, arrays.get("pixel_mean"))
    return TrainedModel(
        model,
        task,
        reader_around(recipe, preprocessor, None),
        Columns.of(dict(recipe.data)),
        recipe.run.device,
        recipe.run.precision,
        recipe,
        meta,
    )


def check_contract(recipe: Recipe, reader: ImageReader) -> None:
    """Refuse to go on from one of our checkpoints with an input it was not trained on.

    Raises:
        WeightsError: With every difference in mean, std, range, channels and standardisation.
    """
    path = recipe.model.weights.path
    if not isinstance(reader.preprocessor, Preprocessor):  # no pretrained volumes: no contract
        return
    if path is None or not is_checkpoint(Path(path)):
        return
    trained = load_checkpoint(Path(path))[1]["preprocessor"]
    fixed = {key: trained[key] for key in CONTRACT_KEYS}
    reader.preprocessor.require_contract(fixed, where=Path(path).name)

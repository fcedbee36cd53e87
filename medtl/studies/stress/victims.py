"""A trained model as something that can be attacked, and the network that it started from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medtl.data.store import ImageStore
from medtl.errors import MedtlError
from medtl.losses.adversarial import Attack
from medtl.prediction.sink import TrainedModel
from medtl.preprocess.affine import Affine
from medtl.run.build import build_network
from medtl.studies.stress.attacks import feature_distance, frozen
from medtl.studies.stress.corruptions import AlteredStore, Unit
from medtl.types import Case

ATTACK_BATCH = 16
"""Images whose gradients are taken together."""

Loss = Callable[[Tensor, slice], Callable[[Tensor], Tensor]]
"""From images and their places among the cases to what the attack raises."""


@dataclass(frozen=True)
class Victim:
    """A model, the images of one shape, their truths, and its differentiable standardisation.

    Attributes:
        trained: The model; its weights ask for no gradient.
        store: The images.
        rows: `(n,)` rows of the store.
        targets: `(n, ...)` as the task's loss takes them.
        inputs: `(n, E)` numbers that join the features.
        affine: The standardisation.
        shape: `(C, *S)` of the images.
    """

    trained: TrainedModel[Any, Any]
    store: ImageStore
    rows: tuple[int, ...]
    targets: Tensor
    inputs: Tensor
    affine: Affine
    shape: tuple[int, ...]

    @classmethod
    def of(
        cls, trained: TrainedModel[Any, Any], cases: Sequence[Case], store: ImageStore
    ) -> Victim:
        """Return a model's images as the attacker sees them.

        Raises:
            MedtlError: When images differ in shape, or the standardisation is no affine one.
        """
        rows = tuple(int(row) for row in store.rows(cases))
        shapes = {store.units.shapes[row] for row in rows}
        if len(shapes) > 1:
            raise MedtlError(f"the images have {len(shapes)} shapes", expected="one shape")
        (shape,) = shapes
        if trained.task.encode is None:
            targets = torch.as_tensor(trained.task.certain_targets(cases))
        else:
            targets = torch.stack([torch.from_numpy(np.array(store.mask(row))) for row in rows])
        affine = Affine.of(trained.reader.preprocessor.standardise, shape)
        frozen(trained.model)
        inputs = torch.as_tensor(trained.task.inputs(cases))
        return cls(trained, store, rows, targets, inputs, affine, shape)

    def attacked(self, loss: Loss, attack: Attack, mask: Tensor | None = None) -> ImageStore:
        """Return the images after an attack."""
        changed: dict[int, Unit] = {}
        for start in range(0, len(self.rows), ATTACK_BATCH):
            place = slice(start, start + ATTACK_BATCH)
            rows = self.rows[place]
            units = torch.stack([torch.from_numpy(self.store.unit(row)) for row in rows])
            found = attack(units, loss(units, place), mask)
            changed |= dict(zip(rows, found.numpy(), strict=True))
        store = self.store
        return AlteredStore(store.case_ids, store.units, store.masks, alter=changed.get)

    def own_loss(self, _units: Tensor, place: slice) -> Callable[[Tensor], Tensor]:
        """The model's own loss at the truth: the attacker knows the weights and the label."""
        targets, inputs = self.targets[place], self.inputs[place]

        def loss(units: Tensor) -> Tensor:
            given = (self.affine(units), inputs) if inputs.shape[-1] else (self.affine(units),)
            found: Tensor = self.trained.task.loss(self.trained.model(*given), targets)
            return found * len(units)

        return loss

    def feature_loss(
        self, start: Callable[[Tensor], Tensor], units: Tensor, _place: slice
    ) -> Callable[[Tensor], Tensor]:
        """The distance of the start network's features: neither weights nor label are known."""
        return feature_distance(start, self.affine, units)


def start_network(trained: TrainedModel[Any, Any]) -> Callable[[Tensor], Tensor] | str:
    """Return the features of the network that the run started from, or why there are none."""
    recipe = trained.recipe
    if recipe.model.weights.source != "bundled":
        return f"model.weights is {recipe.model.weights.source}, which no outsider need have"
    network, _ = build_network(recipe, trained.task.outputs, extra=trained.task.inputs.width)
    if not hasattr(network, "features"):
        return "the network has no pooled features"
    frozen(network)
    features: Callable[[Tensor], Tensor] = network.features
    return features

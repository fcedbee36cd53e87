"""What training lowers, as a function of the network and one batch.

A learning method is one file beside this one: a frozen value that is called with the network and a
batch. It may call the network as often as it needs; torch's generators are seeded for the batch, so
what it draws is the same again in a repeated or resumed run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from medtl.data.batches import Batch
from medtl.errors import RunError
from medtl.losses.adversarial import AdversarialTraining
from medtl.losses.distillation import Distillation, agreement
from medtl.losses.mixing import Mix
from medtl.losses.mixmatch import MixMatch, sharpened, soft_loss, squared_error
from medtl.losses.penalty import Penalty
from medtl.losses.self_training import SelfTraining, guessed_loss
from medtl.preprocess.affine import Affine

Forward = Callable[[Tensor, Tensor], Tensor]
"""Images `(B, C, *S)` and the numbers that join their features `(B, E)` -> outputs, float32."""

SHOWN_CASES = 8
"""Of the cases in a batch whose loss is not finite."""


class Lowered(NamedTuple):
    """What is lowered, and what else the history says of it.

    Attributes:
        loss: A scalar, the mean over the cases of a batch.
        parts: Name in the history -> a scalar, the mean over the same cases.
    """

    loss: Tensor
    parts: Mapping[str, Tensor]


class Objective(Protocol):
    """The loss of one batch: a scalar, the mean over its cases, alone or with its parts.

    One that takes what frozen layers made of images for images says `takes_stored = True`.
    """

    def __call__(self, network: Forward, batch: Batch, /) -> Tensor | Lowered:
        """Return the loss of a batch on the network's device."""
        ...


def lowered(found: Tensor | Lowered) -> Lowered:
    """Return what an objective returned, with its parts."""
    return found if isinstance(found, Lowered) else Lowered(found, {})


@dataclass(frozen=True)
class Supervised:
    """The loss of the outputs against the targets.

    Attributes:
        loss: Outputs and targets `(B, ...)` -> scalar; it leaves out targets that are not known.
    """

    loss: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, network: Forward, batch: Batch, /) -> Tensor:
        """Return the loss of a batch."""
        return self.loss(network(batch.images, batch.inputs), batch.targets)


@dataclass(frozen=True)
class Mixed:
    """The loss of mixtures of two images against both of their targets, in the same shares.

    Attributes:
        loss: As of `Supervised`.
        mix: What is mixed, and how.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    mix: Mix

    def __call__(self, network: Forward, batch: Batch, /) -> Tensor:
        """Return the loss of a batch whose images were mixed with each other."""
        images, order, share = self.mix(batch.images)
        outputs = network(images, share * batch.inputs + (1 - share) * batch.inputs[order])
        first, second = self.loss(outputs, batch.targets), self.loss(outputs, batch.targets[order])
        return share * first + (1 - share) * second


@dataclass(frozen=True)
class Distilled:
    """The loss against the targets and against what a teacher says of the same cases.

    Attributes:
        loss: As of `Supervised`.
        distillation: How the two are compared, and their shares.
        teacher: `(n, K)` logits of the training cases in their order; NaN where there are none.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    distillation: Distillation
    teacher: Tensor
    takes_stored: ClassVar[bool] = True

    def __call__(self, network: Forward, batch: Batch, /) -> Lowered:
        """Return the loss of a batch, both of its parts, and how often the two agree."""
        outputs, exclusive = network(batch.images, batch.inputs), batch.targets.ndim == 1
        teacher = self.teacher[batch.places.cpu()].to(outputs.device)
        own = self.loss(outputs, batch.targets)
        taught = self.distillation(outputs, teacher, exclusive=exclusive)
        share = self.distillation.weight
        parts = {"label_loss": own.detach(), "teacher_loss": taught.detach()}
        parts["teacher_agreement"] = agreement(outputs.detach(), teacher, exclusive=exclusive)
        return Lowered((1 - share) * own + share * taught, parts)


@dataclass(frozen=True)
class SelfTrained:
    """The loss against the targets, and against sure answers for images without any.

    All go through the network together, so that batch norm that adapts sees both kinds.

    Attributes:
        loss: As of `Supervised`.
        method: Which answers are sure; of the views of an image the first is answered and the last
            is learned.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    method: SelfTraining

    def __call__(self, network: Forward, batch: Batch, /) -> Lowered:
        """Return the loss of a batch, both of its parts, and the share of sure answers."""
        cases, views = len(batch.images), batch.unlabelled.flatten(0, 1)
        images = torch.cat([batch.images, views.transpose(0, 1).flatten(0, 1)])
        nothing = batch.inputs.new_zeros(len(images), 0)
        outputs = network(images, nothing)
        own = self.loss(outputs[:cases], batch.targets)
        answered = outputs[cases:].reshape(views.shape[1], len(views), -1)
        exclusive = batch.targets.ndim == 1
        guessed, sure = guessed_loss(
            answered[-1], answered[0], self.method.threshold, exclusive=exclusive
        )
        parts = {"label_loss": own, "unlabelled_loss": guessed, "sure_answers": sure}
        parts = {name: value.detach() for name, value in parts.items()}
        return Lowered(own + self.method.weight * guessed, parts)


@dataclass(frozen=True)
class MixMatched:
    """The loss of labelled mixtures, and the squared error of mixtures without labels.

    Attributes:
        loss: As of `Supervised`; of a mixture it takes the labelled image's own share.
        method: How answers are sharpened, and shares drawn.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    method: MixMatch

    def __call__(self, network: Forward, batch: Batch, /) -> Lowered:
        """Return the loss of a batch and both of its parts."""
        cases, exclusive = len(batch.images), batch.targets.ndim == 1
        views = batch.unlabelled.flatten(0, 1).transpose(0, 1)  # (V, N, C, *S)
        images = torch.cat([batch.images, views.flatten(0, 1)])
        nothing = batch.inputs.new_zeros(len(images), 0)
        with torch.no_grad():
            seen = network(images[cases:], nothing[cases:]).reshape(*views.shape[:2], -1)
        answers = sharpened(seen, self.method.temperature, exclusive=exclusive)
        own = _as_shares(batch.targets, answers.shape[-1]) if exclusive else batch.targets
        targets = torch.cat([own, answers.repeat(len(views), 1)])
        alpha = float(self.method.alpha)
        drawn = float(torch.distributions.Beta(alpha, alpha).sample())
        share = max(drawn, 1 - drawn)
        order = torch.randperm(len(images), device="cpu").to(images.device)
        outputs = network(share * images + (1 - share) * images[order], nothing)
        other = soft_loss(outputs[:cases], targets[order][:cases], exclusive=exclusive)
        labelled = share * self.loss(outputs[:cases], batch.targets) + (1 - share) * other
        mixed = (share * targets + (1 - share) * targets[order])[cases:]
        guessed = squared_error(outputs[cases:], mixed, exclusive=exclusive)
        parts = {"label_loss": labelled.detach(), "unlabelled_loss": guessed.detach()}
        return Lowered(labelled + self.method.weight * guessed, parts)


def _as_shares(classes: Tensor, count: int) -> Tensor:
    """Classes `(B,)`, NaN where not known, as probabilities `(B, count)`."""
    known = ~torch.isnan(classes)
    one_hot = functional.one_hot(torch.where(known, classes, 0.0).long(), count).float()
    return torch.where(known[:, None], one_hot, torch.nan)


@dataclass(frozen=True)
class Attacked:
    """The loss of images that were changed, within a bound, so that it is as large as can be.

    Attributes:
        loss: As of `Supervised`.
        method: The bound, how the change is found, and the share of the changed images.
        affine: The standardisation of the images; the bound is on what came before it.
        channels: Of the images before it.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    method: AdversarialTraining
    affine: Affine
    channels: int

    def __call__(self, network: Forward, batch: Batch, /) -> Lowered:
        """Return the loss of the batch as it is and attacked, and both of its parts."""

        def loss(units: Tensor) -> Tensor:
            return self.loss(network(self.affine(units), batch.inputs), batch.targets)

        attack = self.method.attack(seed=int(torch.randint(2**31, ())))
        units = self.affine.undone(batch.images, self.channels)
        both = torch.cat([units, attack(units, loss)])
        inputs = batch.inputs.repeat(2, 1)
        outputs = network(self.affine(both), inputs).chunk(2)
        own, attacked = (self.loss(part, batch.targets) for part in outputs)
        share = self.method.weight
        parts = {"label_loss": own.detach(), "attacked_loss": attacked.detach()}
        return Lowered((1 - share) * own + share * attacked, parts)


@dataclass(frozen=True)
class Penalised:
    """Another objective, and a penalty on the size of weights.

    Attributes:
        objective: The other objective.
        weights: What is penalised.
        penalty: How.
    """

    objective: Objective
    weights: Sequence[nn.Parameter]
    penalty: Penalty

    def __call__(self, network: Forward, batch: Batch, /) -> Lowered:
        """Return the loss of a batch with the penalty."""
        found = lowered(self.objective(network, batch))
        return found._replace(loss=found.loss + self.penalty(self.weights))


def require_finite(loss: Tensor, stage: str, epoch: int, cases: Sequence[str]) -> None:
    """Stop at the first loss that is not finite, naming the cases.

    Args:
        loss: Of one batch.
        stage: Name of the stage.
        epoch: Counted from 0 over all stages, as in the history; said from 1, as all epochs are.
        cases: In the batch.

    Raises:
        RunError: With the cases.
    """
    if not bool(torch.isfinite(loss)):
        raise RunError(
            f"the loss is not finite in stage {stage!r}, epoch {epoch + 1}",
            where=f"cases {', '.join(cases[:SHOWN_CASES])}",
            fix="Lower the learning rate, or look at these cases",
        )

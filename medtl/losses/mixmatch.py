"""Learning from images without labels by mixing them with each other and with labelled ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from medtl.losses.known import mean_over_known
from medtl.losses.self_training import SelfTraining
from medtl.types import Count, Positive

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class MixMatch:
    """Learning from images without labels: sharpened mean answers, mixed with everything else.

    Two weak views of each image without a label are answered; the mean answer, sharpened, stands
    for both. Labelled and unlabelled views are mixed with each other in random pairs (mixup), each
    with more of itself than of the other.

    Attributes:
        unlabelled: Manifest of the images, with patients and without targets; relative to the
            recipe.
        ratio: Of them for each labelled image of a batch.
        temperature: Below 1 sharpens the mean answer; 1 leaves it.
        alpha: Of the shares of a mixture, Beta(alpha, alpha), > 0.
        weight: Of the squared error of unlabelled mixtures beside the loss of labelled ones, > 0.

    Reference:
        Berthelot et al., "MixMatch", NeurIPS 2019, algorithm 1 and equations 2 to 8.

    Example:
        >>> MixMatch("films.csv").views
        2
    """

    unlabelled: str
    ratio: Count = 1
    temperature: Positive = 0.5
    alpha: Positive = 0.75
    weight: Positive = 5.0
    method: Literal["mixmatch"] = field(default="mixmatch", repr=False, kw_only=True)

    views: ClassVar[int] = 2
    """Weak views of each image."""

    @property
    def numbers(self) -> dict[str, float]:
        """What the record of a run says of it."""
        return {"temperature": self.temperature, "alpha": self.alpha, "weight": self.weight}


FromUnlabelled = SelfTraining | MixMatch
"""Ways of learning from images without labels."""


def sharpened(outputs: Tensor, temperature: float, *, exclusive: bool) -> Tensor:
    """Return the mean answer of several views, made surer.

    Args:
        outputs: `(V, N, K)` logits of V views.
        temperature: T: probabilities are raised to 1 / T and made to add up to 1.
        exclusive: Whether the outputs are classes of which one holds, or findings.

    Returns:
        `(N, K)` probabilities, without a gradient.

    Example:
        >>> import torch
        >>> sharpened(torch.tensor([[[0.0, 1.0986]]]), 0.5, exclusive=True).round(decimals=2)
        tensor([[0.1000, 0.9000]])
    """
    import torch

    outputs = outputs.detach()
    if exclusive:
        power = outputs.softmax(dim=-1).mean(dim=0) ** (1 / temperature)
        return power / power.sum(dim=-1, keepdim=True)
    present = outputs.sigmoid().mean(dim=0)
    both = torch.stack([present, 1 - present]) ** (1 / temperature)
    return both[0] / both.sum(dim=0)


def soft_loss(outputs: Tensor, targets: Tensor, *, exclusive: bool) -> Tensor:
    """Return the cross-entropy against probabilities, the mean over the known ones.

    Args:
        outputs: `(B, K)` logits.
        targets: `(B, K)` probabilities, NaN where not known.
        exclusive: As for `sharpened`.

    Example:
        >>> import torch
        >>> targets = torch.tensor([[0.5, 0.5], [torch.nan, torch.nan]])
        >>> round(float(soft_loss(torch.zeros(2, 2), targets, exclusive=True)), 4)  # log 2
        0.6931
    """
    import torch
    from torch.nn import functional

    known = ~torch.isnan(targets)
    filled = torch.where(known, targets, 0.0)
    if exclusive:
        each = -(filled * functional.log_softmax(outputs, dim=-1)).sum(dim=-1)
        return mean_over_known(each, known.all(dim=-1))
    each = functional.binary_cross_entropy_with_logits(outputs, filled, reduction="none")
    return mean_over_known(each, known)


def squared_error(outputs: Tensor, targets: Tensor, *, exclusive: bool) -> Tensor:
    """Return the squared error of probabilities, the mean over the known ones.

    It is bounded, so that a wrong guess does less harm than in a cross-entropy.

    Args:
        outputs: `(B, K)` logits.
        targets: `(B, K)` probabilities, NaN where not known.
        exclusive: As for `sharpened`.

    Example:
        >>> import torch
        >>> float(squared_error(torch.zeros(1, 1), torch.tensor([[1.0]]), exclusive=False))
        0.25
    """
    import torch

    known = ~torch.isnan(targets)
    said = outputs.softmax(dim=-1) if exclusive else outputs.sigmoid()
    return mean_over_known((said - torch.where(known, targets, 0.0)) ** 2, known)

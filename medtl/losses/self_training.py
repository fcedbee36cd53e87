"""Learning from images without labels: what the network is sure of becomes a label for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from medtl.types import Count, Fraction, Positive

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SelfTraining:
    """Learning from images without labels, whose labels are what the network is sure of.

    `method: pseudo_label` answers a view of an image and learns that view; `method: fixmatch`
    answers a weak view, moved and turned alone, and learns a strong one of the same image.

    Attributes:
        method: Which view is learned.
        unlabelled: Manifest of the images, with patients and without targets; relative to the
            recipe.
        ratio: Of them for each labelled image of a batch; 1 to 7 is usual.
        threshold: Least probability, in [0, 1], of an answer that becomes a label.
        weight: Of their loss beside that of the labelled images, > 0.

    Reference:
        Sohn et al., "FixMatch", NeurIPS 2020, equations 3 and 4; Lee, "Pseudo-label", ICML workshop
        2013, with a threshold in place of a weight that grows (Sohn et al., section 4).

    Example:
        >>> SelfTraining("fixmatch", "films.csv").views, SelfTraining("pseudo_label", "f.csv").views
        (2, 1)
    """

    method: Literal["pseudo_label", "fixmatch"]
    unlabelled: str
    ratio: Count = 2
    threshold: Fraction = 0.95
    weight: Positive = 1.0

    @property
    def views(self) -> int:
        """Views of each image: the first is answered, the last learned."""
        return 2 if self.method == "fixmatch" else 1

    @property
    def numbers(self) -> dict[str, float]:
        """What the record of a run says of it."""
        return {"threshold": self.threshold, "weight": self.weight}


def guessed_loss(
    outputs: Tensor, seen: Tensor, threshold: float, *, exclusive: bool
) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy against sure answers, and the share of answers that are sure.

    What is not sure adds nothing, and counts in the mean: with few sure answers the loss is small.

    Args:
        outputs: `(N, K)` logits for the view that is learned.
        seen: `(N, K)` logits for the view that is answered; no gradient goes through them.
        threshold: Least probability of a sure answer.
        exclusive: Whether the outputs are classes of which one holds (a softmax), or findings (a
            sigmoid each).

    Example:
        >>> import torch
        >>> answers = torch.tensor([[9.0, 0.0], [0.1, 0.0]])
        >>> loss, sure = guessed_loss(torch.zeros(2, 2), answers, 0.95, exclusive=True)
        >>> round(float(loss), 4), float(sure)  # half of log 2
        (0.3466, 0.5)
    """
    from torch.nn import functional

    seen = seen.detach()
    if exclusive:
        surest, answers = seen.softmax(dim=-1).max(dim=-1)
        each = functional.cross_entropy(outputs, answers, reduction="none")
    else:
        present = seen.sigmoid()
        surest, answers = present.maximum(1 - present), (present > 0.5).to(outputs.dtype)
        each = functional.binary_cross_entropy_with_logits(outputs, answers, reduction="none")
    sure = (surest >= threshold).to(outputs.dtype)
    return (each * sure).mean(), sure.mean()

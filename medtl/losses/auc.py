"""A loss for the ranking itself: the area under the ROC curve, made smooth."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PairwiseLogistic:
    """Mean of `softplus(-(s_positive - s_negative))` over all pairs of the batch.

    An upper bound, over log 2, of the share of pairs in the wrong order (1 - AUROC). Convex in the
    scores, and plain gradient descent minimises it; min-max surrogates (AUCM) need ascent on one of
    their parameters.

    It says nothing about the level of the scores: what comes out are ranks, no probabilities, until
    they are recalibrated. It learns from a batch only where that holds both kinds: take large
    batches for a rare finding. Classes are taken one against the rest.

    Reference:
        Gao and Zhou, "On the consistency of AUC pairwise optimization", IJCAI 2015, logistic loss.

    Example:
        >>> import torch
        >>> truth = torch.tensor([[1.0], [0.0]])
        >>> scores = torch.tensor([[3.0], [0.0]])
        >>> round(float(PairwiseLogistic()(scores, truth)), 4)  # log(1 + exp(-3))
        0.0486
    """

    name: Literal["pairwise_logistic"] = field(
        default="pairwise_logistic", repr=False, kw_only=True
    )

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over the findings that have a pair; 0 with a gradient of 0 without one.

        Args:
            outputs: `(B, K)` scores on any scale.
            targets: `(B, K)` in [0, 1], above 0.5 is positive, or `(B,)` class indices; NaN where
                the truth is not known.
        """
        import torch
        from torch.nn import functional

        if targets.ndim == 1:
            classes = torch.arange(outputs.shape[1], device=outputs.device)
            one_hot = (targets[:, None] == classes).to(outputs.dtype)
            targets = torch.where(torch.isnan(targets)[:, None], torch.nan, one_hot)
        means = []
        for scores, truth in zip(outputs.T, targets.T, strict=True):
            positive, negative = scores[truth > 0.5], scores[truth < 0.5]  # both are false for NaN
            if len(positive) and len(negative):
                means.append(functional.softplus(negative[None] - positive[:, None]).mean())
        return torch.stack(means).mean() if means else 0 * outputs.sum()

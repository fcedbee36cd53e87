"""A loss for the ranking itself: the area under the ROC curve, made smooth.

B batch, K findings. It says nothing about the level of the scores: sigmoids of networks trained by
it are not probabilities and must be recalibrated.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from medtl.losses.known import mean_over_known


def pairwise_logistic(logits_BK: Tensor, targets_BK: Tensor) -> Tensor:
    """Return the mean of `softplus(-(s_positive - s_negative))` over all pairs of the batch.

    An upper bound, over log 2, of the share of pairs in the wrong order (1 - AUROC). Convex in the
    scores, and plain gradient descent minimises it; min-max surrogates (AUCM) need ascent on one of
    their parameters.

    Args:
        logits_BK: `(B, K)` scores on any scale.
        targets_BK: `(B, K)` in [0, 1], above 0.5 is positive; NaN where the truth is not known.

    Returns:
        Scalar: the mean over the findings that have a pair; 0 with a gradient of 0 when none has.

    Reference:
        Gao and Zhou, "On the consistency of AUC pairwise optimization", IJCAI 2015, logistic loss.
    """
    positive, negative = targets_BK > 0.5, targets_BK < 0.5  # both are false for NaN
    pairs_BBK = positive[:, None] & negative[None]
    loss_BBK = functional.softplus(logits_BK[None] - logits_BK[:, None])
    number_K = pairs_BBK.sum(dim=(0, 1))
    mean_K = torch.where(pairs_BBK, loss_BBK, 0.0).sum(dim=(0, 1)) / number_K.clamp(min=1)
    return mean_over_known(mean_K, number_K > 0)

"""Classification losses on logits, with unknown targets masked before the loss.

B batch, K findings or classes. Targets are float; NaN means "not known" and contributes neither to
the value nor to the gradient. Reductions are means over what is known, so that the effective
learning rate does not depend on the number of classes or of blanks.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def masked_bce(
    logits_BK: Tensor,
    targets_BK: Tensor,
    *,
    pos_weight_K: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the mean binary cross-entropy over the known targets.

    Args:
        logits_BK: `(B, K)`.
        targets_BK: `(B, K)` in [0, 1]; NaN where the truth is not known.
        pos_weight_K: `(K,)` weight of the positive term, N_neg / N_pos to balance a finding. It
            shifts calibration by log(weight) on the logit scale.
        label_smoothing: Target becomes `y * (1 - eps) + eps / 2`; 0 <= eps < 0.5.

    Returns:
        Scalar; 0 with a gradient of 0 when nothing is known.
    """
    known = ~torch.isnan(targets_BK)
    # Replacing before the loss, not multiplying after it: NaN * 0 has a NaN gradient.
    targets = torch.where(known, targets_BK, 0.0) * (1 - label_smoothing) + label_smoothing / 2
    loss = functional.binary_cross_entropy_with_logits(
        logits_BK, targets, pos_weight=pos_weight_K, reduction="none"
    )
    return _mean_over(loss, known)


def sigmoid_focal(
    logits_BK: Tensor,
    targets_BK: Tensor,
    *,
    gamma: float = 2.0,
    alpha: float | Tensor | None = None,
) -> Tensor:
    """Return the mean sigmoid focal loss over the known targets.

    Args:
        logits_BK: `(B, K)`.
        targets_BK: `(B, K)` of 0 and 1; NaN where the truth is not known.
        gamma: Focusing exponent, >= 0; 0 gives cross-entropy.
        alpha: Weight of the positive term (1 - alpha of the negative), one for all or `(K,)`, or
            None for no weights.

    Returns:
        Scalar; 0 with a gradient of 0 when nothing is known.

    Reference:
        Lin et al., "Focal loss for dense object detection", ICCV 2017, equation 5.
    """
    known = ~torch.isnan(targets_BK)
    targets = torch.where(known, targets_BK, 0.0)
    cross_entropy = functional.binary_cross_entropy_with_logits(
        logits_BK, targets, reduction="none"
    )
    # 1 - p_t from the logit of the wrong side: exact where exp(-cross_entropy) would round to 1.
    missed = torch.sigmoid(torch.where(targets > 0.5, -logits_BK, logits_BK))
    loss = missed.pow(gamma) * cross_entropy
    if alpha is not None:
        loss = loss * torch.where(targets > 0.5, alpha, 1 - alpha)
    return _mean_over(loss, known)


def masked_cross_entropy(
    logits_BK: Tensor,
    classes_B: Tensor,
    *,
    class_weight_K: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the mean cross-entropy over the cases whose class is known.

    Args:
        logits_BK: `(B, K)`.
        classes_B: `(B,)` class indices as float; NaN where the class is not known.
        class_weight_K: `(K,)` weight of each class. The mean is over cases, not over weights, so
            that a weight counts the same in every batch (torch divides by the batch's weights).
        label_smoothing: Mass spread evenly over all K classes (torch's convention).

    Returns:
        Scalar; 0 with a gradient of 0 when nothing is known.
    """
    known = ~torch.isnan(classes_B)
    classes = torch.where(known, classes_B, 0.0).long()
    loss = functional.cross_entropy(
        logits_BK, classes, reduction="none", label_smoothing=label_smoothing
    )
    if class_weight_K is not None:
        loss = loss * class_weight_K[classes]
    return _mean_over(loss, known)


def softmax_focal(
    logits_BK: Tensor,
    classes_B: Tensor,
    *,
    gamma: float = 2.0,
    class_weight_K: Tensor | None = None,
) -> Tensor:
    """Return the mean softmax focal loss over the cases whose class is known.

    The mean is over cases; MONAI and kornia divide by the number of classes as well, which makes
    the effective learning rate depend on it.

    Args:
        logits_BK: `(B, K)`.
        classes_B: `(B,)` class indices as float; NaN where the class is not known.
        gamma: Focusing exponent, >= 0; 0 gives cross-entropy.
        class_weight_K: `(K,)`, the vector form of alpha.

    Reference:
        Lin et al. 2017, equation 5, with p_t the softmax probability of the true class.
    """
    known = ~torch.isnan(classes_B)
    classes = torch.where(known, classes_B, 0.0).long()
    cross_entropy = functional.cross_entropy(logits_BK, classes, reduction="none")
    loss = (-torch.expm1(-cross_entropy)).pow(gamma) * cross_entropy
    if class_weight_K is not None:
        loss = loss * class_weight_K[classes]
    return _mean_over(loss, known)


def _mean_over(loss: Tensor, known: Tensor) -> Tensor:
    """Mean of the known entries; 0 that still carries a gradient when there is none."""
    return torch.where(known, loss, 0.0).sum() / known.sum().clamp(min=1)

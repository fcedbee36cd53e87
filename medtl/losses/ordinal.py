"""Ordinal losses: a quantity as ordered classes that lie at known distances from each other.

B batch, K classes, T = K - 1 thresholds between neighbours. `values_K` are the classes' values,
ascending, in one unit (years, months); targets are in the same unit and need not be on the grid.
The class of a target is the nearest one. NaN means "not known" and contributes neither to the value
nor to the gradient. All losses are means over the known cases.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from medtl.losses.known import mean_over_known

Decoding = Literal["argmax", "mean", "median"]
"""How a distribution over classes becomes one value."""


def distance_penalised_cross_entropy(
    logits_BK: Tensor, targets_B: Tensor, values_K: Tensor, *, strength: float
) -> Tensor:
    """Return the mean of `-log p_y + strength * sum_j p_j d_j`.

    `d_j` is the squared distance of class j from the target over the squared range of the values,
    so that `strength` means the same for yearly and for monthly classes: with index distances the
    penalty of 228 monthly classes starts at 800 times the cross-entropy. The penalty is the squared
    error of the mean plus the variance; it cannot move mass that is far off and confident, because
    its gradient vanishes with p, so the cross-entropy must be there.

    Args:
        logits_BK: `(B, K)`.
        targets_B: `(B,)` in the unit of the values.
        values_K: `(K,)` ascending.
        strength: Lambda, >= 0; uniform probabilities cost between 1/12 and 1/3 of it.

    Reference:
        CS231n 2016 report 310, with the distance normalised. Gradient with respect to a logit:
        `p_k - 1[k = y] + strength * p_k * (d_k - sum_j p_j d_j)`.
    """
    known, targets = _known_targets(targets_B)
    spread = values_K[-1] - values_K[0]
    distance_BK = ((values_K - targets[:, None]) / spread).square()
    penalty_B = (torch.softmax(logits_BK, dim=1) * distance_BK).sum(dim=1)
    loss = _cross_entropy(logits_BK, targets, values_K) + strength * penalty_B
    return mean_over_known(loss, known)


def expected_value_loss(
    logits_BK: Tensor, targets_B: Tensor, values_K: Tensor, *, strength: float = 1.0
) -> Tensor:
    """Return the mean of `-log p_y + strength * |E_p[value] - target|`.

    Args:
        logits_BK: `(B, K)`.
        targets_B: `(B,)` in the unit of the values.
        values_K: `(K,)` ascending.
        strength: Weight of the absolute error, per unit of the values.

    Reference:
        Rothe, Timofte and Van Gool, "DEX: deep expectation of apparent age", ICCV Workshops 2015,
        for the first term and decoding by the mean; the absolute error of the mean is added here.
    """
    known, targets = _known_targets(targets_B)
    expected_B = torch.softmax(logits_BK, dim=1) @ values_K
    loss = _cross_entropy(logits_BK, targets, values_K) + strength * (expected_B - targets).abs()
    return mean_over_known(loss, known)


def mean_variance(
    logits_BK: Tensor,
    targets_B: Tensor,
    values_K: Tensor,
    *,
    mean_strength: float = 0.2,
    variance_strength: float = 0.05,
) -> Tensor:
    """Return the mean of `-log p_y + a * (E_p[value] - target)^2 / 2 + b * Var_p[value]`.

    Args:
        logits_BK: `(B, K)`.
        targets_B: `(B,)` in the unit of the values.
        values_K: `(K,)` ascending; the default strengths are those of the paper, for years.
        mean_strength: a, per squared unit of the values.
        variance_strength: b, per squared unit of the values.

    Reference:
        Pan et al., "Mean-variance loss for deep age estimation from a face", CVPR 2018,
        the mean loss and the variance loss with their lambda_1 = 0.2 and lambda_2 = 0.05.
    """
    known, targets = _known_targets(targets_B)
    p_BK = torch.softmax(logits_BK, dim=1)
    mean_B = p_BK @ values_K
    variance_B = (p_BK * (values_K - mean_B[:, None]).square()).sum(dim=1)
    loss = _cross_entropy(logits_BK, targets, values_K)
    loss = loss + mean_strength / 2 * (mean_B - targets).square() + variance_strength * variance_B
    return mean_over_known(loss, known)


def label_distribution(
    logits_BK: Tensor, targets_B: Tensor, values_K: Tensor, *, sd: float
) -> Tensor:
    """Return the mean divergence KL(q || p) from a Gaussian q around the target.

    q is proportional to `exp(-(value - target)^2 / (2 sd^2))` on the classes; 0 is reached when p
    equals q.

    Args:
        logits_BK: `(B, K)`.
        targets_B: `(B,)` in the unit of the values.
        values_K: `(K,)` ascending.
        sd: SD of a reader, in the unit of the values, > 0.

    Reference:
        Gao et al., "Deep label distribution learning with label ambiguity", IEEE Trans Image
        Process 2017;26:2825, the Gaussian label distribution of age estimation.
    """
    known, targets = _known_targets(targets_B)
    log_q_BK = torch.log_softmax(-((values_K - targets[:, None]) / sd).square() / 2, dim=1)
    log_p_BK = torch.log_softmax(logits_BK, dim=1)
    loss = (log_q_BK.exp() * (log_q_BK - log_p_BK)).sum(dim=1)
    return mean_over_known(loss, known)


def coral(logits_BT: Tensor, targets_B: Tensor, values_K: Tensor) -> Tensor:
    """Return the mean over cases of the summed binary cross-entropies "above class k".

    Rank-consistent only with a head that shares its weights and has one bias per threshold.

    Args:
        logits_BT: `(B, K - 1)`: logit of "above class k", k = 0 ... K - 2.
        targets_B: `(B,)` in the unit of the values.
        values_K: `(K,)` ascending.

    Reference:
        Cao, Mirjalili and Raschka, "Rank consistent ordinal regression for neural networks",
        Pattern Recognition Letters 2020;140:325, with all task weights 1.
    """
    known, targets = _known_targets(targets_B)
    above_BT = _classes_above(targets, values_K)[0].to(logits_BT.dtype)
    loss = functional.binary_cross_entropy_with_logits(logits_BT, above_BT, reduction="none")
    return mean_over_known(loss.sum(dim=1), known)


def corn(logits_BT: Tensor, targets_B: Tensor, values_K: Tensor) -> Tensor:
    """Return the mean binary cross-entropy of "above class k, given above class k - 1".

    Threshold k learns from the cases above class k - 1 only; the mean is over all cases and
    thresholds that count.

    Args:
        logits_BT: `(B, K - 1)` conditional logits.
        targets_B: `(B,)` in the unit of the values.
        values_K: `(K,)` ascending.

    Reference:
        Shi, Cao and Raschka, "Deep neural networks for rank-consistent ordinal regression based on
        conditional probabilities", Pattern Analysis and Applications 2023;26:941.
    """
    known, targets = _known_targets(targets_B)
    above_BT, counts_BT = _classes_above(targets, values_K)
    loss = functional.binary_cross_entropy_with_logits(
        logits_BT, above_BT.to(logits_BT.dtype), reduction="none"
    )
    return mean_over_known(loss, counts_BT & known[:, None])


def coral_probabilities(logits_BT: Tensor) -> Tensor:
    """Return the class probabilities `(B, K)` of CORAL's logits."""
    return _probabilities_between(torch.sigmoid(logits_BT))


def corn_probabilities(logits_BT: Tensor) -> Tensor:
    """Return the class probabilities `(B, K)` of CORN's conditional logits."""
    return _probabilities_between(torch.sigmoid(logits_BT).cumprod(dim=1))


def decode_values(p_BK: Tensor, values_K: Tensor, decoding: Decoding) -> Tensor:
    """Return one value per case, `(B,)`, in the unit of the values.

    "argmax" is the value of the most probable class, "mean" the expected value (least squared
    error), "median" the value below which half of the probability lies (least absolute error), each
    class spread evenly between the midpoints to its neighbours.

    Args:
        p_BK: `(B, K)` probabilities that sum to 1.
        values_K: `(K,)` ascending, K >= 2.
        decoding: Which of the three.
    """
    if decoding == "argmax":
        return values_K[p_BK.argmax(dim=1)]
    if decoding == "mean":
        return p_BK @ values_K
    middles = (values_K[1:] + values_K[:-1]) / 2
    # The outermost classes reach as far outwards as inwards.
    first, last = 2 * values_K[:1] - middles[:1], 2 * values_K[-1:] - middles[-1:]
    edges = torch.cat((first, middles, last))
    up_to_BK = p_BK.cumsum(dim=1)
    half = (up_to_BK < 0.5).sum(dim=1, keepdim=True).clamp(max=len(values_K) - 1)
    p = p_BK.gather(1, half)[:, 0]
    missing = 0.5 - (up_to_BK.gather(1, half)[:, 0] - p)
    k = half[:, 0]
    return edges[k] + missing / p * (edges[k + 1] - edges[k])


def _known_targets(targets_B: Tensor) -> tuple[Tensor, Tensor]:
    """Which targets are known, and the targets with 0 in place of the unknown ones."""
    known = ~torch.isnan(targets_B)
    return known, torch.where(known, targets_B, 0.0)


def _nearest_class(targets_B: Tensor, values_K: Tensor) -> Tensor:
    """Index of the class nearest to each target, `(B,)`; the lower one of two."""
    return (values_K - targets_B[:, None]).abs().argmin(dim=1)


def _cross_entropy(logits_BK: Tensor, targets_B: Tensor, values_K: Tensor) -> Tensor:
    """Cross-entropy of each case, `(B,)`."""
    classes_B = _nearest_class(targets_B, values_K)
    return functional.cross_entropy(logits_BK, classes_B, reduction="none")


def _classes_above(targets_B: Tensor, values_K: Tensor) -> tuple[Tensor, Tensor]:
    """Whether each target is above class k, and whether it is above class k - 1, `(B, T)`."""
    classes_B1 = _nearest_class(targets_B, values_K)[:, None]
    thresholds_T = torch.arange(len(values_K) - 1, device=values_K.device)
    return classes_B1 > thresholds_T, classes_B1 >= thresholds_T


def _probabilities_between(above_BT: Tensor) -> Tensor:
    """Class probabilities of the probabilities of being above each class, made to descend."""
    above_BT = above_BT.cummin(dim=1).values
    ends = torch.ones_like(above_BT[:, :1])
    return torch.cat((ends, above_BT), dim=1) - torch.cat((above_BT, 0 * ends), dim=1)

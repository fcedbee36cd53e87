"""Ordinal losses: a quantity as ordered classes that lie at known distances from each other.

B batch, K classes, T = K - 1 thresholds between neighbours. `values` `(K,)` are the classes'
values, ascending, in one unit (years for bone age); targets `(B,)` are in the same unit and need
not be on the grid. The class of a target is the nearest one. NaN means "not known" and contributes
neither to the value nor to the gradient. All losses are means over the known cases.

`head` says what the outputs of a loss stand for: how many there are, how they become probabilities
of the classes, and what an image-blind head would say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from medtl.losses.known import known_targets, mean_over_known
from medtl.types import NotNegative, Positive

if TYPE_CHECKING:
    from torch import Tensor

Decoding = Literal["argmax", "mean", "median"]
"""How a distribution over classes becomes one value."""


@dataclass(frozen=True)
class Head:
    """The outputs of an ordinal loss.

    Attributes:
        probabilities: `(B, outputs)` logits -> `(B, K)` probabilities of the classes.
        bias: `(K,)` counts of the classes, none 0 -> `(outputs,)` logits that say the same.
        thresholds: Whether an output stands for a threshold ("above class k"), not for a class.
        shared: Whether all outputs share their weights and differ in their bias alone.
    """

    probabilities: Callable[[Tensor], Tensor]
    bias: Callable[[NDArray[np.floating]], NDArray[np.floating]]
    thresholds: bool = False
    shared: bool = False


def coral_probabilities(logits_BT: Tensor) -> Tensor:
    """Return the class probabilities `(B, K)` of CORAL's logits.

    Example:
        >>> import torch
        >>> coral_probabilities(torch.tensor([[0.0, -30.0]])).round(decimals=3)
        tensor([[0.5000, 0.5000, 0.0000]])
    """
    return _probabilities_between(logits_BT.sigmoid())


def corn_probabilities(logits_BT: Tensor) -> Tensor:
    """Return the class probabilities `(B, K)` of CORN's conditional logits.

    Example:
        >>> import torch
        >>> corn_probabilities(torch.zeros(1, 2))
        tensor([[0.5000, 0.2500, 0.2500]])
    """
    return _probabilities_between(logits_BT.sigmoid().cumprod(dim=1))


def _softmax(logits_BK: Tensor) -> Tensor:
    """Class probabilities of logits, one per class."""
    return logits_BK.softmax(dim=1)


def _log_shares(counts: NDArray[np.floating]) -> NDArray[np.floating]:
    """Logits whose softmax is the share of each class."""
    return np.asarray(np.log(counts / counts.sum()))


def _log_odds_above(counts: NDArray[np.floating]) -> NDArray[np.floating]:
    """Log odds of "above class k" against "not above it"."""
    up_to = counts.cumsum()[:-1]
    return np.asarray(np.log((counts.sum() - up_to) / up_to))


def _log_odds_above_if_reached(counts: NDArray[np.floating]) -> NDArray[np.floating]:
    """Log odds of "above class k" against "class k"."""
    return np.asarray(np.log((counts.sum() - counts.cumsum())[:-1] / counts[:-1]))


CLASSES = Head(_softmax, _log_shares)
"""One output per class."""

CORAL = Head(coral_probabilities, _log_odds_above, thresholds=True, shared=True)
"""Logits of "above class k"."""

CORN = Head(corn_probabilities, _log_odds_above_if_reached, thresholds=True)
"""Logits of "above class k, given above class k - 1"."""


@dataclass(frozen=True)
class DistancePenalisedCrossEntropy:
    """`-log p_y + lambda * sum_j p_j d_j`.

    `d_j` is the squared distance of class j from the target over the squared range of the values,
    so that lambda means the same for yearly and for monthly classes: with index distances the
    penalty of 228 monthly classes starts at 800 times the cross-entropy. The penalty is the squared
    error of the mean plus the variance; it cannot move mass that is far off and confident, because
    its gradient vanishes with p, so the cross-entropy must be there.

    Attributes:
        distance_strength: Lambda, >= 0; uniform probabilities cost between 1/12 and 1/3 of it.

    Reference:
        CS231n 2016 report 310, with the distance normalised. Gradient with respect to a logit:
        `p_k - 1[k = y] + lambda * p_k * (d_k - sum_j p_j d_j)`.

    Example:
        >>> import torch
        >>> loss = DistancePenalisedCrossEntropy(2.0)  # log(3) + 2 (0 + 1/4 + 1) / 3
        >>> round(float(loss(torch.zeros(1, 3), torch.zeros(1), torch.tensor([0.0, 1.0, 2.0]))), 4)
        1.9319
    """

    distance_strength: NotNegative = 100.0
    name: Literal["dpce"] = field(default="dpce", repr=False, kw_only=True)
    head: ClassVar[Head] = CLASSES

    def __call__(self, outputs: Tensor, targets: Tensor, values: Tensor) -> Tensor:
        """Return the mean over the known targets.

        Args:
            outputs: `(B, K)` logits.
            targets: `(B,)` in the unit of the values.
            values: `(K,)` ascending.
        """
        known, targets = known_targets(targets)
        spread = values[-1] - values[0]
        distance_BK = ((values - targets[:, None]) / spread).square()
        penalty_B = (outputs.softmax(dim=1) * distance_BK).sum(dim=1)
        loss = _cross_entropy(outputs, targets, values) + self.distance_strength * penalty_B
        return mean_over_known(loss, known)


@dataclass(frozen=True)
class ExpectedValue:
    """`-log p_y + strength * |E_p[value] - target|`.

    Attributes:
        strength: Weight of the absolute error, per unit of the values, >= 0.

    Reference:
        Rothe, Timofte and Van Gool, "DEX: deep expectation of apparent age", ICCV Workshops 2015,
        for the first term and decoding by the mean; the absolute error of the mean is added here.

    Example:
        >>> import torch
        >>> loss = ExpectedValue(strength=0.5)  # log(3) + |1 - 0| / 2
        >>> round(float(loss(torch.zeros(1, 3), torch.zeros(1), torch.tensor([0.0, 1.0, 2.0]))), 4)
        1.5986
    """

    strength: NotNegative = 1.0
    name: Literal["dex"] = field(default="dex", repr=False, kw_only=True)
    head: ClassVar[Head] = CLASSES

    def __call__(self, outputs: Tensor, targets: Tensor, values: Tensor) -> Tensor:
        """Return the mean over the known targets; `Args` as for `DistancePenalisedCrossEntropy`."""
        known, targets = known_targets(targets)
        expected_B = outputs.softmax(dim=1) @ values
        errors_B = (expected_B - targets).abs()
        loss = _cross_entropy(outputs, targets, values) + self.strength * errors_B
        return mean_over_known(loss, known)


@dataclass(frozen=True)
class MeanVariance:
    """`-log p_y + a * (E_p[value] - target)^2 / 2 + b * Var_p[value]`.

    Attributes:
        mean_strength: a, per squared unit of the values, >= 0; the defaults are those of the paper,
            for years.
        variance_strength: b, per squared unit of the values, >= 0.

    Reference:
        Pan et al., "Mean-variance loss for deep age estimation from a face", CVPR 2018,
        the mean loss and the variance loss with their lambda_1 = 0.2 and lambda_2 = 0.05.

    Example:
        >>> import torch
        >>> loss = MeanVariance()  # log(3) + 0.2 / 2 * 1 + 0.05 * 2 / 3
        >>> round(float(loss(torch.zeros(1, 3), torch.zeros(1), torch.tensor([0.0, 1.0, 2.0]))), 4)
        1.2319
    """

    mean_strength: NotNegative = 0.2
    variance_strength: NotNegative = 0.05
    name: Literal["mean_variance"] = field(default="mean_variance", repr=False, kw_only=True)
    head: ClassVar[Head] = CLASSES

    def __call__(self, outputs: Tensor, targets: Tensor, values: Tensor) -> Tensor:
        """Return the mean over the known targets; `Args` as for `DistancePenalisedCrossEntropy`."""
        known, targets = known_targets(targets)
        p_BK = outputs.softmax(dim=1)
        mean_B = p_BK @ values
        variance_B = (p_BK * (values - mean_B[:, None]).square()).sum(dim=1)
        loss = _cross_entropy(outputs, targets, values)
        loss = loss + self.mean_strength / 2 * (mean_B - targets).square()
        return mean_over_known(loss + self.variance_strength * variance_B, known)


@dataclass(frozen=True)
class LabelDistribution:
    """Divergence KL(q || p) from a Gaussian q around the target; 0 when p equals q.

    q is proportional to `exp(-(value - target)^2 / (2 sd^2))` on the classes.

    Attributes:
        sd: SD of a reader, in the unit of the values (years for bone age), > 0.

    Reference:
        Gao et al., "Deep label distribution learning with label ambiguity", IEEE Trans Image
        Process 2017;26:2825, the Gaussian label distribution of age estimation.

    Example:
        >>> import torch
        >>> values = torch.tensor([0.0, 1.0, 2.0])
        >>> best = -(values - 1).square()[None] / 2  # the logits of q itself
        >>> abs(round(float(LabelDistribution(sd=1.0)(best, torch.ones(1), values)), 4))
        0.0
    """

    sd: Positive = 1.0
    name: Literal["label_distribution"] = field(
        default="label_distribution", repr=False, kw_only=True
    )
    head: ClassVar[Head] = CLASSES

    def __call__(self, outputs: Tensor, targets: Tensor, values: Tensor) -> Tensor:
        """Return the mean over the known targets; `Args` as for `DistancePenalisedCrossEntropy`."""
        known, targets = known_targets(targets)
        log_q_BK = (-((values - targets[:, None]) / self.sd).square() / 2).log_softmax(dim=1)
        log_p_BK = outputs.log_softmax(dim=1)
        loss = (log_q_BK.exp() * (log_q_BK - log_p_BK)).sum(dim=1)
        return mean_over_known(loss, known)


@dataclass(frozen=True)
class Coral:
    """Summed binary cross-entropies of "above class k".

    Rank-consistent only with a head that shares its weights and has one bias per threshold.

    Reference:
        Cao, Mirjalili and Raschka, "Rank consistent ordinal regression for neural networks",
        Pattern Recognition Letters 2020;140:325, with all task weights 1.

    Example:
        >>> import torch
        >>> values = torch.tensor([0.0, 1.0, 2.0])  # two thresholds, log(2) each
        >>> round(float(Coral()(torch.zeros(1, 2), torch.ones(1), values)), 4)
        1.3863
    """

    name: Literal["coral"] = field(default="coral", repr=False, kw_only=True)
    head: ClassVar[Head] = CORAL

    def __call__(self, outputs: Tensor, targets: Tensor, values: Tensor) -> Tensor:
        """Return the mean over the known targets.

        Args:
            outputs: `(B, K - 1)`: logit of "above class k", k = 0 ... K - 2.
            targets: `(B,)` in the unit of the values.
            values: `(K,)` ascending.
        """
        from torch.nn import functional

        known, targets = known_targets(targets)
        above_BT = _classes_above(targets, values)[0].to(outputs.dtype)
        loss = functional.binary_cross_entropy_with_logits(outputs, above_BT, reduction="none")
        return mean_over_known(loss.sum(dim=1), known)


@dataclass(frozen=True)
class Corn:
    """Binary cross-entropy of "above class k, given above class k - 1".

    Threshold k learns from the cases above class k - 1 only; the mean is over all cases and
    thresholds that count.

    Reference:
        Shi, Cao and Raschka, "Deep neural networks for rank-consistent ordinal regression based on
        conditional probabilities", Pattern Analysis and Applications 2023;26:941.

    Example:
        >>> import torch
        >>> values = torch.tensor([0.0, 1.0, 2.0])
        >>> round(float(Corn()(torch.zeros(1, 2), torch.ones(1), values)), 4)
        0.6931
    """

    name: Literal["corn"] = field(default="corn", repr=False, kw_only=True)
    head: ClassVar[Head] = CORN

    def __call__(self, outputs: Tensor, targets: Tensor, values: Tensor) -> Tensor:
        """Return the mean over the known targets; `Args` as for `Coral`, conditional logits."""
        from torch.nn import functional

        known, targets = known_targets(targets)
        above_BT, counts_BT = _classes_above(targets, values)
        loss = functional.binary_cross_entropy_with_logits(
            outputs, above_BT.to(outputs.dtype), reduction="none"
        )
        return mean_over_known(loss, counts_BT & known[:, None])


def decode_values(p_BK: Tensor, values_K: Tensor, decoding: Decoding) -> Tensor:
    """Return one value per case, `(B,)`, in the unit of the values.

    "argmax" is the value of the most probable class, "mean" the expected value (least squared
    error), "median" the value below which half of the probability lies (least absolute error), each
    class spread evenly between the midpoints to its neighbours.

    Args:
        p_BK: `(B, K)` probabilities that sum to 1.
        values_K: `(K,)` ascending, K >= 2.
        decoding: Which of the three.

    Example:
        >>> import torch
        >>> p, values = torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([0.0, 12.0, 24.0])
        >>> [round(float(decode_values(p, values, d)), 3) for d in ("argmax", "mean", "median")]
        [0.0, 8.4, 6.0]
    """
    import torch

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


def _nearest_class(targets_B: Tensor, values_K: Tensor) -> Tensor:
    """Index of the class nearest to each target, `(B,)`; the lower one of two."""
    return (values_K - targets_B[:, None]).abs().argmin(dim=1)


def _cross_entropy(logits_BK: Tensor, targets_B: Tensor, values_K: Tensor) -> Tensor:
    """Cross-entropy of each case, `(B,)`."""
    from torch.nn import functional

    classes_B = _nearest_class(targets_B, values_K)
    return functional.cross_entropy(logits_BK, classes_B, reduction="none")


def _classes_above(targets_B: Tensor, values_K: Tensor) -> tuple[Tensor, Tensor]:
    """Whether each target is above class k, and whether it is above class k - 1, `(B, T)`."""
    import torch

    classes_B1 = _nearest_class(targets_B, values_K)[:, None]
    thresholds_T = torch.arange(len(values_K) - 1, device=values_K.device)
    return classes_B1 > thresholds_T, classes_B1 >= thresholds_T


def _probabilities_between(above_BT: Tensor) -> Tensor:
    """Class probabilities of the probabilities of being above each class, made to descend."""
    import torch

    above_BT = above_BT.cummin(dim=1).values
    ends = torch.ones_like(above_BT[:, :1])
    return torch.cat((ends, above_BT), dim=1) - torch.cat((above_BT, 0 * ends), dim=1)

"""Cross-entropy and focal loss of findings, of classes, and of the pixels of masks.

B batch, K findings or classes, S spatial axes. The shapes say which is meant:

* outputs `(B, K)`, targets `(B, K)` in [0, 1]: findings, a sigmoid each;
* outputs `(B, K)`, targets `(B,)` class indices as float: a softmax over the classes;
* outputs `(B, K, *S)`, masks `(B, K, *S)` or `(B, *S)`: the same two, every pixel a case.

NaN in targets and `IGNORE` in masks mean "not known" and contribute neither to the value nor to the
gradient; nothing known is 0 with a gradient of 0. The mean is over what is known (cases or pixels,
not over class weights, classes or blanks), so that the effective learning rate depends on none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from medtl.losses.known import by_pixel, known_targets, mean_over_known
from medtl.types import Fraction, NotNegative

if TYPE_CHECKING:
    from torch import Tensor


Smoothing = Annotated[float, Field(ge=0.0, lt=0.5)]

_LEAST_MISSED = 1e-30
"""Probability missed by a certain answer; smaller ones are rounding."""


def smoothed(targets: Tensor, eps: float, classes: int) -> Tensor:
    """Return targets of which a share `eps` is spread evenly over the classes.

    Reference:
        Szegedy et al., "Rethinking the Inception architecture", CVPR 2016, section 7.

    Example:
        >>> import torch
        >>> smoothed(torch.tensor([1.0, 0.0]), 0.2, 2)
        tensor([0.9000, 0.1000])
    """
    return targets * (1 - eps) + eps / classes


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy.

    Attributes:
        label_smoothing: eps, 0 <= eps < 0.5: the target of a finding becomes y (1 - eps) + eps / 2;
            of classes, eps is spread evenly over all K (torch's convention).

    Example:
        >>> import torch
        >>> loss = CrossEntropy()
        >>> round(float(loss(torch.tensor([[0.0, 5.0]]), torch.tensor([[1.0, torch.nan]]))), 4)
        0.6931
        >>> round(float(loss(torch.zeros(1, 4), torch.tensor([2.0]))), 4)
        1.3863
    """

    label_smoothing: Smoothing = 0.0
    name: Literal["cross_entropy"] = field(default="cross_entropy", repr=False, kw_only=True)

    def __call__(self, outputs: Tensor, targets: Tensor, *, weight: Tensor | None = None) -> Tensor:
        """Return the mean over what is known.

        Args:
            outputs: Logits.
            targets: As at the top of this file.
            weight: `(K,)` of each class; of findings that of the positive term, N_neg / N_pos to
                balance one, which shifts calibration by log(weight) on the logit scale.
        """
        from torch.nn import functional

        if outputs.ndim > 2:
            outputs, targets = by_pixel(outputs, targets)
        known, targets = known_targets(targets)
        if targets.ndim == 2:
            loss = functional.binary_cross_entropy_with_logits(
                outputs,
                smoothed(targets, self.label_smoothing, 2),
                pos_weight=weight,
                reduction="none",
            )
            return mean_over_known(loss, known)
        classes = targets.long()
        loss = functional.cross_entropy(
            outputs, classes, reduction="none", label_smoothing=self.label_smoothing
        )
        # Not torch's own weights: it divides by those of the batch, which undoes them there.
        return mean_over_known(loss if weight is None else loss * weight[classes], known)


@dataclass(frozen=True)
class Focal:
    """Focal loss: cross-entropy that counts what is nearly right for less.

    MONAI and kornia divide the softmax form by the number of classes as well; here the mean is over
    cases.

    Attributes:
        gamma: Focusing exponent, >= 0; 0 gives cross-entropy.
        alpha: Weight in [0, 1] of what is positive (1 - alpha of what is not; of class 0 for a
            softmax), one for all or one for each output. Small for rare structures: gamma favours
            them already. None for no weights.
        label_smoothing: As for `CrossEntropy`. A target that is in part one class and in part
            another has the focal loss of each for its part.

    Reference:
        Lin et al., "Focal loss for dense object detection", ICCV 2017, equation 5; for a softmax
        p_t is the probability of the true class, and smoothed targets are those of Keras'
        CategoricalFocalCrossentropy.

    Example:
        >>> import torch
        >>> float(Focal(gamma=2.0)(torch.tensor([[0.0]]), torch.tensor([[1.0]])))  # log(2) / 4
        0.1732867956161499
    """

    gamma: NotNegative = 2.0
    alpha: Fraction | tuple[float, ...] | None = None
    label_smoothing: Smoothing = 0.0
    name: Literal["focal"] = field(default="focal", repr=False, kw_only=True)

    def __call__(self, outputs: Tensor, targets: Tensor, *, weight: Tensor | None = None) -> Tensor:
        """Return the mean over what is known.

        Args:
            outputs: Logits.
            targets: As at the top of this file.
            weight: `(K,)` of each class of a softmax, in place of alpha.
        """
        import torch
        from torch.nn import functional

        if outputs.ndim > 2:
            outputs, targets = by_pixel(outputs, targets)
        known, targets = known_targets(targets)
        alpha = self.alpha
        if targets.ndim == 2:
            targets = smoothed(targets, self.label_smoothing, 2)
            bce = functional.binary_cross_entropy_with_logits
            both = (torch.ones_like(targets), targets), (torch.zeros_like(targets), 1 - targets)
            loss = torch.zeros_like(outputs)
            for truth, share in both:  # a soft target is in part either
                # 1 - p_t from the logit of the wrong side: exact where exp(-loss) would round to 1.
                missed = torch.sigmoid(torch.where(truth > 0.5, -outputs, outputs))
                one = self._focused(missed) * bce(outputs, truth, reduction="none")
                if alpha is not None:
                    on_positive = outputs.new_tensor(alpha)
                    one = one * torch.where(truth > 0.5, on_positive, 1 - on_positive)
                loss = loss + share * one
            return mean_over_known(loss, known)
        if weight is None and alpha is not None:
            if isinstance(alpha, float | int):
                alpha = (1 - alpha, *(alpha,) * (outputs.shape[1] - 1))
            weight = outputs.new_tensor(alpha)
        classes = targets.long()
        if self.label_smoothing:
            one_hot = functional.one_hot(classes, outputs.shape[1]).to(outputs.dtype)
            share = smoothed(one_hot, self.label_smoothing, outputs.shape[1])
            each = -outputs.log_softmax(dim=1)
            each = share * self._focused(-torch.expm1(-each)) * each
            return mean_over_known((each if weight is None else each * weight).sum(dim=1), known)
        loss = functional.cross_entropy(outputs, classes, reduction="none")
        loss = self._focused(-torch.expm1(-loss)) * loss
        return mean_over_known(loss if weight is None else loss * weight[classes], known)

    def _focused(self, missed: Tensor) -> Tensor:
        """(1 - p_t)^gamma; below 1 its slope at 0 is infinite, and times 0 that is no number."""
        return missed.clamp_min(_LEAST_MISSED).pow(self.gamma)

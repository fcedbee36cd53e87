"""Segmentation losses on logits: the Dice family, alone and with cross-entropy or focal loss.

B cases, K outputs, S spatial axes; outputs are `(B, K, *S)`. Masks are class indices `(B, *S)` when
the structures exclude each other (softmax; output 0 is the background), or 0 and 1 per structure
`(B, K, *S)` when they may overlap (sigmoid): the shape says which. A pixel of value `IGNORE` counts
nowhere, neither in value nor in gradient. `CrossEntropy` and `Focal` take masks as well.

`overlap_sums` reads logits and masks once; the whole Dice family is a formula on its three sums.
They are ours rather than MONAI's because MONAI's know no pixels to ignore, give an empty mask a
gradient that first explodes and then vanishes (smoothing 1e-5), and divide the softmax focal loss
by the number of classes. Where the definitions agree, the tests hold ours against MONAI's.

Empty masks: with `smooth` = 1 the Dice loss of an absent structure is 1 - 1 / (sum(p) + 1): 0 when
nothing is predicted, and with a slope that training can use. `per="batch"` adds up the cases of a
batch first, so that a structure is absent only when no case of the batch has it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from medtl.losses.cross_entropy import CrossEntropy, Focal
from medtl.losses.known import IGNORE
from medtl.types import Fraction, NotNegative, Positive

if TYPE_CHECKING:
    from torch import Tensor

STEEPEST = 1e-4
"""Distance from perfect below which a Tversky exponent no longer acts: x^0.75 has slope 7.5."""

Per = Literal["case", "batch"]
"""What the sums of the Dice family go over."""


class Sums(NamedTuple):
    """Over the known pixels of each case and structure, each `(B, K)`.

    Attributes:
        both: sum(p g).
        predicted: sum(p), or sum(p^2).
        true: sum(g), in pixels.
    """

    both: Tensor
    predicted: Tensor
    true: Tensor


def overlap_sums(
    outputs: Tensor,
    masks: Tensor,
    *,
    per: Per = "case",
    background: bool = False,
    squared: bool = False,
) -> Sums:
    """Return what the Dice family is made of, in float32 also under mixed precision.

    Args:
        outputs: `(B, K, *S)` logits.
        masks: `(B, *S)` class indices, or `(B, K, *S)` of 0 and 1; `IGNORE` where not known.
        per: "case", or "batch" to take the whole batch as one case.
        background: Whether class 0 of exclusive structures counts as a structure.
        squared: Sum p^2 rather than p, for V-Net's denominator.

    Example:
        >>> import torch
        >>> sums = overlap_sums(torch.zeros(1, 1, 4), torch.tensor([[[1, 1, 0, IGNORE]]]))
        >>> [float(part) for part in sums]
        [1.0, 1.5, 2.0]
    """
    import torch
    from torch.nn import functional

    logits = outputs.float().flatten(2)
    if masks.ndim < outputs.ndim:
        scores = torch.softmax(logits, dim=1)
        known = (masks != IGNORE).flatten(1)[:, None]
        classes = torch.where(masks == IGNORE, 0, masks).long().flatten(1)
        truth = functional.one_hot(classes, logits.shape[1]).movedim(-1, 1).float()
        if not background:
            scores, truth = scores[:, 1:], truth[:, 1:]
    else:
        scores = torch.sigmoid(logits)
        known = (masks != IGNORE).flatten(2)
        truth = masks.flatten(2).float()
    scores, truth = torch.where(known, scores, 0.0), torch.where(known, truth, 0.0)
    size = scores.square() if squared else scores
    sums = Sums((scores * truth).sum(dim=2), size.sum(dim=2), truth.sum(dim=2))
    return sums if per == "case" else Sums(*(part.sum(dim=0, keepdim=True) for part in sums))


@dataclass(frozen=True)
class Dice:
    """Mean of 1 - (2 sum(pg) + smooth) / (sum(p) + sum(g) + smooth) over cases and structures.

    Attributes:
        per: Sums over each "case", or over the "batch".
        smooth: In pixels, > 0; see the top of this file.
        background: Whether class 0 of exclusive structures counts as a structure.

    Reference:
        Drozdzal et al., "The importance of skip connections", DLMIA 2016.

    Example:
        >>> import torch
        >>> loss = Dice()(torch.zeros(1, 1, 2), torch.tensor([[[1, 0]]]))
        >>> round(float(loss), 4)  # 1 - (1 + 1) / (1 + 1 + 1)
        0.3333
    """

    per: Per = "case"
    smooth: Positive = 1.0
    background: bool = False
    name: Literal["dice"] = field(default="dice", repr=False, kw_only=True)

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean.

        Args:
            outputs: `(B, K, *S)` logits.
            targets: Masks, as at the top of this file.
        """
        return _dice(self, outputs, targets, squared=False)


@dataclass(frozen=True)
class SquaredDice:
    """Dice with sum(p^2) in place of sum(p) below; fields and arguments as for `Dice`.

    Reference:
        Milletari et al., "V-Net", 3DV 2016, equation 2.

    Example:
        >>> import torch
        >>> round(float(SquaredDice()(torch.zeros(1, 1, 2), torch.tensor([[[1, 0]]]))), 4)
        0.2
    """

    per: Per = "case"
    smooth: Positive = 1.0
    background: bool = False
    name: Literal["dice_squared"] = field(default="dice_squared", repr=False, kw_only=True)

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean."""
        return _dice(self, outputs, targets, squared=True)


@dataclass(frozen=True)
class GeneralisedDice:
    """Mean of 1 - (2 sum_c w_c sum(pg) + s) / (sum_c w_c (sum(p) + sum(g)) + s) over the cases.

    The paper counts the background as a structure. An absent structure takes the largest weight of
    its case, as in MONAI, so that false alarms cost something; when nothing is present all weights
    are 1. Very small structures make the squared weights extreme: take "simple", or sums over the
    batch, for them.

    Attributes:
        per: Sums over each "case", or over the "batch".
        smooth: s, in pixels of the structure with the largest weight, > 0.
        background: Whether class 0 of exclusive structures counts as a structure.
        weight: Of a structure of n pixels: 1 / n^2 ("square", the paper's) or 1 / n ("simple").

    Reference:
        Sudre et al., "Generalised Dice overlap", DLMIA 2017, equation 2.

    Example:
        >>> import torch
        >>> loss = GeneralisedDice()(torch.zeros(1, 2, 3), torch.tensor([[0, 1, 1]]))
        >>> round(float(loss), 4)  # weights 1 and 1/4: 1 - (1 + 0.5 + 1) / (2.5 + 3.5 / 4 + 1)
        0.4286
    """

    per: Per = "case"
    smooth: Positive = 1.0
    background: bool = True
    weight: Literal["square", "simple"] = "square"
    name: Literal["generalised_dice"] = field(default="generalised_dice", repr=False, kw_only=True)

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean; arguments as for `Dice`."""
        import torch

        both, predicted, true = overlap_sums(
            outputs, targets, per=self.per, background=self.background
        )
        inverse = torch.where(true > 0, 1 / true.clamp(min=1), 0.0)
        weights = inverse.square() if self.weight == "square" else inverse
        largest = weights.amax(dim=1, keepdim=True)
        weights = torch.where(true > 0, weights, torch.where(largest > 0, largest, 1.0))
        # Relative to the largest weight, so that the smoothing means the same for any size.
        weights = weights / weights.amax(dim=1, keepdim=True)
        above = 2 * (weights * both).sum(dim=1) + self.smooth
        below = (weights * (predicted + true)).sum(dim=1) + self.smooth
        return (1 - above / below).mean()


@dataclass(frozen=True)
class Tversky:
    """Mean of 1 - T, T = (TP + s) / (TP + fp_weight FP + fn_weight FN + s).

    Weights of 0.5 give the Dice loss, with a smoothing of 2 s there. Papers and libraries disagree
    on which of alpha and beta is which, hence the names.

    Attributes:
        fp_weight: Of predicted pixels that are not of the structure, >= 0.
        fn_weight: Of its pixels that are not predicted, >= 0; the larger, the more sensitive.
        per: Sums over each "case", or over the "batch".
        smooth: s, in pixels, > 0.

    Reference:
        Salehi et al., "Tversky loss function", MLMI 2017, equation 3.

    Example:
        >>> import torch
        >>> mask = torch.tensor([[[1, 0]]])  # TP, FP and FN are a half: 1 - 1.5 / 2
        >>> round(float(Tversky()(torch.zeros(1, 1, 2), mask)), 4)
        0.25
    """

    fp_weight: NotNegative = 0.3
    fn_weight: NotNegative = 0.7
    per: Per = "case"
    smooth: Positive = 1.0
    name: Literal["tversky"] = field(default="tversky", repr=False, kw_only=True)

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean; arguments as for `Dice`."""
        return _missed(self, outputs, targets).mean()


@dataclass(frozen=True)
class FocalTversky:
    """Mean of (1 - T)^exponent, T as for `Tversky`.

    Attributes:
        exponent: > 0; 1 is Tversky. The paper writes 1 / gamma with gamma = 4/3, that is 0.75, and
            weighs up structures that are nearly right; above 1 weighs up those that are wrong.
            Below 1 the slope at T = 1 is infinite, and cut at `STEEPEST`.
        fp_weight, fn_weight, per, smooth: As for `Tversky`.

    Reference:
        Abraham and Khan, "A novel focal Tversky loss function", ISBI 2019, equation 4.

    Example:
        >>> import torch
        >>> loss = FocalTversky(exponent=0.5)  # the root of Tversky's 0.25
        >>> round(float(loss(torch.zeros(1, 1, 2), torch.tensor([[[1, 0]]]))), 4)
        0.5
    """

    exponent: Positive = 0.75
    fp_weight: NotNegative = 0.3
    fn_weight: NotNegative = 0.7
    per: Per = "case"
    smooth: Positive = 1.0
    name: Literal["focal_tversky"] = field(default="focal_tversky", repr=False, kw_only=True)

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean; arguments as for `Dice`."""
        missed = _missed(self, outputs, targets)
        if self.exponent == 1:
            return missed.mean()
        return missed.clamp(min=STEEPEST).pow(self.exponent).mean()


@dataclass(frozen=True)
class DiceCrossEntropy:
    """Sum of `Dice` and `CrossEntropy`, unweighted.

    Attributes:
        per, smooth: Of the Dice part.

    Reference:
        Isensee et al., "nnU-Net", Nat Methods 2021;18:203, its loss.

    Example:
        >>> import torch
        >>> outputs, mask = torch.zeros(1, 1, 2), torch.tensor([[[1, 0]]])
        >>> both = float(Dice()(outputs, mask) + CrossEntropy()(outputs, mask))
        >>> float(DiceCrossEntropy()(outputs, mask)) == both
        True
    """

    per: Per = "case"
    smooth: Positive = 1.0
    name: Literal["dice_cross_entropy"] = field(
        default="dice_cross_entropy", repr=False, kw_only=True
    )

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the sum; arguments as for `Dice`."""
        overlap = Dice(self.per, self.smooth)(outputs, targets)
        return overlap + CrossEntropy()(outputs, targets)


@dataclass(frozen=True)
class DiceFocal:
    """Sum of `Dice` and `Focal`, unweighted.

    Attributes:
        per, smooth: Of the Dice part.
        gamma, alpha: Of the focal part.

    Example:
        >>> import torch
        >>> outputs, mask = torch.zeros(1, 1, 2), torch.tensor([[[1, 0]]])
        >>> both = float(Dice()(outputs, mask) + Focal()(outputs, mask))
        >>> float(DiceFocal()(outputs, mask)) == both
        True
    """

    per: Per = "case"
    smooth: Positive = 1.0
    gamma: NotNegative = 2.0
    alpha: Fraction | tuple[float, ...] | None = None
    name: Literal["dice_focal"] = field(default="dice_focal", repr=False, kw_only=True)

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the sum; arguments as for `Dice`."""
        overlap = Dice(self.per, self.smooth)(outputs, targets)
        return overlap + Focal(self.gamma, self.alpha)(outputs, targets)


def _dice(loss: Dice | SquaredDice, outputs: Tensor, masks: Tensor, *, squared: bool) -> Tensor:
    """The mean Dice loss."""
    both, predicted, true = overlap_sums(
        outputs, masks, per=loss.per, background=loss.background, squared=squared
    )
    return (1 - (2 * both + loss.smooth) / (predicted + true + loss.smooth)).mean()


def _missed(loss: Tversky | FocalTversky, outputs: Tensor, masks: Tensor) -> Tensor:
    """1 - T of each case and structure."""
    both, predicted, true = overlap_sums(outputs, masks, per=loss.per)
    wrong = loss.fp_weight * (predicted - both) + loss.fn_weight * (true - both)
    return wrong / (both + wrong + loss.smooth)

"""Segmentation losses on logits: the Dice family, cross-entropy and focal, by pixel.

B cases, K outputs, S spatial axes. Masks are class indices `(B, *S)` when the structures exclude
each other (softmax; output 0 is the background), or 0 and 1 per structure `(B, K, *S)` when they
may overlap (sigmoid). A pixel of value `IGNORE` counts nowhere, neither in value nor in gradient.

`overlap_sums` reads logits and masks once; the whole Dice family is a formula on its three sums.
They are ours rather than MONAI's because MONAI's know no pixels to ignore, give an empty mask a
gradient that first explodes and then vanishes (smoothing 1e-5), and divide the softmax focal loss
by the number of classes. Where the definitions agree, the tests hold ours against MONAI's.

Empty masks: with `smooth` = 1 the Dice loss of an absent structure is 1 - 1 / (sum(p) + 1): 0 when
nothing is predicted, and with a slope that training can use. `per="batch"` adds up the cases of a
batch first, so that a structure is absent only when no case of the batch has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from medtl.losses.cross_entropy import (
    masked_bce,
    masked_cross_entropy,
    sigmoid_focal,
    softmax_focal,
)

IGNORE = 255
"""Value of a mask's pixel whose truth is not known."""

STEEPEST = 1e-4
"""Distance from perfect below which a Tversky exponent no longer acts: x^0.75 has slope 7.5."""


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
    logits_BKS: Tensor,
    masks: Tensor,
    *,
    exclusive: bool,
    per: Literal["case", "batch"] = "case",
    background: bool = False,
    squared: bool = False,
) -> Sums:
    """Return what the Dice family is made of, in float32 also under mixed precision.

    Args:
        logits_BKS: `(B, K, *S)`.
        masks: `(B, *S)` class indices, or `(B, K, *S)` of 0 and 1; `IGNORE` where not known.
        exclusive: Softmax over classes, or a sigmoid per structure.
        per: "case", or "batch" to take the whole batch as one case.
        background: Whether class 0 of exclusive structures counts as a structure.
        squared: Sum p^2 rather than p, for V-Net's denominator.
    """
    logits = logits_BKS.float().flatten(2)
    if exclusive:
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


def dice(sums: Sums, *, smooth: float = 1.0) -> Tensor:
    """Return the mean of 1 - (2 sum(pg) + smooth) / (sum(p) + sum(g) + smooth).

    Args:
        sums: Of cases and structures; squared ones give V-Net's loss.
        smooth: In pixels, > 0; see the top of this file.

    Reference:
        Milletari et al., "V-Net", 3DV 2016, equation 2 (squared); Drozdzal et al., DLMIA 2016.
    """
    both, predicted, true = sums
    return (1 - (2 * both + smooth) / (predicted + true + smooth)).mean()


def generalised_dice(
    sums: Sums, *, weight: Literal["square", "simple"] = "square", smooth: float = 1.0
) -> Tensor:
    """Return the mean of 1 - (2 sum_c w_c sum(pg) + s) / (sum_c w_c (sum(p) + sum(g)) + s).

    The paper counts the background as a structure. An absent structure takes the largest weight of
    its case, as in MONAI, so that false alarms cost something; when nothing is present all weights
    are 1. Very small structures make the squared weights extreme: take "simple", or sums over the
    batch, for them.

    Args:
        sums: Of cases and structures.
        weight: Of a structure of n pixels: 1 / n^2 ("square", the paper's) or 1 / n ("simple").
        smooth: s, in pixels of the structure with the largest weight.

    Reference:
        Sudre et al., "Generalised Dice overlap", DLMIA 2017, equation 2.
    """
    both, predicted, true = sums
    inverse = torch.where(true > 0, 1 / true.clamp(min=1), 0.0)
    weights = inverse.square() if weight == "square" else inverse
    largest = weights.amax(dim=1, keepdim=True)
    weights = torch.where(true > 0, weights, torch.where(largest > 0, largest, 1.0))
    # Relative to the largest weight, so that the smoothing means the same for any size.
    weights = weights / weights.amax(dim=1, keepdim=True)
    above = 2 * (weights * both).sum(dim=1) + smooth
    below = (weights * (predicted + true)).sum(dim=1) + smooth
    return (1 - above / below).mean()


def tversky(
    sums: Sums,
    *,
    fp_weight: float = 0.3,
    fn_weight: float = 0.7,
    exponent: float = 1.0,
    smooth: float = 1.0,
) -> Tensor:
    """Return the mean of (1 - T)^exponent, T = (TP + s) / (TP + fp_weight FP + fn_weight FN + s).

    Weights of 0.5 give the Dice loss, with a smoothing of 2 s there. Papers and libraries disagree
    on which of alpha and beta is which, hence the names.

    Args:
        sums: Of cases and structures, not squared.
        fp_weight: Of predicted pixels that are not of the structure.
        fn_weight: Of its pixels that are not predicted; the larger, the more sensitive.
        exponent: 1 is Tversky. Focal Tversky is another: its paper writes 1 / gamma with gamma =
            4/3, that is 0.75, and weighs up structures that are nearly right; above 1 weighs up
            those that are wrong. Below 1 the slope at T = 1 is infinite, and cut at `STEEPEST`.
        smooth: s, in pixels, > 0.

    Reference:
        Salehi et al., MLMI 2017, equation 3; Abraham and Khan, ISBI 2019, equation 4.
    """
    both, predicted, true = sums
    wrong = fp_weight * (predicted - both) + fn_weight * (true - both)
    missed = wrong / (both + wrong + smooth)
    return (missed if exponent == 1 else missed.clamp(min=STEEPEST).pow(exponent)).mean()


def cross_entropy(logits_BKS: Tensor, masks: Tensor, *, exclusive: bool) -> Tensor:
    """Return the mean cross-entropy over the known pixels; per structure if they may overlap.

    Args:
        logits_BKS: `(B, K, *S)`.
        masks: As for `overlap_sums`.
        exclusive: Softmax over classes, or a sigmoid per structure.
    """
    logits, truth = _by_pixel(logits_BKS, masks, exclusive)
    return masked_cross_entropy(logits, truth) if exclusive else masked_bce(logits, truth)


def focal(
    logits_BKS: Tensor,
    masks: Tensor,
    *,
    exclusive: bool,
    gamma: float = 2.0,
    alpha: float | Sequence[float] | None = None,
) -> Tensor:
    """Return the mean focal loss over the known pixels, whatever the number of classes.

    Args:
        logits_BKS: `(B, K, *S)`.
        masks: As for `overlap_sums`.
        exclusive: Softmax over classes, or a sigmoid per structure.
        gamma: Focusing exponent, >= 0; 0 gives cross-entropy.
        alpha: One weight for all structures (1 - alpha for what is none), or one for each output.
            Small for rare structures: gamma favours them already.

    Reference:
        Lin et al. 2017, equation 5 (see `losses.classification`).
    """
    logits, truth = _by_pixel(logits_BKS, masks, exclusive)
    if not exclusive:
        weight = None if alpha is None else logits.new_tensor(alpha)
        return sigmoid_focal(logits, truth, gamma=gamma, alpha=weight)
    if isinstance(alpha, float):
        alpha = (1 - alpha, *(alpha,) * (logits.shape[1] - 1))
    weights = None if alpha is None else logits.new_tensor(alpha)
    return softmax_focal(logits, truth, gamma=gamma, class_weight_K=weights)


def _by_pixel(logits_BKS: Tensor, masks: Tensor, exclusive: bool) -> tuple[Tensor, Tensor]:
    """Pixels as cases: logits `(N, K)`, and truth `(N,)` or `(N, K)` with NaN where not known."""
    logits = logits_BKS.float().movedim(1, -1).flatten(0, -2)
    truth = masks.flatten() if exclusive else masks.movedim(1, -1).flatten(0, -2)
    return logits, torch.where(truth == IGNORE, torch.nan, truth.float())

"""Segmentation losses: hand-computed cases, MONAI as oracle, gradients, empty and unknown masks."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from medtl.losses.cross_entropy import CrossEntropy, Focal
from medtl.losses.known import IGNORE
from medtl.losses.segmentation import (
    Dice,
    DiceCrossEntropy,
    DiceFocal,
    FocalTversky,
    GeneralisedDice,
    SquaredDice,
    Tversky,
    overlap_sums,
)

SMALL = 1e-7
"""Smoothing at which ours and MONAI's, which smooth in other places, agree."""


@pytest.fixture
def volumes() -> tuple[Tensor, Tensor]:
    """Logits of three classes and their masks, in 3D."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, 5, 6, 7, generator=generator)
    return logits, torch.randint(0, 3, (4, 5, 6, 7), generator=generator)


@pytest.fixture
def overlapping() -> tuple[Tensor, Tensor]:
    """Logits of three structures that may overlap, in 2D."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(4, 3, 8, 9, generator=generator)
    return logits, torch.randint(0, 2, (4, 3, 8, 9), generator=generator)


def monai_loss(name: str, **options: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """One of MONAI's losses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import monai.losses

        loss: Callable[[Tensor, Tensor], Tensor] = getattr(monai.losses, name)(**options)
    return loss


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_dice_by_hand() -> None:
    """p = 0.8, 0.4, 0.2 and g = 1, 1, 0: 2 * 1.2 / (1.4 + 2), smoothed by 1 pixel."""
    logits = torch.tensor([[[logit(0.8), logit(0.4), logit(0.2)]]])
    masks = torch.tensor([[[1, 1, 0]]])
    sums = overlap_sums(logits, masks)
    assert [float(part) for part in sums] == pytest.approx([1.2, 1.4, 2.0])
    assert float(Dice()(logits, masks)) == pytest.approx(1 - 3.4 / 4.4)
    assert float(SquaredDice()(logits, masks)) == pytest.approx(
        1 - 3.4 / (0.64 + 0.16 + 0.04 + 2 + 1)
    )


def test_a_perfect_mask_has_no_loss_and_a_wrong_one_nearly_1() -> None:
    masks = torch.zeros(1, 20, 20, dtype=torch.uint8)
    masks[0, :10] = 1
    sure = torch.stack([masks == 0, masks == 1], dim=1).float() * 40
    for loss in (Dice(), GeneralisedDice(background=False), Tversky()):
        assert float(loss(sure, masks)) == pytest.approx(0, abs=1e-6)
        assert float(loss(-sure, masks)) > 0.98


@pytest.mark.parametrize("per", ["case", "batch"])
@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("squared", [True, False])
def test_dice_is_that_of_monai(
    volumes: tuple[Tensor, Tensor], per: Any, background: bool, squared: bool
) -> None:
    logits, masks = volumes
    oracle = monai_loss(
        "DiceLoss",
        softmax=True,
        to_onehot_y=True,
        include_background=background,
        squared_pred=squared,
        batch=per == "batch",
        smooth_nr=1.0,
        smooth_dr=1.0,
    )
    loss = (SquaredDice if squared else Dice)(per=per, background=background)
    ours = float(loss(logits, masks))
    assert ours == pytest.approx(float(oracle(logits, masks[:, None])), abs=1e-6)


def test_dice_of_overlapping_structures_is_that_of_monai(
    overlapping: tuple[Tensor, Tensor],
) -> None:
    logits, masks = overlapping
    oracle = monai_loss("DiceLoss", sigmoid=True, smooth_nr=1.0, smooth_dr=1.0)
    ours = Dice()(logits, masks)
    assert float(ours) == pytest.approx(float(oracle(logits, masks)), abs=1e-6)


@pytest.mark.parametrize("weight", ["square", "simple"])
@pytest.mark.parametrize("per", ["case", "batch"])
def test_generalised_dice_is_that_of_monai(
    volumes: tuple[Tensor, Tensor], weight: Any, per: Any
) -> None:
    logits, masks = volumes
    masks[1][masks[1] == 2] = 0  # a case that lacks a structure
    oracle = monai_loss(
        "GeneralizedDiceLoss",
        softmax=True,
        to_onehot_y=True,
        w_type=weight,
        batch=per == "batch",
        smooth_nr=1e-9,
        smooth_dr=1e-9,
    )
    ours = GeneralisedDice(per=per, weight=weight, smooth=SMALL)(logits, masks)
    assert float(ours) == pytest.approx(float(oracle(logits, masks[:, None])), abs=1e-5)


def test_generalised_dice_of_background_alone() -> None:
    """Uniform over 4 classes, background only: 2 * 0.25 N / (N / 4 * 4 + N) = 0.25."""
    logits, masks = torch.zeros(1, 4, 10, 10), torch.zeros(1, 10, 10, dtype=torch.uint8)
    assert float(GeneralisedDice(smooth=SMALL)(logits, masks)) == pytest.approx(0.75, abs=1e-6)


def test_generalised_dice_without_any_structure_still_costs_false_alarms() -> None:
    masks = torch.zeros(1, 10, 10, dtype=torch.uint8)
    quiet = torch.stack([torch.full((1, 10, 10), 20.0), torch.zeros(1, 10, 10)], dim=1)
    loss = GeneralisedDice(background=False)
    losses = [float(loss(logits, masks)) for logits in (quiet, -quiet)]
    assert losses[0] == pytest.approx(0, abs=1e-6)
    assert losses[1] > 0.98


def test_tversky_by_hand_and_by_monai(volumes: tuple[Tensor, Tensor]) -> None:
    """TP 1.2, FP 0.2, FN 0.8: 2.2 / (2.2 + 0.3 * 0.2 + 0.7 * 0.8)."""
    logits = torch.tensor([[[logit(0.8), logit(0.4), logit(0.2)]]])
    masks = torch.tensor([[[1, 1, 0]]])
    assert float(Tversky()(logits, masks)) == pytest.approx(1 - 2.2 / 2.82)
    focal = FocalTversky(exponent=0.75)(logits, masks)
    assert float(focal) == pytest.approx((1 - 2.2 / 2.82) ** 0.75)
    assert float(FocalTversky(exponent=1.0)(logits, masks)) == float(Tversky()(logits, masks))
    # MONAI's alpha weighs false positives and its beta false negatives.
    oracle = monai_loss(
        "TverskyLoss",
        softmax=True,
        to_onehot_y=True,
        include_background=False,
        alpha=0.2,
        beta=0.9,
        smooth_nr=1.0,
        smooth_dr=1.0,
    )
    logits, masks = volumes
    ours = Tversky(fp_weight=0.2, fn_weight=0.9)(logits, masks)
    assert float(ours) == pytest.approx(float(oracle(logits, masks[:, None])), abs=1e-6)


def test_even_tversky_is_dice(volumes: tuple[Tensor, Tensor]) -> None:
    even = Tversky(fp_weight=0.5, fn_weight=0.5, smooth=1.0)(*volumes)
    assert float(even) == pytest.approx(float(Dice(smooth=2.0)(*volumes)), abs=1e-6)


def test_missing_pixels_cost_more_than_false_alarms_by_default() -> None:
    masks = torch.zeros(1, 1, 10, dtype=torch.uint8)
    masks[..., :4] = 1
    sure = torch.where(masks == 1, 20.0, -20.0)
    too_few, too_many = sure.clone(), sure.clone()
    too_few[..., :2], too_many[..., 4:6] = -20.0, 20.0
    losses = [float(Tversky()(logits, masks)) for logits in (too_few, too_many)]
    assert losses[0] > 1.4 * losses[1]


def test_cross_entropy_and_focal_by_hand() -> None:
    logits = torch.tensor([[[2.0, 0.0], [0.0, 0.0], [0.0, 1.0]]])  # classes x two pixels
    masks = torch.tensor([[0, 1]])
    p = torch.tensor([math.exp(2) / (math.exp(2) + 2), 1 / (2 + math.e)])
    expected = float((-p.log()).mean())
    assert float(CrossEntropy()(logits, masks)) == pytest.approx(expected)
    assert float(Focal(gamma=0.0)(logits, masks)) == pytest.approx(expected)
    squared = float(((1 - p) ** 2 * -p.log()).mean())
    assert float(Focal()(logits, masks)) == pytest.approx(squared)
    weighed = float((torch.tensor([0.75, 0.25]) * (1 - p) ** 2 * -p.log()).mean())
    assert float(Focal(alpha=0.25)(logits, masks)) == pytest.approx(weighed)
    vector = Focal(alpha=(0.75, 0.25, 0.9))(logits, masks)
    assert float(vector) == pytest.approx(weighed)


def test_sigmoid_focal_is_that_of_monai(overlapping: tuple[Tensor, Tensor]) -> None:
    logits, masks = overlapping
    oracle = monai_loss("FocalLoss", gamma=2.0, alpha=0.3)
    ours = Focal(alpha=0.3)(logits, masks)
    assert float(ours) == pytest.approx(float(oracle(logits, masks.float())), abs=1e-6)
    single = [
        Focal(alpha=weight)(logits[:, k : k + 1], masks[:, k : k + 1])
        for k, weight in enumerate((0.1, 0.5, 0.9))
    ]
    vector = Focal(alpha=(0.1, 0.5, 0.9))(logits, masks)
    assert float(vector) == pytest.approx(float(sum(single)) / 3, abs=1e-6)


def test_softmax_focal_does_not_shrink_with_the_number_of_classes(
    volumes: tuple[Tensor, Tensor],
) -> None:
    """MONAI's mean divides by the 3 classes too."""
    logits, masks = volumes
    oracle = monai_loss("FocalLoss", gamma=2.0, use_softmax=True, to_onehot_y=True)
    ours = float(Focal()(logits, masks))
    assert ours == pytest.approx(3 * float(oracle(logits, masks[:, None])), abs=1e-5)


CHOICES: list[Callable[[Tensor, Tensor], Tensor]] = [
    Dice(),
    SquaredDice(per="batch"),
    GeneralisedDice(),
    FocalTversky(exponent=0.75),
    CrossEntropy(),
    Focal(alpha=0.3),
    DiceCrossEntropy(),
    DiceFocal(alpha=0.3),
]


@pytest.mark.parametrize("loss", CHOICES)
@pytest.mark.parametrize("exclusive", [True, False])
def test_gradients_are_those_of_finite_differences(
    loss: Callable[[Tensor, Tensor], Tensor],
    exclusive: bool,
    volumes: tuple[Tensor, Tensor],
    overlapping: tuple[Tensor, Tensor],
) -> None:
    logits, masks = volumes if exclusive else overlapping
    masks = masks[:2].to(torch.uint8)
    masks[0].flatten()[:4] = IGNORE
    logits = logits[:2].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(logits, masks), logits)
    direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        there, back = (loss(logits + s * 1e-2 * direction, masks) for s in (1, -1))
    assert float((there - back) / 2e-2) == pytest.approx(
        float((gradient * direction).sum()), rel=2e-2, abs=2e-5
    )


@pytest.mark.parametrize("loss", CHOICES)
@pytest.mark.parametrize("exclusive", [True, False])
def test_unknown_pixels_count_nowhere(
    loss: Callable[[Tensor, Tensor], Tensor],
    exclusive: bool,
    volumes: tuple[Tensor, Tensor],
    overlapping: tuple[Tensor, Tensor],
) -> None:
    logits, masks = volumes if exclusive else overlapping
    masks = masks.to(torch.uint8)
    masks[..., :3] = IGNORE
    logits = logits.clone().requires_grad_()
    value = loss(logits, masks)
    (gradient,) = torch.autograd.grad(value, logits)
    assert (gradient[..., :3] == 0).all()
    assert (gradient[..., 3:] != 0).any()
    without = loss(logits[..., 3:], masks[..., 3:])
    assert float(value.detach()) == pytest.approx(float(without.detach()), abs=1e-6)
    nothing = loss(logits, torch.full_like(masks, IGNORE))
    (gradient,) = torch.autograd.grad(nothing, logits)
    assert torch.isfinite(nothing.detach())
    assert (gradient == 0).all()


@pytest.mark.parametrize("p", [1e-6, 1e-3, 0.5])
def test_an_empty_mask_has_a_usable_gradient(p: float) -> None:
    """1 - 1 / (sum(p) + 1), and no slope that explodes or vanishes as MONAI's default does."""
    logits = torch.full((1, 1, 8, 8), logit(p), requires_grad=True)
    masks = torch.zeros(1, 1, 8, 8)
    loss = Dice()(logits, masks)
    assert float(loss.detach()) == pytest.approx(1 - 1 / (64 * p + 1), rel=1e-3, abs=1e-6)
    by_p = float(torch.autograd.grad(loss, logits)[0].mean()) / (p * (1 - p))
    assert by_p == pytest.approx(1 / (64 * p + 1) ** 2, rel=1e-3)
    assert 8e-4 < by_p < 1.01


def test_monai_defaults_explode_on_an_empty_mask() -> None:
    """The negative control: why the smoothing is 1."""
    oracle = monai_loss("DiceLoss", sigmoid=True)
    slopes = []
    for p in (1e-6, 0.5):
        logits = torch.full((1, 1, 8, 8), logit(p), requires_grad=True)
        (gradient,) = torch.autograd.grad(oracle(logits, torch.zeros(1, 1, 8, 8)), logits)
        slopes.append(float(gradient.mean()) / (p * (1 - p)))
    assert slopes[0] > 1e3
    assert slopes[1] < 1e-6


def test_focal_tversky_stays_finite_on_a_perfect_mask() -> None:
    masks = torch.ones(1, 1, 8, 8)
    logits = torch.full((1, 1, 8, 8), 60.0, requires_grad=True)
    loss = FocalTversky(exponent=0.75)(logits, masks)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.isfinite(gradient).all()


def test_sums_are_float32_under_mixed_precision() -> None:
    logits = torch.zeros(1, 1, 300, 300, dtype=torch.float16)
    sums = overlap_sums(logits, torch.ones(1, 1, 300, 300))
    assert sums.predicted.dtype == torch.float32
    assert float(sums.true) == 90000  # beyond what float16 can hold

"""Structures: values to classes and back, what is assessed and how, every loss by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from medtl.errors import ImageError, ManifestError
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
)
from medtl.metrics.overlap import compare_masks
from medtl.tasks.structures import Structures, segmentation_task
from medtl.types import Case

LOSSES = [
    *(DiceCrossEntropy(), DiceFocal(), Dice(), SquaredDice(), GeneralisedDice(), Tversky()),
    *(FocalTversky(), CrossEntropy(), Focal()),
]

TWO = segmentation_task({"anterior": 1, "posterior": 2})
REGIONS = segmentation_task({"whole": [1, 2, 4], "core": [1, 4], "enhancing": 4}, overlapping=True)


def case(name: str) -> Case:
    return Case(case_id=name, patient_id=name, image=Path("x.nii.gz"))


def sure(mask: np.ndarray, classes: int) -> torch.Tensor:
    """Logits of a network that is certain of a mask."""
    return torch.from_numpy(np.stack([mask == k for k in range(classes)])).float()[None] * 20


def test_exclusive_structures_have_one_output_more() -> None:
    assert (TWO.outputs, REGIONS.outputs) == (3, 3)
    assert TWO.inputs([case("a")]).shape == TWO.targets([case("a")]).shape == (1, 0)
    assert TWO.head_bias([case("a")]).tolist() == [0, 0, 0]
    assert np.isnan(TWO.truth_matrix([case("a")])).all()
    assert TWO.weighted([case("a")]) is TWO


def test_values_of_a_file_become_classes_and_come_back() -> None:
    lungs = segmentation_task({"lung": 255}, ignored=[7])
    mask = np.array([[0, 255], [7, 255]])
    assert lungs.encode(mask).tolist() == [[0, 1], [IGNORE, 1]]
    assert lungs.encode(mask).dtype == np.uint8
    scores = np.array([[[0.9, 0.2], [0.6, 0.1]], [[0.1, 0.8], [0.4, 0.9]]])
    assert lungs.label_map(scores).tolist() == [[0, 255], [0, 255]]


def test_overlapping_structures_are_unions_of_values() -> None:
    encoded = REGIONS.encode(np.array([0, 1, 2, 4]))
    assert encoded.tolist() == [[0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]]
    assert REGIONS.label_map(np.array([[0.5], [0.49], [1.0]])).tolist() == [[1], [0], [1]]


def test_planes_of_structures_that_overlap_are_taken_by_their_values() -> None:
    """As a DICOM SEG gives them; the planes are in the order of the values, not of the labels."""
    planes = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 1]])  # of 1, 2 and 4
    encoded = REGIONS.encode(planes, planes=(1, 2, 4))
    assert encoded.tolist() == [[1, 1, 1], [1, 0, 1], [1, 0, 1]]
    assert REGIONS.meanings == {1: "whole, core", 2: "whole", 4: "whole, core, enhancing"}
    assert segmentation_task({"a": 2}, ignored=[1]).meanings == {1: "not known", 2: "a"}


def test_a_value_without_a_meaning_is_refused() -> None:
    with pytest.raises(ImageError, match="the mask holds 3, 9; expected only 0, 1, 2"):
        TWO.encode(np.array([0, 3, 9, 1]), where="case7.nii.gz")


def test_probabilities() -> None:
    outputs = torch.randn(2, 3, 4, 5, 6)
    scores = TWO.decode(outputs)
    torch.testing.assert_close(scores.sum(dim=1), torch.ones(2, 4, 5, 6))
    torch.testing.assert_close(REGIONS.decode(outputs), outputs.sigmoid())


def test_assess_is_the_mean_over_cases_of_each_structure_then_over_structures() -> None:
    """Case 1: 2/3 and 1. Case 2 of another shape: 0, and absent in both masks: not counted."""
    truth = [np.zeros((4, 4), np.uint8), np.zeros((3, 5), np.uint8)]
    predicted = [mask.copy() for mask in truth]
    truth[0][0, :2], predicted[0][0, :1] = 1, 1
    truth[0][3], predicted[0][3] = 2, 2
    predicted[1][0, 0] = 1
    batches = [
        (sure(p, 3), torch.from_numpy(t)[None]) for p, t in zip(predicted, truth, strict=True)
    ]
    loss, statistic = TWO.assess(iter(batches))
    assert statistic == pytest.approx(((2 / 3 + 0) / 2 + 1) / 2)
    assert loss == pytest.approx(sum(float(TWO.loss(*batch)) for batch in batches) / 2)
    agreement = compare_masks(truth[0] == 1, predicted[0] == 1, (1.0, 1.0))
    assert agreement.dice == pytest.approx(2 / 3)


def test_unknown_pixels_are_not_assessed() -> None:
    truth = torch.tensor([[[1, 1, IGNORE, 0]]], dtype=torch.uint8)
    predicted = np.array([[1, 1, 1, 0]])
    assert TWO.assess([(sure(predicted, 3), truth)])[1] == 1.0


def test_nothing_to_see_gives_no_statistic() -> None:
    empty = np.zeros((4, 4), np.uint8)
    loss, statistic = TWO.assess([(sure(empty, 3), torch.from_numpy(empty)[None])])
    assert statistic is None
    assert loss < 0.01


def test_overlapping_structures_are_assessed_one_by_one() -> None:
    truth = torch.tensor([[[1, 1, 0]], [[1, 0, 0]], [[0, 0, 0]]], dtype=torch.uint8)[None]
    outputs = torch.where(truth == 1, 5.0, -5.0)
    outputs[0, 1, 0] = 5.0
    assert REGIONS.assess([(outputs, truth)])[1] == pytest.approx((1 + 2 / 4) / 2)
    assert REGIONS.can_watch([])


def test_what_masks_show_is_tallied_once_they_are_read() -> None:
    cases = [case("a"), case("b"), case("c")]
    assert TWO.tally(cases)["anterior"] == {"positive": 0, "negative": 0, "missing": 3}
    seen = TWO.observed(
        [("a", np.array([0, 1, IGNORE], np.uint8)), ("b", np.array([2, 1], np.uint8))]
    )
    assert seen.tally(cases) == {
        "anterior": {"positive": 2, "negative": 0, "missing": 1},
        "posterior": {"positive": 1, "negative": 1, "missing": 1},
    }
    said = "anterior in 2 of 2 masks; posterior in 1 of 2 masks"
    assert seen.summary(cases) == f"{said}; 1 without a mask"
    assert seen.summary(cases[:2]) == said
    assert seen.strata(cases).tolist() == [[1, 0], [1, 1], [0, 0]]
    shown = REGIONS.observed([("a", REGIONS.encode(np.array([2, 0])))])
    assert shown.strata(cases[:1]).tolist() == [[1, 0, 0]]


@pytest.mark.parametrize("task", [TWO, REGIONS])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_every_loss_can_be_minimised(task: Structures, loss: Callable[..., torch.Tensor]) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 3, (2, 6, 6), generator=generator).numpy().astype(np.uint8)
    masks = torch.from_numpy(np.stack([task.encode(mask) for mask in values]))
    chosen = segmentation_task(
        dict(zip(task.labels, task.values, strict=True)),
        overlapping=not task.exclusive,
        criterion=loss,
    )
    outputs = torch.zeros(2, 3, 6, 6, requires_grad=True)
    optimizer = torch.optim.Adam([outputs], lr=0.3)
    first = chosen.loss(outputs, masks)
    for _ in range(60):
        optimizer.zero_grad()
        chosen.loss(outputs, masks).backward()
        optimizer.step()
    assert float(chosen.loss(outputs, masks).detach()) < 0.3 * float(first.detach())
    assert chosen.assess([(outputs.detach(), masks)])[1] > 0.99


def test_sums_over_the_batch_differ_from_sums_over_cases() -> None:
    masks = torch.zeros(2, 4, 4, dtype=torch.uint8)
    masks[0, 0] = 1
    outputs = torch.zeros(2, 2, 4, 4)
    outputs[:, 1] = -12.0  # nothing is predicted, and only the first case has something
    by = [
        float(segmentation_task({"a": 1}, criterion=Dice(per)).loss(outputs, masks))
        for per in ("case", "batch")
    ]
    assert by == pytest.approx([(1 - 1 / 5) / 2, 1 - 1 / 5], abs=1e-3)


def test_a_heat_map_is_about_the_pixels_taken_for_the_structure() -> None:
    outputs = torch.zeros(1, 3, 2, 2)
    outputs[0, 1, 0, 0] = 4.0
    assert float(TWO.explain(outputs, "anterior")) == 4.0
    assert float(TWO.explain(outputs, "posterior")) == 0.0
    assert float(REGIONS.explain(outputs, "core")) == 1.0  # 0 is taken too: mean of 4, 0, 0, 0


def test_a_checkpoint_builds_the_task_again() -> None:
    stored = {k: v for k, v in REGIONS.to_dict().items() if k != "kind"}
    again = Structures(**stored)
    mask = np.array([0, 1, 2, 4])
    assert np.array_equal(again.encode(mask), REGIONS.encode(mask))
    stored = {k: v for k, v in TWO.to_dict().items() if k != "kind"}
    scores = np.eye(3)
    assert np.array_equal(Structures(**stored).label_map(scores), TWO.label_map(scores))


def test_structures_without_sense_are_refused() -> None:
    with pytest.raises(ManifestError, match="0 structures"):
        segmentation_task({})
    with pytest.raises(ManifestError, match="not within 1 to 255"):
        segmentation_task({"a": 0})
    with pytest.raises(ManifestError, match="belongs to two structures"):
        segmentation_task({"a": 1, "b": [1, 2]})
    with pytest.raises(ManifestError, match="belongs to two structures"):
        segmentation_task({"a": 1}, ignored=[1])

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medtl.errors import ManifestError
from medtl.losses.ordinal import (
    Coral,
    Corn,
    DistancePenalisedCrossEntropy,
    ExpectedValue,
    LabelDistribution,
    MeanVariance,
)
from medtl.losses.quantity import L1, Huber, MeanSquaredError
from medtl.tasks.regression import BONE_AGE, Quantity, Regression, bone_age_task, regression_task
from medtl.tasks.stored import read_task
from medtl.types import Case

NAN = float("nan")
ORDINAL = [
    *(DistancePenalisedCrossEntropy(), ExpectedValue(), MeanVariance(), LabelDistribution()),
    *(Coral(), Corn()),
]
every_loss = pytest.mark.parametrize(
    "loss", [L1(), Huber(), MeanSquaredError(), *ORDINAL], ids=lambda loss: loss.name
)


def case(number: int, months: object = "", sex: str = "F", age: str = "") -> Case:
    return Case(
        f"c{number}",
        f"p{number}",
        Path("x.png"),
        targets={"boneage": str(months)},
        strata={"sex": sex, "age": age},
        row=number + 2,
    )


TRAINING = [case(n, months, "FM"[n % 2]) for n, months in enumerate([24, 60, 60, 120, 216])]


def task(loss: object = L1(), **options: object) -> Regression:
    return bone_age_task(TRAINING, "boneage", criterion=loss, sex_column="sex", **options)


# ------------------------------------------------------------- what is read


def test_targets_are_months_and_nan_where_unknown():
    targets = task().targets([case(0, "12.5"), case(1, "")])
    assert np.array_equal(targets, [12.5, NAN], equal_nan=True)
    assert task().truth_matrix([case(0, 7)]).tolist() == [[7.0]]


def test_sex_is_an_input_or_not():
    cases = [case(0, 1, "F"), case(1, 1, "male"), case(2, 1, "")]
    assert task().inputs(cases).tolist() == [[-8.0], [8.0], [0.0]]
    assert task().inputs.width == 1
    without = Regression("boneage", BONE_AGE)
    assert without.inputs(cases).shape == (3, 0)
    assert without.inputs.width == 0


@pytest.mark.parametrize("text", ["-3", "Kim", "3650", "nan", "inf"])
def test_a_cell_that_is_no_age_names_the_row_and_not_the_value(text):
    with pytest.raises(ManifestError, match=r"row 5.*not an age in months") as error:
        task().targets([case(3, text)])
    assert text not in str(error.value)


def test_a_cell_that_is_no_sex():
    with pytest.raises(ManifestError, match=r"row 2.*no sex; expected F, M") as error:
        task().inputs([case(0, 1, "Kim")])
    assert "Kim" not in str(error.value)


def test_years_are_refused():
    years = [case(n, n + 1) for n in range(18)]
    with pytest.raises(ManifestError, match=r"above 18; expected months. Multiply years by 12"):
        bone_age_task(years, "boneage")


def test_a_few_infants_are_not_taken_for_years():
    infants = [case(n, n + 1) for n in range(5)]
    assert bone_age_task(infants, "boneage").highest == 5


@pytest.mark.parametrize("months", [["", ""], [60, 60], []])
def test_ages_that_do_not_differ(months):
    with pytest.raises(ManifestError, match="no two that differ"):
        bone_age_task([case(n, m) for n, m in enumerate(months)], "boneage")


def test_the_training_cases_set_mean_sd_and_range():
    fitted = task().weighted([case(0, 10), case(1, 30), case(2, "")])
    assert (fitted.mean, fitted.sd) == (20, 10)
    assert (fitted.lowest, fitted.highest) == (10, 30)


# ------------------------------------------------------------------- splits


def test_strata_are_two_year_bands_of_each_sex():
    cases = [case(0, 23), case(1, 24), case(2, 47, "M"), case(3, 25, "M"), case(4, "")]
    strata = task().strata(cases)
    assert strata.sum(axis=1).tolist() == [1, 1, 1, 1, 0]
    assert (strata[2] == strata[3]).all()
    assert not (strata[1] == strata[2]).all()
    assert not (strata[0] == strata[1]).all()


# ------------------------------------------------------------------- losses


def test_the_l1_loss_is_in_sds_of_the_training_ages():
    fitted = replace(task(), mean=100.0, sd=50.0)
    # 150 and 75 months are +1 and -0.5 SD; the third age is unknown.
    outputs, months = torch.tensor([[0.0], [0.5], [9.0]]), torch.tensor([150.0, 75.0, NAN])
    assert fitted.loss(outputs, months).item() == pytest.approx((1 + 1) / 2)
    squared = replace(fitted, criterion=MeanSquaredError()).loss(outputs, months)
    assert squared.item() == pytest.approx((1 + 1) / 2)
    huber = replace(fitted, criterion=Huber(delta=0.2)).loss(outputs, months)
    assert huber.item() == pytest.approx(0.2 * (1 - 0.1))


def test_the_strength_of_dex_is_per_year():
    fitted = task(ExpectedValue(), class_months=12)
    uniform = torch.zeros(1, fitted.outputs)
    assert fitted.grid.tolist() == [24 + 12 * k for k in range(17)]
    # The mean of the grid is 120 months; the truth is 60 months, so 5 years below it.
    loss = fitted.loss(uniform, torch.tensor([60.0])).item()
    assert loss == pytest.approx(np.log(17) + 5)


@every_loss
def test_every_loss_learns_to_tell_ages_apart(loss):
    torch.manual_seed(0)
    fitted = task(loss, class_months=6)
    months = torch.tensor([30.0, 60.0, 90.0, 150.0, 210.0, NAN])
    outputs = torch.zeros(6, fitted.outputs, requires_grad=True)
    optimizer = torch.optim.Adam([outputs], lr=0.2)
    for _ in range(150):
        optimizer.zero_grad()
        fitted.loss(outputs, months).backward()
        assert torch.isfinite(outputs.grad).all()
        optimizer.step()
    value, error = fitted.assess(
        [(outputs[:4].detach(), months[:4]), (outputs[4:].detach(), months[4:])]
    )
    assert error < 4
    assert np.isfinite(value)


# ----------------------------------------------------------------- decoding


def test_regression_decodes_to_months():
    fitted = replace(task(), mean=100.0, sd=50.0)
    assert fitted.decode(torch.tensor([[0.0], [-1.0]])).tolist() == [[100.0], [50.0]]


@pytest.mark.parametrize("decoding", ["argmax", "mean", "median"])
@pytest.mark.parametrize("loss", ORDINAL, ids=lambda loss: loss.name)
def test_a_certain_ordinal_output_decodes_to_its_class(loss, decoding):
    fitted = task(loss, decoding=decoding)
    k = 5
    outputs = torch.full((1, fitted.outputs), -20.0)
    if loss.head.thresholds:
        outputs[0, :k] = 20.0  # above classes 0 to k - 1, not above class k
    else:
        outputs[0, k] = 20.0
    months = fitted.decode(outputs)
    assert months.shape == (1, 1)
    assert months.item() == pytest.approx(fitted.grid[k], abs=1e-3)


@every_loss
def test_an_untrained_head_says_what_the_training_ages_say(loss):
    fitted = task(loss, decoding="mean", class_months=12)
    bias = torch.from_numpy(fitted.head_bias(TRAINING))[None]
    assert bias.shape == (1, fitted.outputs)
    months = fitted.decode(bias).item()
    if fitted.head is None:
        assert months == pytest.approx(60)  # the median
    else:
        # each of the 17 classes once more than it occurs
        counts = np.ones(17)
        for age in (24, 60, 60, 120, 216):
            counts[(age - 24) // 12] += 1
        assert months == pytest.approx(float(counts @ fitted.grid / counts.sum()), rel=1e-4)


@every_loss
def test_explain_is_one_number_with_a_gradient(loss):
    fitted = task(loss)
    outputs = torch.randn(1, fitted.outputs, requires_grad=True)
    fitted.explain(outputs, BONE_AGE.label).backward()
    assert (outputs.grad != 0).any()


# --------------------------------------------------------------- assessment


def test_assess_is_over_all_batches_and_known_ages():
    fitted = replace(task(), mean=0.0, sd=1.0)
    batches = [
        (torch.tensor([[1.0], [2.0]]), torch.tensor([3.0, NAN])),
        (torch.tensor([[5.0]]), torch.tensor([1.0])),
    ]
    assert fitted.assess(batches) == pytest.approx((3.0, 3.0))
    assert fitted.assess([(torch.zeros(1, 1), torch.tensor([NAN]))])[1] is None


def test_the_mean_error_is_watched_and_smaller_is_better():
    assert task().watched == "mae_months"
    assert not task().larger_is_better
    assert task().can_watch(TRAINING)
    assert not task().can_watch([case(0, "")])


def test_rows_and_tally():
    row = task().rows(case(0, "36"), np.array([40.5], np.float32))
    assert row == [
        {
            "label": "bone_age_months",
            "y_true": 36.0,
            "y_true_raw": "36",
            "y_score": 40.5,
            "outside_training_range": "no",
        }
    ]
    assert task().rows(case(0), np.array([40.5], np.float32))[0]["y_true"] is None
    assert task().tally([*TRAINING, case(9)]) == {BONE_AGE.label: {"known": 5, "missing": 1}}


def test_a_quantity_is_summed_up_by_its_range():
    said = "bone_age_months 24 to 216, median 60"
    assert task().summary(TRAINING) == said
    assert task().summary([*TRAINING, case(9)]) == f"{said}, 1 without a value"
    none = "bone_age_months: no value is known, 1 without a value"
    assert task().summary([case(9)]) == none


@pytest.mark.parametrize(
    ("reference", "age", "prediction", "outside"),
    [
        ("60", "5", 60, False),
        ("", "", 60, False),
        ("12", "", 60, True),
        ("217", "", 60, True),
        ("60", "1.5", 60, True),
        ("60", "19", 60, True),
        ("60", "1", 60, True),
        ("60", "2", 60, False),
        ("60", "18", 60, False),
        ("", "", 23.9, True),
        ("", "", 216.5, True),
        ("60", "unknown", 60, False),
    ],
)
def test_ages_outside_those_of_the_training_are_flagged(reference, age, prediction, outside):
    patient = case(0, reference, age=age)
    assert task().is_outside(patient, prediction) is outside
    flag = task().rows(patient, np.array([prediction], np.float32))[0]["outside_training_range"]
    assert flag == ("yes" if outside else "no")


# --------------------------------------------------------------- checkpoint


@every_loss
def test_a_checkpoint_builds_the_task_again(loss):
    fitted = task(loss, decoding="mean", class_months=12)
    assert read_task(json.loads(json.dumps(fitted.to_dict())), loss) == fitted


def test_a_checkpoint_from_when_bone_age_was_the_only_quantity_opens():
    """As the first version wrote it, the loss and its options beside the fields."""
    stored = {
        "kind": "bone_age", "column": "boneage", "sex_column": "male", "loss_name": "l1",
        "class_months": 24.0, "decoding": "median", "huber_sd": 0.2, "distance_strength": 100.0,
        "label_sd_months": 12.0, "mean_months": 100.0, "sd_months": 50.0, "lowest_months": 10.0,
        "highest_months": 210.0,
    }  # fmt: skip
    opened = read_task(stored, L1())
    assert opened == Regression(
        "boneage", BONE_AGE, "male", L1(), class_width=24.0, decoding="median",
        mean=100.0, sd=50.0, lowest=10.0, highest=210.0,
    )  # fmt: skip
    assert opened.decode(torch.tensor([[1.0]])).tolist() == [[150.0]]
    assert opened.labels == ("bone_age_months",)


# ----------------------------------------------------------- any other quantity

FRACTION = Quantity("ejection_fraction", "%", (0, 100))
HEARTS = [case(n, value) for n, value in enumerate([20, 30, 35, 45, 50, 55, 60, 62, 65, 70])]


def fraction(loss: object = L1(), **options: object) -> Regression:
    return regression_task(HEARTS, "boneage", FRACTION, criterion=loss, **options)


def test_a_quantity_has_its_unit_in_its_names():
    row = fraction().rows(HEARTS[0], np.array([19.5], np.float32))[0]
    assert (row["label"], row["y_true"], row["y_score"]) == ("ejection_fraction", 20.0, 19.5)
    assert row["outside_training_range"] == "yes"  # below all that was learned
    assert (
        fraction().rows(HEARTS[0], np.array([25], np.float32))[0]["outside_training_range"] == "no"
    )
    assert fraction().watched == "mae_percent"
    bare = replace(fraction(), quantity=Quantity("density"))
    assert bare.watched == "mae"


def test_the_patients_age_says_nothing_of_other_quantities():
    assert not fraction().is_outside(case(0, 30, age="99"), 30)
    assert replace(fraction(), quantity=BONE_AGE).is_outside(case(0, 30, age="99"), 30)


@pytest.mark.parametrize("text", ["101", "-1", "normal", "inf"])
def test_a_cell_outside_of_the_limits_is_a_fault(text):
    with pytest.raises(ManifestError, match=r"not a number in %; expected a number from 0 to 100"):
        fraction().targets([case(0, text)])
    free = replace(fraction(), quantity=Quantity("x", "%"))
    if text in ("101", "-1"):  # negative control: without limits any number is one
        assert free.targets([case(0, text)]).tolist() == [float(text)]
    else:
        with pytest.raises(ManifestError, match="expected a number, or an empty cell"):
            free.targets([case(0, text)])


def test_strata_are_fifths_where_a_quantity_has_no_bands():
    strata = fraction().strata([*HEARTS, case(10, "")])
    assert strata.sum(axis=0).tolist() == [2, 2, 2, 2, 2]
    assert strata[-1].sum() == 0
    assert fraction().strata([case(0, "")]).shape == (1, 0)


def test_ordinal_losses_of_any_quantity_count_classes():
    fitted = fraction(ExpectedValue())
    assert fitted.width == (70 - 20) / 20
    wide = fraction(ExpectedValue(), class_width=10.0)
    assert wide.grid.tolist() == [20, 30, 40, 50, 60, 70]
    # Uniform probabilities: the mean is 45 %, the truth 25 %, so 2 classes below it.
    loss = wide.loss(torch.zeros(1, 6), torch.tensor([25.0])).item()
    assert loss == pytest.approx(np.log(6) + 2)


def test_values_that_do_not_vary_are_refused():
    with pytest.raises(ManifestError, match="3 known values, and no two that differ"):
        regression_task([case(n, 50) for n in range(3)], "boneage", FRACTION)


def test_a_quantity_has_no_masks():
    assert fraction().encode is None
    assert fraction().observed([]) == fraction()

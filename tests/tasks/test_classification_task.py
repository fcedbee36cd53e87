import math
from pathlib import Path

import numpy as np
import pytest
import torch

from medtl.errors import ManifestError, RunError
from medtl.losses.cross_entropy import Focal
from medtl.tasks.classes import Classes, classification_task
from medtl.tasks.findings import MIN_WATCHED_CASES, Findings
from medtl.tasks.stored import read_task
from medtl.types import Case


def case(number: int, **targets: str) -> Case:
    return Case(f"c{number}", f"p{number}", Path("x.png"), targets=targets, row=number + 2)


ROW = [case(0, a="1", b="0"), case(1, a="-1", b=""), case(2, a="0.0", b="1")]


def test_targets_of_findings():
    targets = Findings(labels=("a", "b")).targets(ROW)
    assert np.array_equal(targets, [[1, 0], [np.nan, np.nan], [0, 1]], equal_nan=True)


@pytest.mark.parametrize(("policy", "value"), [("zeros", 0.0), ("ones", 1.0)])
def test_uncertain_policies_touch_training_only(policy, value):
    task = Findings(labels=("a",), uncertain={"a": policy})
    assert task.targets(ROW)[1, 0] == value
    assert np.isnan(task.truth(ROW[1])[0])
    assert task.rows(ROW[1], np.array([0.7]))[0]["y_true"] is None
    assert task.rows(ROW[1], np.array([0.7]))[0]["y_true_raw"] == "-1"


def test_smoothed_uncertain_targets_lie_in_the_published_range_and_repeat():
    task = Findings(labels=("a",), uncertain={"a": "smoothed"})
    cases = [case(n, a="-1") for n in range(200)]
    first, again = task.targets(cases), task.targets(cases[::-1])[::-1]
    assert first.min() >= 0.55
    assert first.max() <= 0.85
    assert np.array_equal(first, again)
    assert first.std() > 0.05


@pytest.mark.parametrize("policy", ["ones", "zeros", "smoothed", "ignore"])
def test_early_stopping_scores_certain_cells_alone(policy):
    """An uncertain film counted as a finding moved the watched AUROC from .879 to .677."""
    task = Findings(labels=("a",), uncertain={"a": policy})
    certain = task.certain_targets(ROW)
    assert np.array_equal(certain[:, 0], [1, np.nan, 0], equal_nan=True)
    doubtful = [case(n, a="-1") for n in range(4 * MIN_WATCHED_CASES)]
    assert not task.can_watch(doubtful)


def test_missing_can_mean_absent():
    assert Findings(labels=("b",), missing="zeros").targets(ROW)[1, 0] == 0


def test_a_positive_word():
    cases = [case(0, y="sick"), case(1, y="well"), case(2, y="")]
    task = classification_task(cases, ["y"], positive="sick")
    assert np.array_equal(task.targets(cases)[:, 0], [1, 0, np.nan], equal_nan=True)


def test_words_of_another_hospital_are_not_taken_for_no_finding():
    """One that writes ja and nein, or 1 and 0, where this one wrote sick and well."""
    cases = [case(0, y="sick"), case(1, y="well"), case(2, y="")]
    task = read_task(classification_task(cases, ["y"], positive="sick").to_dict())
    assert (task.positive, task.negative) == ("sick", "well")
    for word in ("nein", "unclear", "Well"):
        with pytest.raises(ManifestError, match=f"row 6: column 'y' holds {word}; 'sick' is the"):
            task.truth_matrix([case(4, y=word)])
    figures = task.truth_matrix([case(0, y="1"), case(1, y="0"), case(2, y="-1")])
    assert np.array_equal(figures[:, 0], [1, 0, np.nan], equal_nan=True)


def test_a_run_of_before_that_kept_one_word_refuses_two_others():
    older = read_task(
        {"kind": "findings", "labels": ["sick"], "columns": ["y"], "positive": "sick"}
    )
    assert older.truth_matrix([case(0, y="sick"), case(1, y="well")])[:, 0].tolist() == [1, 0]
    for words in (("ja", "nein"), ("0", "1"), ("sick", "well", "unclear")):
        with pytest.raises(ManifestError, match=r"expected sick and one other word, or 1 and 0"):
            older.truth_matrix([case(n, y=word) for n, word in enumerate(words)])


def test_a_value_that_is_not_a_finding_names_the_row_and_not_the_value():
    with pytest.raises(ManifestError, match=r"row 5.*neither 0, 1, -1") as error:
        Findings(labels=("a",)).targets([case(3, a="Kim")])
    assert "Kim" not in str(error.value)


def test_pos_weight_is_negatives_over_positives():
    cases = [case(n, a="1" if n < 2 else "0") for n in range(10)]
    assert Findings(labels=("a",), balanced=True).weighted(cases).pos_weight == (4.0,)
    assert Findings(labels=("a",)).weighted(cases).pos_weight is None


def test_classes_from_words():
    cases = [case(n, y=word) for n, word in enumerate(["x", "y", "z", "x", ""])]
    task = classification_task(cases, ["y"])
    assert isinstance(task, Classes)
    assert task.labels == ("x", "y", "z")
    assert np.array_equal(task.targets(cases), [0, 1, 2, 0, np.nan], equal_nan=True)
    assert task.strata(cases).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 0, 0]]
    rows = task.rows(cases[1], np.array([0.1, 0.7, 0.2]))
    assert [row["y_true"] for row in rows] == [0, 1, 0]
    assert [row["y_true"] for row in task.rows(cases[4], np.zeros(3))] == [None] * 3


def test_class_scores_sum_to_one():
    scores = Classes("y", ("x", "y", "z")).decode(torch.randn(5, 3))
    assert scores.sum(1).numpy() == pytest.approx(np.ones(5), abs=1e-6)


def test_class_weights_are_inverse_to_frequency():
    cases = [case(n, y="x" if n < 3 else "y" if n < 5 else "z") for n in range(6)]
    task = Classes("y", ("x", "y", "z"), balanced=True).weighted(cases)
    assert task.class_weight == pytest.approx((6 / 9, 1.0, 2.0))


def test_an_unknown_class_is_an_error():
    with pytest.raises(ManifestError, match="does not know"):
        Classes("y", ("x", "z")).targets([case(0, y="w")])


def test_two_words_need_a_positive():
    with pytest.raises(ManifestError, match=r"data\.positive"):
        classification_task([case(0, y="sick"), case(1, y="well")], ["y"])


def test_a_positive_that_does_not_occur():
    with pytest.raises(ManifestError, match="does not occur"):
        classification_task([case(0, y="sick")], ["y"], positive="ill")


def test_the_watched_statistic_is_the_mean_auroc_also_of_too_few_to_steer_by():
    task = Findings(labels=("a", "b"))
    n = MIN_WATCHED_CASES
    targets = torch.tensor([0.0, 1.0]).repeat_interleave(n // 2)[:, None].expand(n, 2)
    outputs = torch.stack([torch.arange(n), -torch.arange(n)], dim=1) / n
    halves = [(outputs[: n // 2], targets[: n // 2]), (outputs[n // 2 :], targets[n // 2 :])]
    loss, statistic = task.assess(halves)
    assert loss == pytest.approx(float(task.loss(outputs, targets)))
    assert statistic == pytest.approx(0.5)  # (1.0 + 0.0) / 2
    assert task.assess([(outputs[::3], targets[::3])])[1] == pytest.approx(0.5)
    one_kind = torch.tensor([[1.0, 0.0]]).repeat(n, 1)
    assert task.assess([(outputs, one_kind)])[1] is None
    one_kind[:, 0] = targets[:, 0]
    assert task.assess([(outputs, one_kind)])[1] == pytest.approx(1.0)  # the other is undefined
    assert task.assess([(outputs * torch.nan, targets)])[1] is None
    both = [case(k, a=str(k % 2), b=str(k % 2)) for k in range(n)]
    assert task.can_watch(both)
    assert not task.can_watch(both[1:])


def test_classes_are_watched_one_against_the_rest():
    task = Classes("y", ("x", "y"))
    n = MIN_WATCHED_CASES
    cases = [case(k, y="xy"[k % 2]) for k in range(n)]
    assert task.can_watch(cases)
    assert not task.can_watch(cases[1:])
    targets = torch.from_numpy(task.targets(cases))
    outputs = torch.nn.functional.one_hot(targets.long()).float()
    assert task.assess([(outputs, targets)])[1] == 1.0
    assert task.explain(torch.tensor([[3.0, 4.0]]), "y") == 4.0


def test_tally_counts_every_state():
    assert Findings(labels=("a",)).tally(ROW) == {
        "a": {"positive": 1, "uncertain": 1, "negative": 1}
    }
    cases = [case(0, y="x"), case(1, y="y"), case(2, y="")]
    assert Classes("y", ("x", "y")).tally(cases)["x"] == {
        "positive": 1,
        "negative": 1,
        "missing": 1,
    }


def test_labels_are_summed_up_by_what_they_say():
    assert Findings(labels=("a",)).summary(ROW) == "a 1+ 1-, 1 uncertain"
    unknown = [case(0, a="1"), case(1, a="")]
    assert Findings(labels=("a",)).summary(unknown) == "a 1+ 0-, 1 without a label"
    cases = [case(0, y="x"), case(1, y="y"), case(2, y="x"), case(3, y="")]
    assert Classes("y", ("x", "y")).summary(cases) == "x 2; y 1; 1 without a class"
    assert Classes("y", ("x", "y")).summary(cases[:3]) == "x 2; y 1"


def test_the_head_starts_from_the_prevalence_of_the_known_cases():
    assert Findings(labels=("a", "b")).head_bias(ROW) == pytest.approx([0.0, 0.0])
    ones = Findings(labels=("a",), uncertain={"a": "ones"})
    assert ones.head_bias(ROW) == pytest.approx([np.log(2)])  # 2 of 3
    cases = [case(0, y="x"), case(1, y="x"), case(2, y="y"), case(3, y="")]
    assert np.exp(Classes("y", ("x", "y")).head_bias(cases)) == pytest.approx([2 / 3, 1 / 3])


def test_a_finding_nobody_has_starts_from_a_finite_bias():
    cases = [case(0, a="0"), case(1, a="0")]
    assert Findings(labels=("a",)).head_bias(cases) == pytest.approx([np.log(0.001 / 0.999)])


def test_a_balanced_focal_loss_has_alpha_by_inverse_frequency():
    """`class_weight: balanced` was dropped without a word where the loss is focal."""
    cases = [case(n, a="1" if n < 2 else "0", b=["1", "0", ""][n % 3]) for n in range(10)]
    task = Findings(labels=("a", "b"), balanced=True, criterion=Focal()).weighted(cases)
    assert task.criterion.alpha == pytest.approx((0.8, 3 / 7))
    assert task.pos_weight is None
    assert Findings(labels=("a",), criterion=Focal()).weighted(cases).criterion.alpha is None
    outputs, targets = torch.zeros(1, 2), torch.tensor([[1.0, torch.nan]])
    assert float(task.loss(outputs, targets)) == pytest.approx(0.8 * 0.25 * math.log(2))


THREE = [case(n, y=word) for n, word in enumerate(("red", "green", "blue"))]


def test_a_focal_alpha_for_each_class_is_kept():
    """The negative control of the next test: it was replaced by None, here too."""
    focal = Focal(alpha=(0.2, 0.3, 0.9))
    task = classification_task(THREE, ["y"], criterion=focal)
    assert task.criterion == focal
    assert classification_task(THREE, ["y"], criterion=Focal()).criterion.alpha is None


@pytest.mark.parametrize(
    ("alpha", "columns", "found"),
    [
        (0.25, ["y"], "one focal alpha for 3 classes"),
        ((0.2, 0.9), ["y"], "2 focal alpha for 3 classes"),
        ((0.2, 0.9, 0.1), ["a", "b"], "3 focal alpha for 2 findings"),
    ],
)
def test_a_focal_alpha_of_another_number_of_outputs_is_refused(alpha, columns, found):
    """One alpha is that of the positive class; with three classes it was dropped in silence."""
    cases = THREE if columns == ["y"] else ROW
    with pytest.raises(RunError, match=rf"{found}.*alpha: \[\.\.\., .*class_weight: balanced"):
        classification_task(cases, columns, criterion=Focal(alpha=alpha))

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from medtl.losses.ordinal import (
    Coral,
    Corn,
    DistancePenalisedCrossEntropy,
    ExpectedValue,
    LabelDistribution,
    MeanVariance,
    coral_probabilities,
    corn_probabilities,
    decode_values,
)

NAN = float("nan")
EVEN = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
UNEVEN = torch.tensor([0.0, 6.0, 12.0, 24.0, 48.0], dtype=torch.float64)

OF_CLASSES = {
    "dpce": DistancePenalisedCrossEntropy(distance_strength=3.0),
    "dex": ExpectedValue(),
    "mean_variance": MeanVariance(),
    "label_distribution": LabelDistribution(sd=5.0),
}
OF_THRESHOLDS = {"coral": Coral(), "corn": Corn()}
ALL = OF_CLASSES | OF_THRESHOLDS


def logits_of(name: str, rows: int, values: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(0)
    columns = len(values) - (name in OF_THRESHOLDS)
    return torch.randn(rows, columns, dtype=torch.float64, requires_grad=True)


# ------------------------------------------------------------------ by hand


def test_distance_penalty_by_hand():
    # Uniform over 0, 1, 2 and the truth 0: distances 0, 1/4, 1 of the squared range.
    uniform = torch.zeros(1, 3, dtype=torch.float64)
    loss = DistancePenalisedCrossEntropy(distance_strength=2.0)(uniform, EVEN[:1], EVEN)
    assert loss.item() == pytest.approx(math.log(3) + 2.0 * (1.25 / 3))


def test_distance_penalty_is_in_physical_units():
    """Two units give one loss, and an uneven class counts as far as it lies."""
    torch.manual_seed(1)
    logits, months = torch.randn(4, 5, dtype=torch.float64), UNEVEN[[0, 1, 3, 4]]
    in_months = DistancePenalisedCrossEntropy(distance_strength=2.0)(logits, months, UNEVEN)
    in_years = DistancePenalisedCrossEntropy(distance_strength=2.0)(
        logits, months / 12, UNEVEN / 12
    )
    assert in_months.item() == pytest.approx(in_years.item())
    p, d = torch.softmax(logits[1], 0), ((UNEVEN - 6) / 48) ** 2
    by_hand = -p[1].log() + 2 * (p * d).sum()
    one = DistancePenalisedCrossEntropy(distance_strength=2.0)(logits[1:2], months[1:2], UNEVEN)
    assert one.item() == pytest.approx(by_hand.item())


def test_index_distances_would_swamp_the_cross_entropy():
    """Why the distance is normalised: the start of 228 monthly classes, from science.md 3.6."""
    months = torch.arange(228, dtype=torch.float64)
    uniform = torch.full((228,), 1 / 228, dtype=torch.float64)
    middle = (uniform * (months - 114) ** 2).sum().item()
    assert middle == pytest.approx(4332, rel=1e-3)
    assert math.log(228) == pytest.approx(5.43, abs=0.01)
    ours = DistancePenalisedCrossEntropy(distance_strength=1.0)(
        torch.zeros(1, 228, dtype=torch.float64), months[114:115], months
    )
    assert ours.item() - math.log(228) == pytest.approx(1 / 12, rel=0.01)


def test_the_gradient_of_the_distance_penalty_has_its_closed_form():
    logits = logits_of("dpce", 1, UNEVEN)
    DistancePenalisedCrossEntropy(distance_strength=3.0)(logits, UNEVEN[3:4], UNEVEN).backward()
    p, d = torch.softmax(logits.detach()[0], 0), ((UNEVEN - 24) / 48) ** 2
    closed = p - functional.one_hot(torch.tensor(3), 5) + 3.0 * p * (d - (p * d).sum())
    assert torch.allclose(logits.grad[0], closed, atol=1e-14)


def test_the_distance_penalty_is_squared_error_of_the_mean_plus_variance():
    logits, target = logits_of("dpce", 1, UNEVEN).detach(), torch.tensor([17.0])
    with_penalty, without = (
        DistancePenalisedCrossEntropy(distance_strength=s)(logits, target, UNEVEN).item()
        for s in (1, 0)
    )
    p = torch.softmax(logits[0], 0)
    mean = (p * UNEVEN).sum()
    variance = (p * (UNEVEN - mean) ** 2).sum()
    squares = ((variance + (mean - 17) ** 2) / 48**2).item()
    assert with_penalty - without == pytest.approx(squares)


def test_expected_value_by_hand():
    # Uniform over 0, 1, 2: the mean is 1, the truth 0.
    uniform = torch.zeros(1, 3, dtype=torch.float64)
    loss = ExpectedValue(strength=0.5)(uniform, EVEN[:1], EVEN)
    assert loss.item() == pytest.approx(math.log(3) + 0.5)


def test_mean_variance_by_hand():
    # Mean 1 and truth 0: 0.2 / 2 * 1; variance 2/3: 0.05 * 2/3.
    uniform = torch.zeros(1, 3, dtype=torch.float64)
    assert MeanVariance()(uniform, EVEN[:1], EVEN).item() == pytest.approx(
        math.log(3) + 0.1 + 0.05 * 2 / 3
    )


def test_label_distribution_by_hand_and_at_its_optimum():
    # q of truth 1, SD 1: exp(-1/2), 1, exp(-1/2), over their sum.
    weights = np.exp([-0.5, 0.0, -0.5])
    q = weights / weights.sum()
    uniform = torch.zeros(1, 3, dtype=torch.float64)
    loss = LabelDistribution(sd=1.0)(uniform, EVEN[1:2], EVEN)
    assert loss.item() == pytest.approx(float((q * np.log(3 * q)).sum()))
    best = LabelDistribution(sd=1.0)(torch.from_numpy(np.log(q))[None], EVEN[1:2], EVEN)
    assert best.item() == pytest.approx(0, abs=1e-15)


def test_label_distribution_takes_ages_between_the_classes():
    between = torch.tensor([0.4], dtype=torch.float64)
    exact = (-((EVEN - 0.4) ** 2) / 2)[None]
    assert LabelDistribution(sd=1.0)(exact, between, EVEN).item() == pytest.approx(0, abs=1e-15)


def test_coral_equals_the_published_example():
    """The example of coral-pytorch's documentation: levels of classes 2, 1 and 4 of five."""
    logits = torch.tensor(
        [[2.1, 1.8, -2.1, -1.8], [1.9, -1.0, -1.5, -1.3], [1.9, 1.8, 1.7, 1.6]],
    )
    loss = Coral()(logits, torch.tensor([2.0, 1.0, 4.0]), torch.arange(5.0))
    assert loss.item() == pytest.approx(0.6920, abs=5e-5)


def test_corn_equals_the_authors_loop():
    torch.manual_seed(3)
    logits, classes = torch.randn(9, 4), torch.tensor([0, 4, 2, 2, 1, 3, 0, 4, 1])
    total, number = torch.zeros(()), 0
    for k in range(4):  # the published implementation, threshold by threshold
        subset = classes > k - 1
        above = (classes[subset] > k).float()
        z = logits[subset, k]
        log = functional.logsigmoid(z)
        total -= (log * above + (log - z) * (1 - above)).sum()
        number += len(above)
    ours = Corn()(logits, classes.float(), torch.arange(5.0))
    assert ours.item() == pytest.approx((total / number).item(), rel=1e-5)


# --------------------------------------------------------------- invariants


@pytest.mark.parametrize("name", ALL)
def test_gradients_agree_with_finite_differences(name):
    targets = torch.tensor([6.0, NAN, 40.0, 0.0, 20.0], dtype=torch.float64)
    logits = logits_of(name, 5, UNEVEN)
    assert torch.autograd.gradcheck(lambda z: ALL[name](z, targets, UNEVEN), (logits,))


@pytest.mark.parametrize("name", ALL)
def test_unknown_ages_do_not_count(name):
    logits = logits_of(name, 3, UNEVEN)
    targets = torch.tensor([24.0, NAN, 6.0], dtype=torch.float64)
    loss = ALL[name](logits, targets, UNEVEN)
    loss.backward()
    assert (logits.grad[1] == 0).all()
    known = ALL[name](logits[[0, 2]], targets[[0, 2]], UNEVEN)
    assert loss.item() == pytest.approx(known.item())


@pytest.mark.parametrize("name", ALL)
def test_a_batch_without_truth_is_zero_and_still_has_a_gradient(name):
    logits = logits_of(name, 2, UNEVEN)
    value = ALL[name](logits, torch.full((2,), NAN, dtype=torch.float64), UNEVEN)
    value.backward()
    assert value.item() == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("name", OF_CLASSES)
def test_descent_leads_to_the_true_value(name):
    logits = torch.zeros(1, 5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        OF_CLASSES[name](logits, UNEVEN[3:4], UNEVEN).backward()
        optimizer.step()
    p = torch.softmax(logits.detach(), 1)
    assert decode_values(p, UNEVEN, "argmax").item() == 24
    assert decode_values(p, UNEVEN, "mean").item() == pytest.approx(24, abs=1.5)


# ------------------------------------------------------------------ decoding


def test_decoding_by_hand():
    p = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.0, 1.0, 0.0]], dtype=torch.float64)
    assert decode_values(p, EVEN, "argmax").tolist() == [0, 2, 1]
    assert decode_values(p, EVEN, "mean").tolist() == pytest.approx([0.7, 1.6, 1.0])
    # Classes reach from -0.5 to 0.5, to 1.5, to 2.5: half of row 2 lies 0.2 / 0.7 into the last.
    assert decode_values(p, EVEN, "median").tolist() == pytest.approx([0.5, 1.5 + 2 / 7, 1.0])


def test_a_certain_class_decodes_to_its_value_on_an_even_grid():
    values = torch.arange(6, dtype=torch.float64) * 6 + 3
    for decoding in ("argmax", "mean", "median"):
        assert decode_values(torch.eye(6).double(), values, decoding).tolist() == values.tolist()


def test_the_median_has_the_least_expected_absolute_error():
    torch.manual_seed(4)
    values = torch.linspace(0, 100, 201, dtype=torch.float64)
    p = torch.softmax(torch.randn(1, 201, dtype=torch.float64), dim=1)
    errors = {
        how: (p[0] * (values - decode_values(p, values, how)).abs()).sum().item()
        for how in ("argmax", "mean", "median")
    }
    assert min(errors, key=errors.__getitem__) == "median"


def test_probabilities_of_coral_by_hand():
    # P(> 0) = 0.8, P(> 1) = 0.3
    logits = torch.logit(torch.tensor([[0.8, 0.3]], dtype=torch.float64))
    p = coral_probabilities(logits)
    assert p[0].tolist() == pytest.approx([0.2, 0.5, 0.3])
    # E = 0 * 0.2 + 1 * 0.5 + 2 * 0.3, which is also the sum of the chances of being above.
    assert decode_values(p, EVEN, "mean").item() == pytest.approx(0.8 + 0.3)


def test_probabilities_of_corn_are_products():
    logits = torch.logit(torch.tensor([[0.8, 0.5]], dtype=torch.float64))
    assert corn_probabilities(logits)[0].tolist() == pytest.approx([0.2, 0.4, 0.4])


@pytest.mark.parametrize("probabilities", [coral_probabilities, corn_probabilities])
def test_probabilities_are_none_below_zero_and_sum_to_one(probabilities):
    torch.manual_seed(5)
    p = probabilities(3 * torch.randn(20, 7, dtype=torch.float64))
    assert (p >= 0).all()
    assert p.sum(dim=1).numpy() == pytest.approx(np.ones(20))


@pytest.mark.parametrize("probabilities", [coral_probabilities, corn_probabilities])
def test_the_median_lies_in_the_class_of_the_published_rank(probabilities):
    """Published decoding: the number of thresholds that are passed with more than a half."""
    torch.manual_seed(6)
    logits = torch.randn(50, 4, dtype=torch.float64).sort(dim=1, descending=True).values
    above = torch.sigmoid(logits)
    above = above.cumprod(dim=1) if probabilities is corn_probabilities else above
    rank = (above > 0.5).sum(dim=1)
    median = decode_values(probabilities(logits), torch.arange(5).double(), "median")
    assert ((median - rank).abs() <= 0.5).all()

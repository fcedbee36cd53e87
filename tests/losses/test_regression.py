import pytest
import torch
from torch.nn import functional

from medtl.losses.known import mean_over_known
from medtl.losses.quantity import L1, Huber, MeanSquaredError

NAN = float("nan")
LOSSES = [L1(), MeanSquaredError(), Huber(delta=1.0)]


def test_by_hand():
    predictions, targets = torch.tensor([1.0, 5.0, 9.0]), torch.tensor([1.5, 2.0, NAN])
    assert L1()(predictions, targets).item() == pytest.approx((0.5 + 3) / 2)
    assert MeanSquaredError()(predictions, targets).item() == pytest.approx((0.25 + 9) / 2)
    # 0.5 * 0.5^2 within delta = 1; 1 * (3 - 0.5) beyond it.
    assert Huber(delta=1.0)(predictions, targets).item() == pytest.approx((0.125 + 2.5) / 2)


def test_huber_lies_between_the_square_and_the_line():
    predictions, targets = torch.linspace(-3, 3, 50), torch.zeros(50)
    square = MeanSquaredError()(predictions, targets).item() / 2
    assert Huber(delta=1e3)(predictions, targets).item() == pytest.approx(square)
    thin = Huber(delta=1e-4)(predictions, targets).item() / 1e-4
    assert thin == pytest.approx(L1()(predictions, targets).item(), abs=1e-3)


@pytest.mark.parametrize("loss", LOSSES)
def test_unknown_targets_have_exactly_no_gradient(loss):
    predictions = torch.randn(3, requires_grad=True)
    loss(predictions, torch.tensor([10.0, NAN, -10.0])).backward()
    assert predictions.grad[1] == 0
    assert (predictions.grad[[0, 2]] != 0).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_batch_without_truth_is_zero_and_still_has_a_gradient(loss):
    predictions = torch.randn(2, requires_grad=True)
    value = loss(predictions, torch.full((2,), NAN))
    value.backward()
    assert value.item() == 0
    assert (predictions.grad == 0).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_agree_with_finite_differences(loss):
    predictions = torch.tensor([0.2, -1.7, 3.0], dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0.5, 1.0, NAN], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: loss(p, targets), (predictions,))


@pytest.mark.parametrize("loss", LOSSES)
def test_a_column_against_a_vector_is_refused(loss):
    with pytest.raises(ValueError, match=r"predictions \(3, 1\), targets \(3,\)"):
        loss(torch.zeros(3, 1), torch.zeros(3))


def test_torch_would_compare_every_case_with_every_other():
    """The negative control of the test above."""
    with pytest.warns(UserWarning, match="different to the input size"):
        wrong = functional.l1_loss(torch.zeros(2, 1), torch.tensor([1.0, -1.0]), reduction="none")
    assert wrong.shape == (2, 2)


def test_mean_over_known_by_hand():
    loss, known = torch.tensor([1.0, 7.0, 3.0]), torch.tensor([True, False, True])
    assert mean_over_known(loss, known).item() == 2
    assert mean_over_known(loss, torch.zeros(3, dtype=torch.bool)).item() == 0

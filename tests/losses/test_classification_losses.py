import math

import pytest
import torch
from torch.nn import functional

from medtl.losses.cross_entropy import CrossEntropy, Focal

NAN = float("nan")


def test_masked_bce_by_hand():
    # -log sigmoid(0) = log 2 for the known cell; the unknown one does not count.
    loss = CrossEntropy()(torch.tensor([[0.0, 5.0]]), torch.tensor([[1.0, NAN]]))
    assert loss.item() == pytest.approx(math.log(2))


def test_masked_bce_equals_torch_when_everything_is_known():
    torch.manual_seed(0)
    logits, targets = torch.randn(8, 3), torch.randint(0, 2, (8, 3)).float()
    weight = torch.tensor([1.0, 2.0, 3.0])
    ours = CrossEntropy()(logits, targets, weight=weight)
    theirs = functional.binary_cross_entropy_with_logits(logits, targets, pos_weight=weight)
    assert ours.item() == pytest.approx(theirs.item())


@pytest.mark.parametrize("loss", [CrossEntropy(), Focal()])
def test_unknown_findings_have_exactly_no_gradient(loss):
    logits = torch.randn(4, 2, requires_grad=True)
    targets = torch.tensor([[1.0, NAN], [NAN, 0.0], [NAN, NAN], [0.0, 1.0]])
    loss(logits, targets).backward()
    unknown = torch.isnan(targets)
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[unknown] == 0).all()
    assert (logits.grad[~unknown] != 0).all()


def test_masking_after_the_loss_would_give_nan_gradients():
    """The negative control: the popular way to mask fails the test above."""
    logits = torch.randn(1, 2, requires_grad=True)
    targets = torch.tensor([[1.0, NAN]])
    loss = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    (loss * ~torch.isnan(targets)).sum().backward()
    assert not torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("loss", [CrossEntropy(), Focal()])
def test_a_batch_without_truth_is_zero_and_still_has_a_gradient(loss):
    logits = torch.randn(2, 2, requires_grad=True)
    value = loss(logits, torch.full((2, 2), NAN))
    value.backward()
    assert value.item() == 0
    assert (logits.grad == 0).all()


def test_label_smoothing_moves_targets_towards_a_half():
    # y = 1, eps = 0.2 -> target 0.9
    logit = torch.tensor([[2.0]])
    smoothed = CrossEntropy(label_smoothing=0.2)(logit, torch.tensor([[1.0]]))
    expected = functional.binary_cross_entropy_with_logits(logit, torch.tensor([[0.9]]))
    assert smoothed.item() == pytest.approx(expected.item())


def test_sigmoid_focal_by_hand():
    # p = 0.5: -(0.5)^2 log 0.5, alpha 0.25 for the positive
    loss = Focal(gamma=2.0, alpha=0.25)(torch.tensor([[0.0]]), torch.tensor([[1.0]]))
    assert loss.item() == pytest.approx(0.25 * 0.25 * math.log(2))


def test_sigmoid_focal_without_focus_is_cross_entropy():
    torch.manual_seed(0)
    logits, targets = torch.randn(9, 2), torch.randint(0, 2, (9, 2)).float()
    assert float(Focal(gamma=0.0)(logits, targets)) == pytest.approx(
        float(CrossEntropy()(logits, targets)), rel=1e-6
    )


def test_sigmoid_focal_equals_torchvision():
    from torchvision.ops import sigmoid_focal_loss

    torch.manual_seed(1)
    logits, targets = torch.randn(9, 2), torch.randint(0, 2, (9, 2)).float()
    theirs = sigmoid_focal_loss(logits, targets, alpha=0.3, gamma=2.0, reduction="mean")
    ours = Focal(gamma=2.0, alpha=0.3)(logits, targets)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


def test_cross_entropy_leaves_unknown_classes_out():
    logits = torch.randn(3, 4, requires_grad=True)
    loss = CrossEntropy()(logits, torch.tensor([2.0, NAN, 0.0]))
    loss.backward()
    expected = functional.cross_entropy(logits[[0, 2]], torch.tensor([2, 0]))
    assert loss.item() == pytest.approx(expected.item())
    assert (logits.grad[1] == 0).all()


def test_class_weights_do_not_depend_on_the_batch():
    """torch divides by the weights in the batch, so a batch of one class ignores its weight."""
    logits = torch.zeros(2, 2)
    weight = torch.tensor([3.0, 1.0])
    loss = CrossEntropy()(logits, torch.tensor([0.0, 0.0]), weight=weight)
    theirs = functional.cross_entropy(logits, torch.tensor([0, 0]), weight=weight)
    assert loss.item() == pytest.approx(3 * math.log(2))
    assert theirs.item() == pytest.approx(math.log(2))


def test_softmax_focal_is_a_mean_over_cases_not_over_classes():
    torch.manual_seed(2)
    logits, classes = torch.randn(6, 5), torch.randint(0, 5, (6,)).float()
    p = torch.softmax(logits, 1)[torch.arange(6), classes.long()]
    by_hand = (-((1 - p) ** 2) * p.log()).mean()
    assert float(Focal(gamma=2.0)(logits, classes)) == pytest.approx(float(by_hand))


def test_softmax_focal_without_focus_is_cross_entropy():
    logits, classes = torch.randn(6, 3), torch.tensor([0.0, 1.0, 2.0, 0.0, 1.0, NAN])
    assert float(Focal(gamma=0.0)(logits, classes)) == pytest.approx(
        float(CrossEntropy()(logits, classes))
    )


@pytest.mark.parametrize("loss", [CrossEntropy(), Focal()])
def test_gradients_agree_with_finite_differences(loss):
    logits = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[1.0, 0.0], [NAN, 1.0], [0.0, NAN]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: loss(z, targets), (logits,))


@pytest.mark.parametrize("gamma", [0.25, 0.5, 0.99, 2.0])
@pytest.mark.parametrize("logit", [30.0, 200.0])
def test_focal_has_a_gradient_at_certain_answers(gamma: float, logit: float) -> None:
    """Below 1, (1 - p)^gamma has an infinite slope where p is 1."""
    findings = torch.tensor([[logit, -logit]], requires_grad=True)
    Focal(gamma=gamma)(findings, torch.tensor([[1.0, 0.0]])).backward()
    classes = torch.tensor([[logit, -logit, 0.0]], requires_grad=True)
    Focal(gamma=gamma)(classes, torch.tensor([0.0])).backward()
    assert findings.grad.isfinite().all()
    assert classes.grad.isfinite().all()


def test_a_soft_target_is_in_part_either() -> None:
    logits = torch.tensor([[0.7]])
    positive, negative, soft = (
        float(Focal(gamma=2.0, alpha=0.25)(logits, torch.tensor([[target]])))
        for target in (1.0, 0.0, 0.6)
    )
    assert soft == pytest.approx(0.6 * positive + 0.4 * negative)
    assert abs(soft - positive) > 0.01  # so it was: a target above one half counted as 1


def test_smoothed_softmax_focal_by_hand():
    """Keras' categorical form: the focal loss of each class for its share of the target.

    `label_smoothing` did nothing where the loss is focal.
    """
    p = torch.tensor([0.7, 0.2, 0.1])
    share = torch.tensor([0.8 + 0.2 / 3, 0.2 / 3, 0.2 / 3])
    by_hand = -(share * (1 - p) ** 2 * p.log()).sum()
    loss = Focal(gamma=2.0, label_smoothing=0.2)
    logits, truth = p.log()[None], torch.tensor([0.0])
    assert loss(logits, truth).item() == pytest.approx(by_hand.item(), rel=1e-5)
    weight = torch.tensor([3.0, 1.0, 0.5])
    weighted = -(weight * share * (1 - p) ** 2 * p.log()).sum()
    assert loss(logits, truth, weight=weight).item() == pytest.approx(weighted.item(), rel=1e-5)
    assert Focal(gamma=2.0)(logits, truth).item() != pytest.approx(by_hand.item(), rel=1e-2)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_smoothed_focal_without_focus_is_smoothed_cross_entropy(smoothing):
    torch.manual_seed(3)
    focal, plain = Focal(0.0, label_smoothing=smoothing), CrossEntropy(label_smoothing=smoothing)
    logits, findings = torch.randn(9, 3), torch.randint(0, 2, (9, 3)).float()
    classes = torch.tensor([0.0, 1.0, 2.0, 0.0, NAN, 1.0, 1.0, 2.0, 0.0])
    for targets in (findings, classes):
        assert focal(logits, targets).item() == pytest.approx(
            plain(logits, targets).item(), rel=1e-5
        )


def test_two_classes_and_one_finding_have_the_same_smoothed_focal_loss():
    logit = torch.tensor([0.4, -1.3])
    loss = Focal(gamma=2.0, label_smoothing=0.1)
    classes = loss(torch.stack((torch.zeros(2), logit), dim=1), torch.tensor([1.0, 0.0]))
    finding = loss(logit[:, None], torch.tensor([[1.0], [0.0]]))
    assert classes.item() == pytest.approx(finding.item(), rel=1e-5)


def test_an_uncertain_target_pulls_focal_towards_itself():
    """With `uncertain: smoothed` it acted as `ones`: its least was at a probability of 1."""
    logits = torch.linspace(-6, 6, 241)[:, None]
    losses = torch.stack([Focal(gamma=2.0)(z[None], torch.tensor([[0.7]])) for z in logits])
    best = torch.sigmoid(logits[losses.argmin()]).item()
    assert 0.55 < best < 0.75

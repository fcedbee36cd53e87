import math

import numpy as np
import pytest
import torch

from medtl.losses.auc import PairwiseLogistic

NAN = float("nan")
pairwise_logistic = PairwiseLogistic()


def test_by_hand():
    # One positive at 2, negatives at 1 and 3: softplus(-1) and softplus(1), averaged.
    logits = torch.tensor([[2.0], [1.0], [3.0]])
    loss = pairwise_logistic(logits, torch.tensor([[1.0], [0.0], [0.0]]))
    expected = (math.log1p(math.exp(-1)) + math.log1p(math.exp(1))) / 2
    assert loss.item() == pytest.approx(expected)


def test_every_finding_counts_the_same_and_one_without_a_pair_not_at_all():
    logits = torch.tensor([[2.0, 0.0, 5.0], [1.0, 0.0, 5.0]])
    targets = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
    expected = (math.log1p(math.exp(-1)) + math.log(2)) / 2
    assert pairwise_logistic(logits, targets).item() == pytest.approx(expected)


def test_unknown_cells_form_no_pair_and_have_no_gradient():
    logits = torch.randn(4, 1, requires_grad=True)
    targets = torch.tensor([[1.0], [NAN], [0.0], [NAN]])
    loss = pairwise_logistic(logits, targets)
    loss.backward()
    known = pairwise_logistic(logits[[0, 2]], targets[[0, 2]])
    assert loss.item() == pytest.approx(known.item())
    assert (logits.grad[[1, 3]] == 0).all()


def test_a_batch_of_one_class_is_zero_and_still_has_a_gradient():
    logits = torch.randn(3, 2, requires_grad=True)
    value = pairwise_logistic(logits, torch.ones(3, 2))
    value.backward()
    assert value.item() == 0
    assert (logits.grad == 0).all()


def test_it_bounds_the_share_of_pairs_in_the_wrong_order():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    for _ in range(20):
        truth = np.r_[1, 0, rng.integers(0, 2, 30)]
        score = rng.normal(size=32)
        columns = (torch.from_numpy(x.astype(float))[:, None] for x in (score, truth))
        bound = pairwise_logistic(*columns).item() / math.log(2)
        assert bound >= 1 - roc_auc_score(truth, score)


def test_the_level_of_the_scores_does_not_matter():
    logits, targets = torch.randn(8, 1), torch.tensor([[1.0], [0.0]]).repeat(4, 1)
    moved = pairwise_logistic(logits + 7, targets).item()
    assert moved == pytest.approx(pairwise_logistic(logits, targets).item(), rel=1e-5)


def test_gradients_agree_with_finite_differences():
    logits = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[1.0, 0.0], [NAN, 1.0], [0.0, NAN], [1.0, 1.0], [0.0, 0.0]])
    assert torch.autograd.gradcheck(lambda z: pairwise_logistic(z, targets), (logits,))


def test_classes_are_taken_one_against_the_rest():
    torch.manual_seed(0)
    logits, classes = torch.randn(6, 3), torch.tensor([0.0, 1.0, 2.0, NAN, 1.0, 0.0])
    one_hot = torch.eye(3)[classes.nan_to_num().long()]
    one_hot[3] = NAN
    assert pairwise_logistic(logits, classes).item() == pairwise_logistic(logits, one_hot).item()

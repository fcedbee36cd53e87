import numpy as np
import pytest
import torch
from torch import nn

from medtl.losses.penalty import Penalty, penalised_weights


def test_elastic_penalty_by_hand():
    weight = torch.tensor([[1.0, -2.0]])
    # 0.1 * (0.25 * 3 + 0.75 * 5)
    assert float(Penalty(0.1, 0.25)([weight])) == pytest.approx(0.45)


def test_the_l2_gradient_is_twice_the_weight_and_zero_at_zero():
    weight = torch.tensor([[0.0, 3.0]], requires_grad=True)
    Penalty(1.0, 0.0)([weight]).backward()
    assert weight.grad.tolist() == [[0.0, 6.0]]


def test_equals_scikit_learn_on_a_linear_model():
    """min mean squared error / 2 + penalty has scikit-learn's ElasticNet solution."""
    from sklearn.linear_model import ElasticNet

    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    y = x @ np.array([1.0, -2.0, 0.5]) + 0.1 * rng.normal(size=200)
    alpha, ratio = 0.1, 0.3
    reference = ElasticNet(alpha=alpha, l1_ratio=ratio, fit_intercept=False, tol=1e-10).fit(x, y)
    w = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    # Ours: strength * (r |w| + (1 - r) w^2); scikit-learn halves the squared term.
    strength = alpha * (ratio + (1 - ratio) / 2)
    l1_ratio = alpha * ratio / strength
    optimizer = torch.optim.LBFGS([w], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        residual = torch.from_numpy(y) - torch.from_numpy(x) @ w[0]
        loss = residual.square().mean() / 2
        loss = loss + Penalty(strength, l1_ratio)([w])
        loss.backward()
        return loss

    optimizer.step(closure)
    assert w.detach().numpy()[0] == pytest.approx(reference.coef_, abs=1e-4)


def test_biases_and_norms_are_not_penalised():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 1))
    model[2].weight.requires_grad_(False)
    assert [tuple(p.shape) for p in penalised_weights(model.parameters())] == [(2, 1, 3, 3)]


def test_no_weights_is_an_error():
    with pytest.raises(ValueError, match="at least one weight"):
        Penalty(1.0, 0.0)([])

import pytest
import torch
from torch import nn

from medtl.errors import RunError
from medtl.training.optimizer import make_optimizer, parameter_groups, set_rate


def network():
    return nn.ModuleDict(
        {"stem": nn.Conv2d(1, 2, 3), "top": nn.BatchNorm2d(2), "head": nn.Linear(2, 1)}
    )


def named(model):
    return [(n, [f"{n}.{p}" for p, _ in m.named_parameters()]) for n, m in model.items()]


def groups(model, **options):
    options = {"lr": {"head": 1e-3, "base": 1e-4}, **options}
    return {g["name"]: g for g in parameter_groups(model, named(model), **options)}


def test_every_trainable_parameter_once_and_frozen_ones_nowhere():
    model = network()
    model["stem"].requires_grad_(False)
    held = [id(p) for g in groups(model).values() for p in g["params"]]
    trainable = [id(p) for p in model.parameters() if p.requires_grad]
    assert sorted(held) == sorted(trainable)


def test_rates_decay_with_depth_and_the_head_has_its_own():
    found = groups(network(), layer_decay=0.5)
    assert found["head"]["lr"] == 1e-3
    assert found["top/no_decay"]["lr"] == pytest.approx(1e-4)
    assert found["stem"]["lr"] == pytest.approx(0.5e-4)


def test_no_decay_on_biases_and_norms():
    found = groups(network(), weight_decay=0.1)
    decayed = {name for name, group in found.items() if group["weight_decay"] > 0}
    assert decayed == {"stem", "head"}
    assert all(p.ndim > 1 for name in decayed for p in found[name]["params"])


def test_one_sgd_step_decays_weights_by_the_closed_form():
    model = network()
    optimizer = make_optimizer("sgd", list(groups(model, weight_decay=0.1).values()))
    set_rate(optimizer, 1.0)
    before = model["head"].weight.detach().clone()
    bias = model["head"].bias.detach().clone()
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    # Nesterov: step = lr * (g + momentum * g) with g = decay * w
    assert torch.allclose(model["head"].weight, before * (1 - 1e-3 * 0.1 * 1.9))
    assert torch.equal(model["head"].bias, bias)


def test_nothing_trains():
    model = network().requires_grad_(False)
    with pytest.raises(RunError, match="no parameter trains"):
        groups(model)


def test_a_base_rate_is_needed_below_the_head():
    with pytest.raises(RunError, match="stem, top train without a learning rate"):
        groups(network(), lr={"head": 1e-3})


def test_a_multiplied_parameter_has_its_own_rate_and_no_decay():
    """The gammas of zero-gamma: once, apart from their group, whatever their shape."""
    model = network()
    factors = {"top.weight": 10.0, "stem.weight": 0.0, "head.missing": 3.0}
    found = groups(model, weight_decay=0.1, multipliers=factors)
    assert found["top/gamma"]["params"] == [model["top"].weight]
    assert found["top/gamma"]["lr"] == pytest.approx(1e-3)
    assert found["stem/gamma"]["lr"] == 0
    assert found["stem/gamma"]["weight_decay"] == found["top/gamma"]["weight_decay"] == 0
    assert found["top/no_decay"]["params"] == [model["top"].bias]
    held = [id(p) for g in found.values() for p in g["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())


def test_a_stage_starts_with_an_empty_state():
    """Groups that were trained before get no old momentum; science.md 2.2."""
    model = network()
    model["stem"].requires_grad_(False)
    first = make_optimizer("adamw", list(groups(model).values()))
    sum(p.sum() for p in model.parameters()).backward()
    set_rate(first, 1.0)
    first.step()
    assert first.state
    model["stem"].requires_grad_(True)
    second = make_optimizer("adamw", list(groups(model).values()))
    assert not second.state

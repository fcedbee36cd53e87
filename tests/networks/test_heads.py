import pytest
import torch

from medtl.networks.backbones import build_classifier
from medtl.networks.heads import SharedLinear, share_weights
from medtl.networks.weights import WeightsSource


def test_thresholds_differ_by_their_biases_alone():
    layer = SharedLinear(torch.tensor([[1.0, -2.0]]), 3)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([5.0, 0.0, -5.0]))
    # 1 * 3 - 2 * 1 = 1, plus the biases
    assert layer(torch.tensor([[3.0, 1.0]])).tolist() == [[6.0, 1.0, -4.0]]


def test_a_classifier_gets_one_weight_vector_and_keeps_its_biases():
    torch.manual_seed(0)
    model, _ = build_classifier(
        "resnet18", outputs=4, weights=WeightsSource("none"), extra_features=1
    )
    first = model.head.linear.weight[:1].clone()
    share_weights(model.head)
    model.set_bias([2.0, 1.0, 0.0, -1.0])
    assert torch.equal(model.head.linear.weight, first)
    assert [name for name, _ in model.head.named_parameters()] == ["linear.weight", "linear.bias"]
    model.eval()
    logits = model(torch.randn(2, 3, 32, 32), torch.ones(2, 1))
    assert logits.diff(dim=1).detach().numpy() == pytest.approx(-1.0, abs=1e-6)

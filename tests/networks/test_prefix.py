from dataclasses import replace

import pytest
import torch

from medtl.networks.backbones import build_classifier
from medtl.networks.freeze import apply_stage
from medtl.networks.groups import layer_groups
from medtl.networks.prefix import cut_before_trained, is_exact
from medtl.networks.selectors import resolve
from medtl.networks.weights import WeightsSource

X = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
EXTRA = torch.tensor([[1.0], [-1.0], [0.0]])


def staged(name: str, train: str):
    torch.manual_seed(0)
    model, _ = build_classifier(
        name, outputs=2, weights=WeightsSource("none"), dropout=0.5, extra_features=1
    )
    groups = layer_groups(model)
    chosen = resolve(train, [group.name for group in groups])
    apply_stage(model, groups, train=chosen, batch_norm={})
    return model, cut_before_trained(model, groups, chosen)


@pytest.mark.parametrize("train", ["head", "head,last:1", "head,last:2"])
@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext"])
def test_the_cut_network_gives_the_bits_of_the_whole(name, train):
    model, cut = staged(name, train)
    assert is_exact(model, cut, X, EXTRA)
    assert "head" not in cut.frozen
    assert all(not tensor.requires_grad for tensor in cut.tensors.values())


def test_the_rest_shares_its_parameters_and_statistics():
    model, cut = staged("test_resnet", "head,last:1")
    ours = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    assert {id(t) for t in (*cut.suffix.parameters(), *cut.suffix.buffers())} < ours
    trained = [p for p in model.parameters() if p.requires_grad]
    cut.suffix(cut.prefix(X), EXTRA).sum().backward()
    from_cut = [p.grad.clone() for p in trained]
    model.zero_grad()
    model.eval()
    cut.suffix.eval()
    model(X, EXTRA).sum().backward()
    whole = [p.grad.clone() for p in trained]
    model.zero_grad()
    cut.suffix(cut.prefix(X), EXTRA).sum().backward()
    assert all(torch.equal(p.grad, g) for p, g in zip(trained, whole, strict=True))
    assert len(from_cut) == len(trained)


def test_a_network_that_trains_from_its_first_layer_is_not_cut():
    assert staged("test_resnet", "all")[1] is None
    assert staged("test_resnet", "first:1")[1] is None


def test_a_transformer_is_found_not_to_be_a_chain():
    """The negative control: its position embedding is added outside of any layer group."""
    model, cut = staged("vit_tiny_patch16_224", "head,last:1")
    assert not is_exact(model, cut, torch.randn(1, 3, 224, 224), EXTRA[:1])


@pytest.mark.parametrize("error", [TypeError, IndexError, AttributeError, ValueError, KeyError])
def test_whatever_a_cut_network_raises_it_is_no_chain(error):
    model, cut = staged("test_resnet", "head,last:1")

    def broken(_images):
        raise error("only the whole network knows what to do here")

    assert is_exact(model, cut, X, EXTRA)
    assert not is_exact(model, replace(cut, prefix=broken), X, EXTRA)


def test_statistics_that_follow_the_data_are_no_prefix_of_the_stored_result():
    """Why a prefix must be frozen: in training mode the same images give another result."""
    model, cut = staged("test_resnet", "head")
    before = cut.prefix(X)
    for module in model.modules():
        module._forward_pre_hooks.clear()
    model.train()
    model(X, EXTRA)
    model.eval()
    assert not torch.equal(cut.prefix(X), before)

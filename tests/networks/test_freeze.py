import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from medtl.errors import RunError, SelectorError
from medtl.networks.backbones import Classifier, build_classifier
from medtl.networks.batch_norm import hold_in_eval, recalibrate, tracks_statistics
from medtl.networks.freeze import apply_stage, plan_table
from medtl.networks.groups import layer_groups
from medtl.networks.segmenter import build_segmenter
from medtl.networks.weights import WeightsSource


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """A copy of every parameter and buffer, batch counters included."""
    tensors = (*model.named_parameters(), *model.named_buffers())
    return {name: tensor.detach().clone() for name, tensor in tensors}


def changed_tensors(model: nn.Module, before: dict[str, Tensor]) -> set[str]:
    """Names of the tensors of which any bit moved."""
    return {n for n, tensor in snapshot(model).items() if not torch.equal(tensor, before[n])}


def changed_groups(model: nn.Module, before: dict[str, Tensor]) -> set[str]:
    changed = changed_tensors(model, before)
    groups = layer_groups(model)
    return {g.name for g in groups if changed.intersection((*g.parameters, *g.buffers))}


def changed_buffers(model: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return changed_tensors(model, before).intersection(name for name, _ in model.named_buffers())


def steps(model: nn.Module, images: Tensor, number: int = 3, *, wake=None) -> None:
    """Train with a weight decay that would move anything left in the optimiser."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.05, weight_decay=0.5)
    model.train()
    for _ in range(number):
        (wake or nn.Module.train)(model)
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()


def wake_everything(model: nn.Module) -> None:
    """What user code may do: train() on the model and on every module inside, and by hand."""
    model.train()
    for module in model.modules():
        nn.Module.train(module)


def check_three_stages(model: Classifier, images: Tensor, wake) -> None:
    """Train the head, then the last group too, then all: only those may change."""
    groups = layer_groups(model)
    names = [group.name for group in groups]
    for trained in (("head",), (names[-2], "head"), tuple(names)):
        before = snapshot(model)
        apply_stage(model, groups, train=trained, batch_norm=dict.fromkeys(trained, "adapt"))
        steps(model, images, 2, wake=wake)
        assert changed_groups(model, before) == set(trained)


@pytest.mark.parametrize("wake", [nn.Module.train, wake_everything])
def test_frozen_groups_keep_every_bit_through_three_stages(toy, images, wake):
    check_three_stages(toy, images, wake)


def real_network(name: str) -> tuple[nn.Module, Tensor]:
    """A network of each library, and images for it."""
    torch.manual_seed(0)
    if name == "3D ResNet-10 of MONAI":
        from monai.networks.nets import resnet10

        model = resnet10(spatial_dims=3, n_input_channels=1, num_classes=2)
        return model, torch.randn(4, 1, 16, 16, 16)
    if name == "U-Net of smp":
        weights = WeightsSource("none")
        net, _ = build_segmenter("resnet18", outputs=2, patch=(32, 32), weights=weights)
        return net, torch.randn(4, 3, 32, 32)
    model, _ = build_classifier(name, outputs=2, weights=WeightsSource("none"), dropout=0.2)
    return model, torch.randn(4, 3, 32, 32)


REAL = ["resnet18", "tf_efficientnet_lite0", "convnext_atto", "3D ResNet-10 of MONAI"]
REAL += ["U-Net of smp"]


@pytest.mark.parametrize("name", REAL)
def test_frozen_groups_of_real_networks_keep_every_bit(name):
    check_three_stages(*real_network(name), wake_everything)


@pytest.mark.parametrize("name", REAL)
def test_exactly_the_selected_tensors_of_real_networks_change(name):
    """All but scale, shift and statistics of the last body group and the head."""
    model, images = real_network(name)
    groups = layer_groups(model)
    last = groups[-2:]
    apply_stage(model, groups, train=[g.name for g in last], batch_norm={})
    before = snapshot(model)
    steps(model, images, 2, wake=wake_everything)
    norms = {n for n, module in model.named_modules() if tracks_statistics(module)}
    selected = {n for g in last for n in g.parameters if n.rpartition(".")[0] not in norms}
    assert changed_tensors(model, before) == selected


@pytest.mark.parametrize("name", ["toy", "resnet18"])
def test_freezing_parameters_alone_leaks_statistics(request, name):
    """Negative control: the same check fails for requires_grad=False without the hold."""
    model = (
        request.getfixturevalue("toy")
        if name == "toy"
        else build_classifier(name, outputs=2, weights=WeightsSource("none"))[0]
    )
    images = torch.randn(4, 3, 32, 32)
    before = snapshot(model)
    model.backbone.requires_grad_(False)
    steps(model, images)
    leaked = changed_groups(model, before) - {"head"}
    assert leaked == {group.name for group in layer_groups(model)} - {"head"}
    assert any(name.endswith("num_batches_tracked") for name in changed_buffers(model, before))


def test_a_policy_on_frozen_groups_that_adapts_is_overruled(toy, images):
    groups = layer_groups(toy)
    before = snapshot(toy)
    everywhere = {group.name: "adapt" for group in groups}
    apply_stage(toy, groups, train=("head",), batch_norm=everywhere)
    steps(toy, images)
    assert changed_groups(toy, before) == {"head"}


def test_refreezing_stops_what_an_earlier_stage_trained(toy, images):
    groups = layer_groups(toy)
    names = [group.name for group in groups]
    apply_stage(toy, groups, train=names, batch_norm=dict.fromkeys(names, "adapt"))
    steps(toy, images)
    apply_stage(toy, groups, train=("head",), batch_norm={})
    assert all(p.grad is None for p in toy.parameters())
    before = snapshot(toy)
    steps(toy, images, wake=wake_everything)
    assert changed_groups(toy, before) == {"head"}


def test_a_frozen_prefix_is_deterministic_in_training_mode(toy, images):
    groups = layer_groups(toy)
    apply_stage(toy, groups, train=("head",), batch_norm={})
    wake_everything(toy)
    first, second = toy.features(images), toy.features(images)
    assert torch.equal(first, second)
    assert torch.equal(first[:3], toy.features(images[:3]))
    assert not torch.equal(toy(images), toy(images)), "the head's own dropout stays on"


def test_dropout_of_a_thawed_group_draws_again(toy, images):
    groups = layer_groups(toy)
    apply_stage(toy, groups, train=("head",), batch_norm={})
    apply_stage(toy, groups, train=("blocks.1", "head"), batch_norm={})
    toy.train()
    assert toy.backbone.blocks[1].drop.training
    assert not toy.backbone.blocks[0].drop.training
    assert not torch.equal(toy.features(images), toy.features(images))


@pytest.mark.parametrize(
    ("policy", "affine_moves", "statistics_move"),
    [("frozen", False, False), ("frozen_stats", True, False), ("adapt", True, True)],
)
def test_the_three_policies_in_a_group_that_trains(
    toy, images, policy, affine_moves, statistics_move
):
    groups = layer_groups(toy)
    names = [group.name for group in groups]
    apply_stage(toy, groups, train=names, batch_norm=dict.fromkeys(names, policy))
    before = snapshot(toy)
    steps(toy, images)
    changed = changed_tensors(toy, before)
    norms = [(n, m) for n, m in toy.named_modules() if tracks_statistics(m)]
    assert len(norms) == 6
    for name, norm in norms:
        for tensor, _ in norm.named_parameters(recurse=False):
            key = f"{name}.{tensor}"
            assert (key in changed) == affine_moves, key
        for tensor, _ in norm.named_buffers(recurse=False):
            key = f"{name}.{tensor}"
            # torch never advances an instance norm's counter.
            moves = statistics_move and not key.endswith("2.bn.num_batches_tracked")
            assert (key in changed) == moves, key
    assert "backbone.blocks.0.conv.weight" in changed


def test_groups_without_a_policy_keep_their_statistics(toy, images):
    groups = layer_groups(toy)
    names = [group.name for group in groups]
    apply_stage(toy, groups, train=names, batch_norm={"blocks.0": "adapt"})
    before = snapshot(toy)
    steps(toy, images)
    assert {n.rpartition(".")[0] for n in changed_buffers(toy, before)} == {"backbone.blocks.0.bn"}


@pytest.mark.parametrize("how", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_of_the_network_is_as_frozen_and_thaws_on_its_own(toy, images, how):
    groups = layer_groups(toy)
    names = [group.name for group in groups]
    apply_stage(toy, groups, train=("head",), batch_norm={})
    keys = set(toy.state_dict())
    copied = how(toy)
    assert set(copied.state_dict()) == keys == set(dict(toy.state_dict()))
    before = snapshot(copied)
    steps(copied, images, wake=wake_everything)
    assert changed_groups(copied, before) == {"head"}
    apply_stage(copied, groups, train=names, batch_norm=dict.fromkeys(names, "adapt"))
    steps(copied, images)
    assert changed_groups(copied, before) == set(names)
    untouched = snapshot(toy)
    steps(toy, images)
    assert changed_groups(toy, untouched) == {"head"}


def test_state_dict_does_not_tell_frozen_from_free(toy):
    keys = list(toy.state_dict())
    apply_stage(toy, layer_groups(toy), train=("head",), batch_norm={})
    assert list(toy.state_dict()) == keys


def test_train_and_eval_keep_their_meaning_for_what_trains(toy):
    groups = layer_groups(toy)
    apply_stage(toy, groups, train=("blocks.3", "head"), batch_norm={"blocks.3": "adapt"})
    toy.train()
    assert toy.backbone.blocks[3].bn.training
    assert toy.head[0].training
    assert not toy.backbone.bn1.training
    assert not toy.backbone.pos_drop.training
    toy.eval()
    assert not any(module.training for module in toy.modules())


def test_the_loss_at_a_stage_boundary_does_not_jump(toy, images):
    groups = layer_groups(toy)
    apply_stage(toy, groups, train=("head",), batch_norm={})
    steps(toy, images)
    toy.eval()
    end = toy(images)
    apply_stage(toy, groups, train=[g.name for g in groups], batch_norm={})
    assert torch.equal(toy(images), end)


def test_unknown_groups_and_policies_are_refused(toy):
    groups = layer_groups(toy)
    with pytest.raises(SelectorError, match="layer9: no such layer group; expected one of stem"):
        apply_stage(toy, groups, train=("layer9",), batch_norm={})
    with pytest.raises(SelectorError, match="layer9: no such layer group"):
        apply_stage(toy, groups, train=("head",), batch_norm={"layer9": "frozen"})
    with pytest.raises(RunError, match="'thawed' is no batch-norm policy; expected one of frozen,"):
        apply_stage(toy, groups, train=("blocks.0",), batch_norm={"blocks.0": "thawed"})


def test_the_plan_says_what_is_in_force(toy):
    groups = layer_groups(toy)
    apply_stage(
        toy, groups, train=("blocks.2", "blocks.3", "head"), batch_norm={"blocks.3": "adapt"}
    )
    rates = {"blocks.2": 1e-4, "blocks.3": 2e-4, "head": 1e-3}
    rows = {row.group: row for row in plan_table(toy, groups, rates=rates)}
    assert rows["stem"].trained == 0
    assert rows["stem"].rate is None
    assert rows["stem"].batch_norm == "frozen"
    assert rows["blocks.2"].parameters == 6 * 6 * 9 + 12
    assert rows["blocks.2"].trained == 6 * 6 * 9
    assert (rows["blocks.2"].batch_norm, rows["blocks.2"].rate) == ("frozen", 1e-4)
    assert rows["blocks.3"].trained == rows["blocks.3"].parameters
    assert rows["blocks.3"].batch_norm == "adapt"
    assert (rows["head"].parameters, rows["head"].batch_norm) == (14, "")
    assert rows["head"].rate == 1e-3
    apply_stage(toy, groups, train=("blocks.0",), batch_norm={"blocks.0": "frozen_stats"})
    row = plan_table(toy, groups, rates={"blocks.0": 1e-3}, gamma={"blocks.0": "gamma = 0"})[1]
    assert (row.batch_norm, row.gamma) == ("frozen_stats", "gamma = 0")


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm1d(3),
        nn.BatchNorm3d(3),
        nn.SyncBatchNorm(3),
        nn.BatchNorm2d(3, momentum=None),
        nn.BatchNorm2d(3, track_running_stats=False),
        nn.InstanceNorm2d(3, track_running_stats=True),
    ],
)
def test_norms_that_track_statistics_are_recognised(norm):
    assert tracks_statistics(norm)


@pytest.mark.parametrize("norm", [nn.InstanceNorm2d(3), nn.LayerNorm(3), nn.GroupNorm(1, 3)])
def test_norms_that_track_nothing_are_left_alone(norm):
    assert not tracks_statistics(norm)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_held_norm_keeps_its_statistics_whatever_its_momentum(momentum):
    norm = nn.BatchNorm2d(3, momentum=momentum)
    hold_in_eval(norm)
    before = snapshot(norm)
    norm.train()
    norm(torch.randn(4, 3, 5, 5) + 9)
    assert not changed_tensors(norm, before)


def test_recalibration_estimates_the_statistics_of_the_images():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3)
    model = nn.Sequential(nn.Dropout(0.9), norm).eval()
    batches = [torch.randn(5, 3, 4, 4) * 3 + 7 for _ in range(4)]
    recalibrate(model, [norm], ((batch,) for batch in batches))
    expected = torch.stack([b.mean((0, 2, 3)) for b in batches]).mean(0)
    spread = torch.stack([b.var((0, 2, 3)) for b in batches]).mean(0)
    torch.testing.assert_close(norm.running_mean, expected)
    torch.testing.assert_close(norm.running_var, spread)
    assert norm.momentum == 0.1
    assert not any(module.training for module in model.modules())


def test_recalibration_moves_the_named_norms_alone_and_keeps_their_hold(toy, images):
    groups = layer_groups(toy)
    apply_stage(toy, groups, train=("head",), batch_norm={})
    before = snapshot(toy)
    recalibrate(toy, [toy.backbone.blocks[3].bn], [(images,)])
    moved = changed_tensors(toy, before)
    assert {name.rpartition(".")[0] for name in moved} == {"backbone.blocks.3.bn"}
    before = snapshot(toy)
    steps(toy, images, wake=wake_everything)
    assert changed_groups(toy, before) == {"head"}


def test_recalibration_needs_images_and_norms(toy, images):
    with pytest.raises(RunError, match="no image to estimate the statistics from"):
        recalibrate(toy, [toy.backbone.bn1], [])
    with pytest.raises(RunError, match="no batch-norm layer stores statistics"):
        recalibrate(toy, [toy.head], [(images,)])


@pytest.mark.parametrize("name", ["toy", "convnext_atto"])
def test_bn_only_trains_scale_shift_and_head(request, name, images):
    """Layer norm counts as a norm; the head trains whole; statistics stay."""
    model = (
        request.getfixturevalue("toy")
        if name == "toy"
        else build_classifier(name, outputs=2, weights=WeightsSource("none"))[0]
    )
    groups = layer_groups(model)
    names = [group.name for group in groups]
    apply_stage(model, groups, train=names, batch_norm=dict.fromkeys(names, "bn_only"))
    rows = {r.group: r for r in plan_table(model, groups, rates=dict.fromkeys(names, 1e-3))}
    before = snapshot(model)
    steps(model, torch.nn.functional.interpolate(images, size=(32, 32)), wake=wake_everything)
    norms = (nn.BatchNorm2d, nn.InstanceNorm2d, nn.LayerNorm)
    expected = {
        f"{owner}.{parameter}"
        for owner, module in model.named_modules()
        if isinstance(module, norms)
        for parameter, _ in module.named_parameters(recurse=False)
    }
    head = {name for name, _ in model.named_parameters() if name.startswith("head.")}
    assert changed_tensors(model, before) == expected | head
    assert rows["head"].trained == rows["head"].parameters
    assert name != "toy" or rows["blocks.1"].batch_norm == "bn_only"


def test_a_treated_gamma_trains_with_its_group_and_no_other(toy, images):
    groups = layer_groups(toy)
    gammas = ("backbone.blocks.0.bn.weight", "backbone.blocks.3.bn.weight")
    apply_stage(toy, groups, train=("blocks.3", "head"), batch_norm={}, gammas=gammas)
    rates = {"blocks.3": 1e-3, "head": 1e-3}
    rows = {row.group: row for row in plan_table(toy, groups, rates=rates)}
    assert rows["blocks.3"].batch_norm == "frozen"
    before = snapshot(toy)
    steps(toy, images)
    norms = {name for name in changed_tensors(toy, before) if ".bn." in name}
    assert norms == {"backbone.blocks.3.bn.weight"}


def test_the_plan_says_whose_statistics_are_estimated_anew(toy):
    groups = layer_groups(toy)
    policies = {"blocks.0": "recalibrate", "blocks.1": "recalibrate"}
    apply_stage(toy, groups, train=("blocks.0", "head"), batch_norm=policies)
    rates = {"blocks.0": 1e-3, "head": 1e-3}
    rows = {
        row.group: row.batch_norm
        for row in plan_table(toy, groups, rates=rates, recalibrated=("blocks.0", "head"))
    }
    assert (rows["blocks.0"], rows["blocks.1"], rows["head"]) == ("recalibrate", "frozen", "")

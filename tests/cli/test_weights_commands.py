"""`medtl weights ...`, as a person types it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor
from typer.testing import CliRunner

from medtl.cli.main import app
from medtl.errors import WeightsError
from medtl.networks.pretrained import which_card
from medtl.networks.pretrained.cards import all_cards, find_card
from tests.networks.originals import HandViT, MedicalResNet18, hugging_face_names


def said(*words: object) -> str:
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False).output


def test_the_list_has_every_card_with_its_input():
    text = said("weights", "list")
    for card in all_cards().values():
        assert card.name in text
        assert card.input_said in text


def test_a_card_is_shown_with_the_line_of_a_recipe():
    text = said("weights", "show", "xrv-densenet121")
    assert "[-1024, 1024]" in text
    assert "Apache-2.0" in text
    assert "layout tested, not the weights" in text
    assert "model: {weights: {card: xrv-densenet121, path: FILE}}" in text
    assert "weights: bundled" in said("weights", "show", "efficientnet-lite2")


def test_a_file_is_checked_and_converted(tmp_path):
    """MoCo's two encoders: the card takes the one, and nothing of the other."""
    torch.manual_seed(0)
    state = timm.create_model("resnet18", num_classes=0).state_dict()
    both = {f"module.encoder_q.{n}": t for n, t in state.items()}
    both |= {f"module.encoder_k.{n}": torch.zeros_like(t) for n, t in state.items()}
    torch.save({"state_dict": both}, tmp_path / "moco.pth.tar")
    text = said("weights", "check", tmp_path / "moco.pth.tar", "--card", "moco-cxr-resnet18")
    assert "missing     0" in text
    assert "layout tested, not the weights" in text
    out = tmp_path / "moco.safetensors"
    text = said("weights", "convert", tmp_path / "moco.pth.tar", out, "--card", "moco-cxr-resnet18")
    assert f"{len(state)} tensors" in text
    text = said("weights", "check", out, "--card", "moco-cxr-resnet18")
    assert "missing     0" in text


def named_alone(tensors: Mapping[str, Tensor], path: Path) -> Path:
    """A file of names and shapes whose values are all 0 and take no room."""
    torch.save({n: torch.zeros(()).expand(t.shape) for n, t in tensors.items()}, path)
    return path


def test_a_file_without_its_card_is_told_which_card_fits(tmp_path):
    with torch.device("meta"):
        net = timm.create_model("resnet18", num_classes=1000)
    path = named_alone(net.state_dict(), tmp_path / "resnet.pth")
    text = said("weights", "check", path)
    assert "fits torchvision-resnet18: ResNet-18" in text
    assert "of no use to it: fc.weight, fc.bias" in text
    assert f"medtl weights check {path} --card torchvision-resnet18" in text
    assert text.count("fits ") == 1, "one channel (xrv) and MoCo's names are others"


def test_cards_of_the_same_names_are_all_named_and_none_is_chosen(tmp_path):
    with torch.device("meta"):
        names = hugging_face_names(HandViT(768, 12, 14, 37, scaled=True))
    text = said("weights", "check", named_alone(names, tmp_path / "model.bin"))
    assert "fits dinov2-hf-vitb14" in text
    assert "fits rad-dino" in text
    assert "where the file is from says which" in text
    assert text.count("--card ") == 2


def test_a_volume_network_is_matched_with_cards_of_volumes(tmp_path):
    with torch.device("meta"):
        tensors = MedicalResNet18(dilated=False).state_dict()
    text = said("weights", "check", named_alone(tensors, tmp_path / "r18.pth"))
    assert "fits medicalnet-resnet18" in text
    assert text.count("fits ") == 1


def test_a_file_that_fits_no_card_is_told_the_closest_and_why(tmp_path, monkeypatch):
    known = {n: find_card(n) for n in ("moco-cxr-resnet18", "torchvision-densenet121")}
    monkeypatch.setattr(which_card, "all_cards", lambda: known)
    with torch.device("meta"):
        state = timm.create_model("resnet18", num_classes=0).state_dict()
    del state["bn1.weight"]
    state["conv1.weight"] = torch.zeros(32, 3, 7, 7, device="meta")
    path = named_alone({f"encoder_q.{n}": t for n, t in state.items()}, tmp_path / "w.pt")
    with pytest.raises(WeightsError) as caught:
        which_card.fitting_cards(path)
    text = str(caught.value)
    assert "the closest is moco-cxr-resnet18, of whose network it fills 98 of 100" in text
    assert "conv1.weight: (32, 3, 7, 7), network (64, 3, 7, 7)" in text
    assert "bn1.weight" in text


def test_a_file_of_another_number_of_layers_fits_no_card_that_counts_them(tmp_path):
    """Lite cards give names by order: another order is no fit, and no traceback."""
    fit = which_card.card_fit(find_card("efficientnet-lite0"), {"a.weight": torch.zeros(2)})
    assert fit.share == 0
    assert "do not stand in the order" in fit.lost[0]

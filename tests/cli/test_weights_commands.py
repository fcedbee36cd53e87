"""`medtl weights ...`, as a person types it."""

from __future__ import annotations

import timm
import torch
from typer.testing import CliRunner

from medtl.cli.main import app
from medtl.networks.pretrained.cards import all_cards


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

"""What training did to each layer: frozen is exactly 0, and units that never fire are counted."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from toy_training import HEAD, training

from medtl.training.fit import fit
from medtl.training.layers import Layers, silent_units


def test_a_frozen_layer_moved_by_exactly_nothing(tmp_path):
    run = training(tmp_path / "run")
    start = Layers.of(run.model, run.val)
    fit(run, [HEAD])
    by_name = {row["name"]: row for row in start.changed(run.model, run.val)["groups"]}
    assert by_name["stem"]["change"] == by_name["layer1"]["change"] == 0.0
    assert not by_name["stem"]["trained"]
    assert by_name["head"]["trained"]


def test_the_change_is_relative_to_the_weights_before(tmp_path):
    run = training(tmp_path / "run")
    start = Layers.of(run.model, run.val)
    with torch.no_grad():
        for name, parameter in run.model.named_parameters():
            parameter.mul_(1.5 if name.startswith("stem") else 1.0)
    by_name = {row["name"]: row for row in start.changed(run.model, run.val)["groups"]}
    assert by_name["stem"]["change"] == pytest.approx(0.5)
    assert by_name["layer1"]["change"] == 0.0


class Cases:
    """Two images of one pixel each, of three channels."""

    def __len__(self):
        return 2

    def __getitem__(self, place):
        image = torch.full((3, 1, 1), float(place[1]))
        return SimpleNamespace(images=image, inputs=torch.zeros(0))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1, bias=True)
        self.act = nn.ReLU()
        with torch.no_grad():
            self.layer.weight.zero_()
            self.layer.weight[0, 0, 0, 0] = 1.0  # fires on the second image alone
            self.layer.bias.copy_(torch.tensor([0.0, -1.0, 1.0]))

    def forward(self, images, _inputs):
        return self.act(self.layer(images))


def test_a_unit_is_silent_that_is_0_on_every_image():
    assert silent_units(Network(), Cases(), 2)["act"].tolist() == [False, True, False]
    assert silent_units(Network(), Cases(), 1)["act"].tolist() == [True, True, False]
    assert silent_units(nn.Sequential(nn.Linear(1, 1), nn.GELU()), Cases(), 2) == {}

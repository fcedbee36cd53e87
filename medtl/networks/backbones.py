"""Classifiers: a pretrained backbone, pooled, and a small head on top.

Shapes: B images, C channels, (H, W) pixels, F features, E extra features, K outputs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Self, TypeGuard

import torch
from torch import Tensor, nn

from medtl.networks.batch_norm import reapply
from medtl.networks.names import FEATURES, check_backbone
from medtl.networks.truncation import truncate
from medtl.networks.weights import (
    InputContract,
    WeightsReport,
    WeightsSource,
    create_backbone,
    input_contract,
)

HEAD_STD = 0.01
"""Standard deviation of a new head's weights: its first outputs hardly differ from its bias."""


class NoBackbone(nn.Module):
    """What stands for a backbone where features made elsewhere are the input: it flattens them."""

    num_features = 0  # the head counts them among its extra inputs

    def forward(self, x_B1D: Tensor) -> Tensor:
        """Return `(B, D)`."""
        return x_B1D.flatten(1)

    forward_features = forward_head = forward


class Classifier(nn.Module):
    """A backbone and a head, between which everything can be asked for.

    Args:
        backbone: A timm network without its classifier.
        head: From `(B, F + E)` to `(B, K)` logits.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        # timm's networks share their methods by convention, not by a class.
        self.backbone: Any = backbone
        self.head = head

    def forward(self, x_BCHW: Tensor, extra_BE: Tensor | None = None) -> Tensor:
        """Return logits `(B, K)`."""
        return self.classify(self.features(x_BCHW), extra_BE)

    def features(self, x_BCHW: Tensor) -> Tensor:
        """Return pooled features `(B, F)`."""
        pooled: Tensor = self.backbone(x_BCHW)
        return pooled

    def classify(self, features_BF: Tensor, extra_BE: Tensor | None = None) -> Tensor:
        """Return the logits `(B, K)` that belong to pooled features."""
        if extra_BE is not None:
            features_BF = torch.cat((features_BF, extra_BE), dim=1)
        logits: Tensor = self.head(features_BF)
        return logits

    def set_bias(self, bias_K: Sequence[float]) -> None:
        """Set the head's bias, so that an untrained network predicts what the cases say alone.

        Without it the first steps on rare findings go into learning that they are rare.

        Args:
            bias_K: One value per output (`Task.head_bias`).

        Raises:
            ValueError: When there is not one value per output.
        """
        bias: Tensor = self.head.get_submodule("linear").get_parameter("bias")
        if len(bias_K) != len(bias):
            msg = f"{len(bias_K)} values for {len(bias)} outputs"
            raise ValueError(msg)
        with torch.no_grad():
            bias.copy_(torch.as_tensor(bias_K))

    def train(self, mode: bool = True) -> Self:
        """Set the mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        reapply(self)
        return self


def is_classifier(network: nn.Module) -> TypeGuard[Classifier]:
    """Tell whether a network has pooled features and one head: no segmenter and no committee.

    >>> is_classifier(nn.Linear(2, 1)), is_classifier(Classifier(NoBackbone(), nn.Linear(2, 1)))
    (False, True)
    """
    return isinstance(network, Classifier)


def build_classifier(
    backbone: str | nn.Module,
    *,
    outputs: int,
    weights: WeightsSource,
    image: tuple[int, ...] = (3,),
    dropout: float = 0.0,
    extra_features: int = 0,
    reuse_until: str | None = None,
) -> tuple[Classifier, WeightsReport]:
    """Return a classifier with its initial weights, and what of them was loaded.

    The head is a new linear layer: zero bias, weights from N(0, `HEAD_STD`), drawn from torch's
    global generator.

    Args:
        backbone: A timm name ("resnet50", "tf_efficientnet_lite0"), "features" for none, whose
            vectors `extra_features` counts too, or a network from images to
            pooled features in timm's words (`num_features`, `forward_features`, `forward_head`).
        outputs: Number of logits K.
        weights: Where the backbone's weights come from; a network brings its own.
        image: `(channels, rows, columns)` of the images, for networks that have to know: they are
            made for it, and what their weights say of positions is resampled. `(channels,)` alone
            leaves them the size that they have. A network given in Python is as it is.
        dropout: Probability that a pooled feature is dropped in training, in [0, 1).
        extra_features: Numbers per case that join the pooled features (age, sex), E.
        reuse_until: Selector of layer groups; the backbone ends after the last of them. None uses
            all of it.

    Raises:
        WeightsError: When the backbone is unknown, or the weights are missing or do not fit, or it
            cannot take images of this size.
        SelectorError: When the network cannot end where it is asked to.
    """
    body: Any
    in_channels, *size = image
    if backbone == FEATURES:
        contract = InputContract((0.0,), (1.0,), channels=1)
        body, report = (
            NoBackbone(),
            WeightsReport("features made elsewhere", "of the network that made them", contract),
        )
    elif isinstance(backbone, str):
        check_backbone(backbone)
        body, report = create_backbone(
            backbone, weights, in_channels=in_channels, image_size=tuple(size)
        )
    else:
        name = type(backbone).__name__
        contract = input_contract(name, channels=in_channels)
        body, report = backbone, WeightsReport(f"{name}, given in Python", "", contract)
    width = int(getattr(body, "head_hidden_size", None) or body.num_features)
    if reuse_until is not None:
        size = size or body.default_cfg["input_size"][1:]
        width = truncate(body, reuse_until, (in_channels, *size))
    linear = nn.Linear(width + extra_features, outputs)
    nn.init.normal_(linear.weight, std=HEAD_STD)
    nn.init.zeros_(linear.bias)
    head = nn.Sequential(OrderedDict(dropout=nn.Dropout(dropout), linear=linear))
    return Classifier(body, head), report

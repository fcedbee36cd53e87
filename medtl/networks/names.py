"""The backbones that can be named. Imports no torch, so a recipe is checked in a moment."""

from __future__ import annotations

import difflib
from functools import cache
from importlib.resources import files

from medtl.errors import WeightsError

VOLUME_NETWORKS = (
    "unet_3d",
    "segresnet_3d",
    "resnet10_3d",
    "resnet18_3d",
    "resnet34_3d",
    "resnet50_3d",
    "i3resnet152_3d",
)
"""Networks that label the voxels of a volume; a ResNet is the encoder of a U-Net, an I3ResNet one
of planes whose kernels were given a third axis."""


FEATURES = "features"
"""In place of a backbone: the images are vectors that a network elsewhere has made."""


@cache
def backbone_names() -> tuple[str, ...]:
    """Return the timm architectures that give pooled features and describe their layer groups."""
    return tuple(files("medtl.networks").joinpath("backbones.txt").read_text("utf-8").split())


def check_backbone(name: str) -> None:
    """Refuse a name that is not a known backbone.

    Args:
        name: A timm architecture, with or without a weights tag ("resnet50.a1_in1k").

    Raises:
        WeightsError: With the nearest known names.
    """
    known = backbone_names()
    example = "a timm name such as tf_efficientnet_lite0, resnet50 or densenet121"
    _refuse_unknown(name, name.partition(".")[0], known, "backbone", expected=example, most=3)


def check_volume_network(name: str) -> None:
    """Refuse a name that is not a known 3D network.

    Args:
        name: One of `VOLUME_NETWORKS`.

    Raises:
        WeightsError: With the names there are.
    """
    expected = f"one of {', '.join(VOLUME_NETWORKS)}"
    _refuse_unknown(name, name, VOLUME_NETWORKS, "3D network", expected=expected, most=1)


def _refuse_unknown(
    name: str, word: str, known: tuple[str, ...], what: str, *, expected: str, most: int
) -> None:
    """Raise for a word that is not among those known, with the nearest of them."""
    if word not in known:
        near = difflib.get_close_matches(word, known, n=most, cutoff=0.5)
        raise WeightsError(
            f"'{name}' is no known {what}",
            expected=expected,
            where="model.backbone",
            fix=f"Did you mean {' or '.join(near)}?" if near else "",
        )

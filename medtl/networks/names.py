"""The backbones that can be named. Imports no torch, so a recipe is checked in a moment."""

from __future__ import annotations

import difflib
from functools import cache
from importlib.resources import files

from medtl.errors import WeightsError


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
    architecture = name.partition(".")[0]
    known = backbone_names()
    if architecture not in known:
        near = difflib.get_close_matches(architecture, known, n=3, cutoff=0.5)
        raise WeightsError(
            f"'{name}' is no known backbone",
            expected="a timm name such as tf_efficientnet_lite0, resnet50 or densenet121",
            where="model.backbone",
            fix=f"Did you mean {' or '.join(near)}?" if near else "",
        )

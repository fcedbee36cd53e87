"""Grad-CAM: where in the picture a network found the reason for one output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medtl.networks.backbones import Classifier
from medtl.prediction.committee import Committee

Restored = Callable[[Tensor], Tensor]
"""From a map `(1, F, h, w)` back to the features as the network orders them."""


def grad_cam(
    model: Classifier | Committee,
    x: Tensor,
    score: Callable[[Tensor], Tensor],
    extra: Tensor | None = None,
) -> NDArray[np.float32] | None:
    """Return the Grad-CAM of one image, scaled so that its largest value is 1.

    It shows where features that raise the score are, on the coarse grid of the last features; it
    is not a segmentation, and not a proof of what the network uses. The network is as before
    afterwards: parameters, gradients, batch-norm statistics and mode.

    The last features are those before pooling. A vision transformer that answers from its class
    token alone pools none of the others: what its last attention is given is taken.

    Args:
        model: A classifier, or several as one; frozen layers are no obstacle.
        x: One image `(1, C, H, W)`, standardised, on the model's device.
        score: From the outputs `(1, K)` to the number to explain: a logit, the months.
        extra: `(1, E)` numbers that join the pooled features, or None.

    Returns:
        `(h, w)` in [0, 1] on the grid of the last features, which covers the whole image; all 0
        where nothing raises the score. None for a network whose features have no place in the
        image.

    Raises:
        ValueError: When there is not exactly one image.

    Reference:
        Selvaraju et al. 2017, Grad-CAM, eq. 1 and 2.
    """
    if x.ndim != 4 or len(x) != 1:
        msg = f"Grad-CAM takes one image (1, C, H, W), not {tuple(x.shape)}"
        raise ValueError(msg)
    members: Any = model.members if isinstance(model, Committee) else (model,)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.enable_grad():
            cuts = [_cut_at_map(member.backbone, x) for member in members]
            known = [cut for cut in cuts if cut is not None]
            if len(known) < len(cuts):
                return None
            outputs = [
                m.classify(pooled, extra) for m, (_, pooled) in zip(members, known, strict=True)
            ]
            maps = [features for features, _ in known]
            gradients = torch.autograd.grad(score(torch.stack(outputs).mean(dim=0)), maps)
    finally:
        for module, mode in modes.items():
            module.training = mode
    weights = [gradient.mean(dim=(2, 3), keepdim=True) for gradient in gradients]  # eq. 1
    weighted = [(w * m.detach()).sum(dim=1)[0] for w, m in zip(weights, maps, strict=True)]
    heat = torch.relu(torch.stack(weighted).sum(dim=0))  # eq. 2
    peak = heat.max()
    if peak > 0:
        heat = heat / peak
    return heat.float().cpu().numpy()


def _cut_at_map(backbone: Any, x: Tensor) -> tuple[Tensor, Tensor] | None:
    """The last map `(1, F, h, w)` as a leaf, and the pooled features that are made of it."""
    if getattr(backbone, "global_pool", None) == "token":
        return _cut_before_last_attention(backbone, x)
    with torch.no_grad():
        features = backbone.forward_features(x)
    if (cut := _as_map(backbone, features, x)) is None:
        return None
    leaf, restored = cut
    return leaf, backbone.forward_head(restored(leaf))


def _cut_before_last_attention(backbone: Any, x: Tensor) -> tuple[Tensor, Tensor] | None:
    """The tokens that the last attention of a transformer is given, as in `_cut_at_map`."""
    norms = [block.norm1 for block in getattr(backbone, "blocks", ()) if hasattr(block, "norm1")]
    if not norms:
        return None
    leaves: list[Tensor] = []

    def put_leaf(_module: Any, _given: Any, tokens: Tensor) -> Tensor:
        if (cut := _as_map(backbone, tokens, x)) is None:
            return tokens
        leaf, restored = cut
        leaves.append(leaf)
        return restored(leaf)

    hook = norms[-1].register_forward_hook(put_leaf)
    try:
        pooled = backbone(x)
    finally:
        hook.remove()
    return (leaves[0], pooled) if leaves else None


def _as_map(backbone: Any, features: object, x: Tensor) -> tuple[Tensor, Restored] | None:
    """Features as a leaf `(1, F, h, w)`, and the way back; None when they have no places."""
    if not isinstance(features, Tensor):  # of several branches
        return None
    if features.ndim == 4:
        last = getattr(backbone, "output_fmt", "NCHW") == "NHWC"
        places = features.permute(0, 3, 1, 2) if last else features
        return _leaf(places), lambda m: m.permute(0, 2, 3, 1) if last else m
    if features.ndim != 3:
        return None
    extra = int(getattr(backbone, "num_prefix_tokens", 0) or 0)  # of the class, of registers
    others, tokens = features[:, :extra], features[:, extra:]
    rows = round((tokens.shape[1] * x.shape[-2] / x.shape[-1]) ** 0.5)
    if rows < 1 or tokens.shape[1] % rows:
        return None
    grid = tokens.transpose(1, 2).reshape(len(tokens), -1, rows, tokens.shape[1] // rows)
    return _leaf(grid), lambda m: torch.cat((others, m.flatten(2).transpose(1, 2)), dim=1)


def _leaf(places: Tensor) -> Tensor:
    """A copy that a gradient can be asked for."""
    return places.detach().requires_grad_()

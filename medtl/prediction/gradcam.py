"""Grad-CAM: where in the picture a convolutional network found the reason for one output."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medtl.networks.backbones import Classifier


def grad_cam(
    model: Classifier, x: Tensor, score: Callable[[Tensor], Tensor], extra: Tensor | None = None
) -> NDArray[np.float32]:
    """Return the Grad-CAM of one image, scaled so that its largest value is 1.

    It shows where features that raise the score are, on the coarse grid of the last features; it
    is not a segmentation, and not a proof of what the network uses. The network is as before
    afterwards: parameters, gradients, batch-norm statistics and mode.

    Args:
        model: A classifier with a convolutional backbone; frozen layers are no obstacle.
        x: One image `(1, C, H, W)`, standardised, on the model's device.
        score: From the outputs `(1, K)` to the number to explain: a logit, the months.
        extra: `(1, E)` numbers that join the pooled features, or None.

    Returns:
        `(h, w)` in [0, 1] on the grid of the last features, which covers the whole image; all 0
        where nothing raises the score.

    Raises:
        ValueError: When there is not exactly one image, or the backbone's features are no map.

    Reference:
        Selvaraju et al. 2017, Grad-CAM, eq. 1 and 2.
    """
    if x.ndim != 4 or len(x) != 1:
        msg = f"Grad-CAM takes one image (1, C, H, W), not {tuple(x.shape)}"
        raise ValueError(msg)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            features = model.feature_map(x)
        if features.ndim != 4:
            msg = f"Grad-CAM needs a map (1, F, h, w) of features, not {tuple(features.shape)}"
            raise ValueError(msg)
        gradient = _gradient(model, features, score, extra)
    finally:
        for module, mode in modes.items():
            module.training = mode
    weights = gradient.mean(dim=(2, 3), keepdim=True)  # eq. 1
    heat = torch.relu((weights * features).sum(dim=1)[0])  # eq. 2
    peak = heat.max()
    if peak > 0:
        heat = heat / peak
    return heat.float().cpu().numpy()


def _gradient(
    model: Classifier, features: Tensor, score: Callable[[Tensor], Tensor], extra: Tensor | None
) -> Tensor:
    """Gradient of the score by the features; parameters get none."""
    with torch.enable_grad():
        leaf = features.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(score(model.classify_map(leaf, extra)), leaf)
    return gradient

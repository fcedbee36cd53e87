"""A small residual network that trains in a moment, and bright and dark images for it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from medtl.data.batches import Samples
from medtl.data.store import ImageStore, RowWriter, levels
from medtl.networks.backbones import Classifier


class Block(nn.Module):
    """conv - norm - ReLU - conv - norm, added to the shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(inner)) + x)


class FourBlocks(nn.Module):
    """A small residual network that describes its groups as timm's do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.layers = nn.Sequential(*(Block(4) for _ in range(4)))
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def group_matcher(self, coarse: bool) -> dict[str, str]:
        assert coarse
        return {"stem": r"^conv1|bn1", "layers": r"^layers\.(\d+)"}

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.layers(torch.relu(self.bn1(self.conv1(x)))))


def network() -> Classifier:
    torch.manual_seed(0)
    return Classifier(FourBlocks(), nn.Sequential(nn.Dropout(0.3), nn.Linear(4, 1)))


def standardised(unit: np.ndarray) -> np.ndarray:
    return (unit - 0.5) / 0.25


def noisy(unit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.clip(unit + rng.normal(0, 0.05, unit.shape), 0, 1).astype(np.float32)


def samples(n: int, seed: int, *, augment=None) -> Samples:
    """Bright images are positive."""
    rng = np.random.default_rng(seed)
    truth = (np.arange(n) % 2).astype(np.float32)
    return stored(rng.random((n, 1, 8, 8)) * 0.5 + 0.4 * truth[:, None, None, None], truth, augment)


def stored(units: np.ndarray, truth: np.ndarray, augment=None, standardise=standardised) -> Samples:
    writer = RowWriter(np.uint16)
    for unit in units:
        writer.append(levels(unit))
    n = len(units)
    return Samples(
        store=ImageStore(tuple(f"c{i}" for i in range(n)), writer.rows()),
        rows=np.arange(n),
        targets=truth[:, None].astype(np.float32),
        inputs=np.zeros((n, 0), dtype=np.float32),
        standardise=standardise,
        augment=augment,
        seed=1,
    )


def bits(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}

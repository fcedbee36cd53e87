import pytest
import torch
from torch import Tensor, nn

from medtl.networks.backbones import Classifier

torch.set_num_threads(1)


class ToyBlock(nn.Module):
    """A residual block with dropout and, so that it is hard to freeze, three kinds of norm."""

    def __init__(self, width: int, norm: type[nn.Module]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn = norm(width)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.drop(self.bn(self.conv(x))))


def tracking_instance_norm(width: int) -> nn.Module:
    return nn.InstanceNorm2d(width, affine=True, track_running_stats=True)


class ToyBackbone(nn.Module):
    """Four residual blocks that describe their groups as timm's networks do."""

    head_hidden_size = 6

    def __init__(self) -> None:
        from timm.layers import BatchNormAct2d

        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.pos_drop = nn.Dropout(0.5)
        norms = (nn.BatchNorm2d, BatchNormAct2d, tracking_instance_norm, nn.BatchNorm2d)
        self.blocks = nn.Sequential(*(ToyBlock(6, norm) for norm in norms))
        self.norm = nn.BatchNorm2d(6)

    def group_matcher(self, coarse: bool) -> dict[str, object]:
        assert coarse
        return {"stem": r"^conv1|bn1", "blocks": r"^blocks\.(\d+)"}

    def forward_features(self, x: Tensor) -> Tensor:
        return self.norm(self.blocks(self.pos_drop(self.bn1(self.conv1(x)))))

    def forward_head(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


@pytest.fixture
def toy() -> Classifier:
    torch.manual_seed(0)
    head = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 2))
    return Classifier(ToyBackbone(), head)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(8, 3, 12, 12, generator=torch.Generator().manual_seed(1)) * 2 + 1

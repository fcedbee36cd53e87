"""Networks as their authors built them, in torch alone: what our own must give the outputs of."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

SMALL = 1e-5


def randomised(network: nn.Module, seed: int = 0) -> nn.Module:
    """All parameters and statistics away from their neutral values, so that each one counts."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            tensor.copy_(1 + noise.abs())
        elif tensor.ndim == 1:
            tensor.add_(0.1 * noise)
    return network.eval()


class HandViT(nn.Module):
    """A vision transformer (Dosovitskiy et al. 2021; layer scale as in DINOv2), class token out."""

    def __init__(self, width: int, depth: int, patch: int, grid: int, *, scaled: bool) -> None:
        super().__init__()
        self.cls = nn.Parameter(torch.randn(1, 1, width) / 10)
        self.pos = nn.Parameter(torch.randn(1, 1 + grid * grid, width) / 10)
        self.patch = nn.Conv2d(3, width, patch, patch)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.blocks = nn.ModuleList(HandBlock(width, scaled) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls.expand(len(x), -1, -1), tokens], 1) + self.pos
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)[:, 0]


class HandBlock(nn.Module):
    """Attention and two layers, each behind a norm, heads of 64."""

    def __init__(self, width: int, scaled: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        scale = torch.rand(2, width) if scaled else torch.ones(2, width)
        self.scale1, self.scale2 = (nn.Parameter(row.clone()) for row in scale)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        heads = [layer(y).unflatten(-1, (-1, 64)).transpose(1, 2) for layer in self._qkv()]
        weights = (heads[0] @ heads[1].transpose(-1, -2) / 8).softmax(-1)
        x = x + self.scale1 * self.out((weights @ heads[2]).transpose(1, 2).flatten(2))
        return x + self.scale2 * self.fc2(functional.gelu(self.fc1(self.norm2(x))))

    def _qkv(self) -> Sequence[nn.Module]:
        return self.q, self.k, self.v


def hugging_face_names(vit: HandViT) -> dict[str, Tensor]:
    """The names that transformers' Dinov2Model gives its tensors."""
    named = {
        "embeddings.cls_token": vit.cls,
        "embeddings.mask_token": torch.zeros(1, vit.cls.shape[-1]),
        "embeddings.position_embeddings": vit.pos,
        **_layer("embeddings.patch_embeddings.projection", vit.patch),
        **_layer("layernorm", vit.norm),
    }
    for number, block in enumerate(vit.blocks):
        here = f"encoder.layer.{number}"
        for word, layer in zip(("query", "key", "value"), block._qkv(), strict=True):
            named |= _layer(f"{here}.attention.attention.{word}", layer)
        named |= _layer(f"{here}.attention.output.dense", block.out)
        named |= _layer(f"{here}.norm1", block.norm1) | _layer(f"{here}.norm2", block.norm2)
        named |= _layer(f"{here}.mlp.fc1", block.fc1) | _layer(f"{here}.mlp.fc2", block.fc2)
        named[f"{here}.layer_scale1.lambda1"] = block.scale1
        named[f"{here}.layer_scale2.lambda1"] = block.scale2
    return {name: tensor.detach().clone() for name, tensor in named.items()}


def clip_names(vit: HandViT) -> dict[str, Tensor]:
    """The names of a timm trunk in an OpenCLIP model, with its projection and a text tower."""
    named = {
        "cls_token": vit.cls,
        "pos_embed": vit.pos,
        **_layer("patch_embed.proj", vit.patch),
        **_layer("norm", vit.norm),
    }
    for number, block in enumerate(vit.blocks):
        here = f"blocks.{number}"
        for part in ("weight", "bias"):
            pieces = [getattr(layer, part) for layer in block._qkv()]
            named[f"{here}.attn.qkv.{part}"] = torch.cat(pieces)
        named |= _layer(f"{here}.attn.proj", block.out)
        named |= _layer(f"{here}.norm1", block.norm1) | _layer(f"{here}.norm2", block.norm2)
        named |= _layer(f"{here}.mlp.fc1", block.fc1) | _layer(f"{here}.mlp.fc2", block.fc2)
    trunk = {f"visual.trunk.{n}": t.detach().clone() for n, t in named.items()}
    other = {"visual.head.proj.weight": torch.zeros(512, 768), "logit_scale": torch.ones(())}
    return {**trunk, **other, "text.transformer.embeddings.LayerNorm.weight": torch.ones(768)}


def _layer(name: str, layer: nn.Module) -> dict[str, Tensor]:
    return {f"{name}.{part}": tensor for part, tensor in layer.named_parameters()}


class HandSwin(nn.Module):
    """Swin as its authors and timm 0.5.4 keep it (Liu et al. 2021): each stage ends by merging.

    Args:
        width: Channels of the first stage, each next one has twice as many.
        depths, heads: Of the stages.
        window: Tokens a side.
    """

    def __init__(
        self, width: int, depths: Sequence[int], heads: Sequence[int], window: int
    ) -> None:
        super().__init__()
        proj = nn.Conv2d(3, width, 4, 4)
        self.patch_embed = nn.ModuleDict({"proj": proj, "norm": nn.LayerNorm(width)})
        self.layers = nn.ModuleList()
        for number, (depth, many) in enumerate(zip(depths, heads, strict=True)):
            wide = width * 2**number
            blocks = [
                HandSwinBlock(wide, many, window, shift=window // 2 * (place % 2))
                for place in range(depth)
            ]
            parts: dict[str, nn.Module] = {"blocks": nn.ModuleList(blocks)}
            if number + 1 < len(depths):
                reduction = nn.Linear(4 * wide, 2 * wide, bias=False)
                merge = {"reduction": reduction, "norm": nn.LayerNorm(4 * wide)}
                parts["downsample"] = nn.ModuleDict(merge)
            self.layers.append(nn.ModuleDict(parts))
        self.norm = nn.LayerNorm(wide)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed["norm"](self.patch_embed["proj"](x).permute(0, 2, 3, 1))
        for stage in self.layers:
            for block in stage["blocks"]:
                x = block(x)
            if "downsample" in stage:
                corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
                merge = stage["downsample"]
                x = merge["reduction"](merge["norm"](torch.cat(corners, -1)))
        return self.norm(x).mean((1, 2))


class HandSwinBlock(nn.Module):
    """Attention in windows that every second block shifts, then two layers, each behind a norm."""

    def __init__(self, width: int, heads: int, window: int, *, shift: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        bias = nn.Parameter(torch.randn((2 * window - 1) ** 2, heads) / 10)
        qkv, proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.attn = nn.ModuleDict({"qkv": qkv, "proj": proj})
        self.attn.register_parameter("relative_position_bias_table", bias)
        fc1, fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.mlp = nn.ModuleDict({"fc1": fc1, "fc2": fc2})
        self.heads, self.window, self.shift = heads, window, shift

    def forward(self, x: Tensor) -> Tensor:
        _, rows, columns, _ = x.shape
        shift = self.shift if min(rows, columns) > self.window else 0
        y = self.norm1(x).roll((-shift, -shift), (1, 2))
        attended = self._attend(self._windows(y), self._apart(rows, columns, shift))
        y = attended.unflatten(0, (-1, rows // self.window, columns // self.window))
        y = y.unflatten(3, (self.window, self.window)).transpose(2, 3)
        x = x + y.flatten(1, 2).flatten(2, 3).roll((shift, shift), (1, 2))
        return x + self.mlp["fc2"](functional.gelu(self.mlp["fc1"](self.norm2(x))))

    def _windows(self, x: Tensor) -> Tensor:
        """`(windows, tokens, channels)`, images and then rows of windows first."""
        side = self.window
        x = x.unflatten(2, (-1, side)).unflatten(1, (-1, side))
        return x.transpose(2, 3).flatten(0, 2).flatten(1, 2)

    def _apart(self, rows: int, columns: int, shift: int) -> Tensor:
        """`(windows, tokens, tokens)`, -100 between tokens that only the shift brought together."""
        region = torch.zeros(1, rows, columns, 1)
        if shift:
            cuts = (0, -self.window, -shift, None)
            for i, down in enumerate(pairwise(cuts)):
                for j, right in enumerate(pairwise(cuts)):
                    region[:, slice(*down), slice(*right)] = 3 * i + j
        named = self._windows(region)[..., 0]
        return (named[:, None] != named[:, :, None]) * -100.0

    def _attend(self, x: Tensor, apart: Tensor) -> Tensor:
        side = torch.arange(self.window)
        place = torch.cartesian_prod(side, side)
        away = place[:, None] - place[None] + self.window - 1
        index = away[..., 0] * (2 * self.window - 1) + away[..., 1]
        bias = self.attn.relative_position_bias_table[index].permute(2, 0, 1)
        q, k, v = self.attn["qkv"](x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + bias
        scores = scores + apart.repeat(len(x) // len(apart), 1, 1)[:, None]
        return self.attn["proj"]((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class MedicalBlock(nn.Module):
    """The basic block of MedicalNet; shortcut type A pads with zero channels."""

    def __init__(self, given: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = _conv3(given, width, stride, dilation)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = _conv3(width, width, 1, dilation)
        self.bn2 = nn.BatchNorm3d(width)
        self.stride, self.more = stride, width - given

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        short = functional.avg_pool3d(x, 1, self.stride)
        return (y + functional.pad(short, (0, 0, 0, 0, 0, 0, 0, self.more))).relu()


def _conv3(given: int, width: int, stride: int, dilation: int) -> nn.Conv3d:
    return nn.Conv3d(given, width, 3, stride, dilation, dilation, bias=False)


class MedicalResNet18(nn.Module):
    """MedicalNet's ResNet-18 (med3d/models/resnet.py), outputs of the stem and of each stage.

    Args:
        dilated: As in the original; else the last two stages stride, as in an encoder.
    """

    def __init__(self, *, dilated: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(1, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        steps = [(64, 64, 1, 1), (64, 128, 2, 1), (128, 256, 2, 1), (256, 512, 2, 1)]
        if dilated:
            steps[2:] = [(128, 256, 1, 2), (256, 512, 1, 4)]
        for number, (given, width, stride, dilation) in enumerate(steps, 1):
            blocks = (
                MedicalBlock(given, width, stride, dilation),
                MedicalBlock(width, width, 1, dilation),
            )
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self.conv_seg = nn.Sequential(nn.ConvTranspose3d(512, 32, 2, 2), nn.BatchNorm3d(32))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.bn1(self.conv1(x)).relu()
        outputs = [x]
        x = functional.max_pool3d(x, 3, 2, 1)
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
            outputs.append(x)
        return outputs


class InflatedBlock(nn.Module):
    """A bottleneck of torchvision with a third axis, its stride in the middle."""

    def __init__(self, given: int, width: int, stride: int, *, first: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(given, width, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv3 = nn.Conv3d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(4 * width)
        if first:
            short = nn.Conv3d(given, 4 * width, 1, stride, bias=False)
            self.downsample = nn.Sequential(short, nn.BatchNorm3d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        short = self.downsample(x) if hasattr(self, "downsample") else x
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        return (self.bn3(self.conv3(y)) + short).relu()


class InflatedResNet(nn.Module):
    """Merlin's encoder (merlin/models/i3res.py): slices first, a grey volume three times.

    Args:
        depths: Blocks of the stages; (3, 8, 36, 3) in the original.
    """

    def __init__(self, depths: Sequence[int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(3, 64, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        given = 64
        for number, depth in enumerate(depths):
            width = 64 * 2**number
            blocks = []
            for place in range(depth):
                stride = 2 if number and not place else 1
                blocks.append(InflatedBlock(given, width, stride, first=not place))
                given = 4 * width
            self.add_module(f"layer{number + 1}", nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.bn1(self.conv1(x.permute(0, 1, 4, 2, 3).repeat(1, 3, 1, 1, 1))).relu()
        outputs = [x]
        x = functional.max_pool3d(x, 3, 2, 1)
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
            outputs.append(x)
        return [y.permute(0, 1, 3, 4, 2) for y in outputs]


def xception_of_keras(generator: torch.Generator) -> dict[str, dict[str, Tensor]]:
    """Layer -> Keras variable -> values of keras.applications.Xception, in Keras' own layout."""
    layers: dict[str, dict[str, Tensor]] = {}

    def conv(name: str, given: int, width: int, side: int) -> None:
        kernel = torch.randn(side, side, given, width, generator=generator)
        layers[name] = {"kernel": kernel / (side * given**0.5)}

    def norm(name: str, width: int) -> None:
        noise = torch.randn(4, width, generator=generator) / 10
        layers[name] = {
            "gamma": 1 + noise[0],
            "beta": noise[1],
            "moving_mean": noise[2],
            "moving_variance": 0.01 + noise[3].abs(),
        }

    def separable(name: str, given: int, width: int) -> None:
        rows = torch.randn(3, 3, given, 1, generator=generator) / 3
        points = torch.randn(1, 1, given, width, generator=generator) / given**0.5
        layers[name] = {"depthwise_kernel": rows, "pointwise_kernel": points}
        norm(f"{name}_bn", width)

    conv("block1_conv1", 3, 32, 3), norm("block1_conv1_bn", 32)
    conv("block1_conv2", 32, 64, 3), norm("block1_conv2_bn", 64)
    shortcuts = {2: (64, 128), 3: (128, 256), 4: (256, 728), 13: (728, 1024)}
    for number, (block, widths) in enumerate(shortcuts.items()):
        extra = f"_{number}" if number else ""
        shortcuts[block] = (*widths, extra)  # type: ignore[assignment]
    for block in range(2, 15):
        for step, (given, width) in enumerate(_xception_widths(block), 1):
            separable(f"block{block}_sepconv{step}", given, width)
        if block in shortcuts:
            given, width, extra = shortcuts[block]  # type: ignore[misc]
            conv(f"conv2d{extra}", given, width, 1), norm(f"batch_normalization{extra}", width)
    return layers


def _xception_widths(block: int) -> list[tuple[int, int]]:
    first = {2: (64, 128), 3: (128, 256), 4: (256, 728)}
    if block in first:
        given, width = first[block]
        return [(given, width), (width, width)]
    if block == 13:
        return [(728, 728), (728, 1024)]
    return [(1024, 1536), (1536, 2048)] if block == 14 else [(728, 728)] * 3


def xception_forward(layers: dict[str, dict[str, Tensor]], x: Tensor) -> Tensor:
    """Pooled features of keras.applications.Xception, with the SAME padding of TensorFlow."""

    def conv(name: str, x: Tensor, stride: int = 1) -> Tensor:
        return functional.conv2d(x, layers[name]["kernel"].permute(3, 2, 0, 1), stride=stride)

    def norm(name: str, x: Tensor) -> Tensor:
        v = layers[name]
        mean, variance = v["moving_mean"], v["moving_variance"]
        return functional.batch_norm(x, mean, variance, v["gamma"], v["beta"], eps=1e-3)

    def separable(name: str, x: Tensor) -> Tensor:
        rows = layers[name]["depthwise_kernel"].permute(2, 3, 0, 1)
        x = functional.conv2d(x, rows, padding=1, groups=x.shape[1])
        points = layers[name]["pointwise_kernel"].permute(3, 2, 0, 1)
        return norm(f"{name}_bn", functional.conv2d(x, points))

    def pool(x: Tensor) -> Tensor:
        need = [max((-(-n // 2) - 1) * 2 + 3 - n, 0) for n in x.shape[2:]]
        pad = (need[1] // 2, need[1] - need[1] // 2, need[0] // 2, need[0] - need[0] // 2)
        return functional.max_pool2d(functional.pad(x, pad, value=-torch.inf), 3, 2)

    x = norm("block1_conv1_bn", conv("block1_conv1", x, 2)).relu()
    x = norm("block1_conv2_bn", conv("block1_conv2", x)).relu()
    shortcut = 0
    for block in range(2, 14):
        residual = x
        is_wider = block in (2, 3, 4, 13)
        if is_wider:
            extra = f"_{shortcut}" if shortcut else ""
            shortcut += 1
            residual = norm(f"batch_normalization{extra}", conv(f"conv2d{extra}", x, 2))
        for step in range(1, len(_xception_widths(block)) + 1):
            x = x if block == 2 and step == 1 else x.relu()
            x = separable(f"block{block}_sepconv{step}", x)
        x = (pool(x) if is_wider else x) + residual
    x = separable("block14_sepconv1", x).relu()
    return separable("block14_sepconv2", x).relu().mean((2, 3))

"""Segmentation networks: an encoder and a decoder for planes, 3D networks for volumes.

Planes get a decoder of segmentation_models_pytorch on any timm encoder that gives a pyramid of
features, so a pretrained backbone, or one of our classifiers, goes on as the encoder. Volumes get a
network of MONAI, which starts from random weights or from a checkpoint of this program.

Whatever starts from random weights has group or instance norms: a new batch norm has no statistics
worth freezing, and batches of patches are too small to give it some.

Shapes: B images, C channels, S spatial axes (2 or 3), K outputs per pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from medtl.errors import WeightsError
from medtl.networks.batch_norm import reapply
from medtl.networks.groups import layer_groups
from medtl.networks.names import check_backbone, check_volume_network
from medtl.networks.pretrained.weight_files import read_tensors
from medtl.networks.weights import (
    InputContract,
    WeightsReport,
    WeightsSource,
    adapt,
    create_backbone,
    fill,
    load_tensors,
    verified_file,
)

Decoder = Literal["unet", "fpn", "deeplabv3plus"]

DECODERS: dict[str, str] = {"unet": "Unet", "fpn": "FPN", "deeplabv3plus": "DeepLabV3Plus"}
"""Decoder in a recipe -> its class in segmentation_models_pytorch."""

UNET_CHANNELS = (128, 64, 32, 16, 16)
"""Of the 2D U-Net decoder, deepest first: half of the library's, which are made for ImageNet
encoders of 25 million parameters and cost more than a small encoder itself."""

VOLUME_CONTRACT = InputContract(mean=(0.5,), std=(0.5,), channels=1)
"""Input of 3D networks, [-1, 1]: they start from random weights, so this is a choice."""

GROUP_CHANNELS = 8
"""Channels that a group norm of a new layer takes together."""

WHOLE = 2.0
"""An image of at most this many patches goes through in one pass: cheaper than windows that
overlap, and without seams."""

WINDOWS = 4
"""Windows in one forward pass."""


def segmenters_in(model: nn.Module) -> list[Segmenter]:
    """Return the segmenters of a model: itself, those that it averages, or none."""
    return [module for module in model.modules() if isinstance(module, Segmenter)]


class Segmenter(nn.Module):
    """A network that labels pixels, of images of any size.

    In training it sees patches of one size. In evaluation an image of another size is padded evenly
    with its darkest value to what the network can halve, and cut back; one that is larger than
    `WHOLE` patches goes through in overlapping windows, weighted by a Gaussian.

    Args:
        network: From `(B, C, *S)` to `(B, K, *S)` logits.
        patch: Spatial shape of the windows.
        stride: The network needs axes that are multiples of it.
        overlap: Of neighbouring windows, in [0, 1).

    Raises:
        WeightsError: When the patch is not a multiple of the stride.
    """

    def __init__(
        self, network: nn.Module, *, patch: Sequence[int], stride: int, overlap: float = 0.5
    ) -> None:
        super().__init__()
        self.network = network
        self.patch, self.stride, self.overlap = tuple(patch), stride, overlap
        fitting = tuple(_multiple(length, stride) for length in patch)
        if fitting != self.patch:
            raise WeightsError(
                f"a patch of {' x '.join(map(str, patch))}",
                expected=f"multiples of {stride}, the stride of this network",
                where="image",
                fix=f"Take {' x '.join(map(str, fitting))}",
            )

    def forward(self, x_BCS: Tensor, extra_BE: Tensor | None = None) -> Tensor:
        """Return logits `(B, K, *S)`; a segmenter takes no extra numbers."""
        del extra_BE
        if self.training:
            logits: Tensor = self.network(x_BCS)
            return logits
        shape = tuple(x_BCS.shape[2:])
        if math.prod(shape) <= WHOLE * math.prod(self.patch):
            padded, inside = _pad(x_BCS, [_multiple(length, self.stride) for length in shape])
            whole: Tensor = self.network(padded)
            return whole[inside]
        padded, inside = _pad(x_BCS, [max(pair) for pair in zip(shape, self.patch, strict=True)])
        return self._windows(padded)[inside]

    def _windows(self, x_BCS: Tensor) -> Tensor:
        """Logits averaged over overlapping windows."""
        from monai.inferers.utils import sliding_window_inference

        logits = sliding_window_inference(
            x_BCS, self.patch, WINDOWS, self.network, overlap=self.overlap, mode="gaussian"
        )
        assert isinstance(logits, Tensor)
        return logits

    def set_bias(self, bias_K: Sequence[float]) -> None:
        """Set the bias of the last layer (`Task.head_bias`).

        Args:
            bias_K: One value per output.

        Raises:
            ValueError: When there is not one value per output.
        """
        last = [m for m in self.network.modules() if isinstance(m, _CONVOLUTIONS)][-1]
        if last.bias is None or len(last.bias) != len(bias_K):
            msg = f"{len(bias_K)} values for {last.out_channels} outputs"
            raise ValueError(msg)
        with torch.no_grad():
            last.bias.copy_(torch.as_tensor(bias_K))

    def train(self, mode: bool = True) -> Self:
        """Set the mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        reapply(self)
        return self


_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose3d)


def build_segmenter(
    backbone: str,
    *,
    outputs: int,
    patch: Sequence[int],
    weights: WeightsSource,
    decoder: Decoder = "unet",
    width: int = 16,
    overlap: float = 0.5,
) -> tuple[Segmenter, WeightsReport]:
    """Return a segmentation network with its initial weights, and what of them was loaded.

    A checkpoint of a segmenter fills encoder and decoder, as far as shapes agree (a head for other
    structures is skipped). Any other file, and all other sources, fill the encoder.

    Args:
        backbone: For planes a timm name; for volumes one of `names.VOLUME_NETWORKS`.
        outputs: Channels of the logits, K.
        patch: Shape of training patches and of windows: two axes or three.
        weights: Where the weights come from.
        decoder: Of planes.
        width: Of volumes: channels of the first level.
        overlap: Of neighbouring windows.

    Raises:
        WeightsError: When backbone, weights and patch do not belong together.
    """
    if len(patch) == 2:
        network, report = _plane_network(backbone, decoder, outputs, weights)
        stride = int(network.encoder.output_stride)
    else:
        check_volume_network(backbone)
        make, stride = _VOLUMES[backbone.partition("_")[0]]
        norm = "group" if weights.known is None else weights.known.norm
        network = make(backbone, outputs, width, norm)
        report = _load_volume(network, weights)
    return Segmenter(network, patch=patch, stride=stride, overlap=overlap), report


def _plane_network(
    backbone: str, decoder: Decoder, outputs: int, weights: WeightsSource
) -> tuple[Any, WeightsReport]:
    """A decoder on a timm encoder, and what was loaded."""
    check_backbone(backbone)
    own = _own_checkpoint(weights)
    source = replace(weights, kind="none") if own else weights
    body, report = create_backbone(backbone, source)
    network = _decoder_on(backbone, decoder, outputs)
    adapt(network.encoder, weights.known)
    report = _fill_encoder(network.encoder.model, body, report)
    return network, _load_own(network, weights, own, report.contract) if own else report


def _decoder_on(backbone: str, decoder: Decoder, outputs: int) -> Any:
    """A network of segmentation_models_pytorch with random weights."""
    import segmentation_models_pytorch as smp

    options = {"decoder_channels": UNET_CHANNELS} if decoder == "unet" else {}
    try:
        network = getattr(smp, DECODERS[decoder])(
            f"tu-{backbone}", encoder_weights=None, in_channels=3, classes=outputs, **options
        )
    except (ValueError, RuntimeError, TypeError, AssertionError) as error:
        raise WeightsError(
            f"{backbone} cannot be the encoder of a {decoder} decoder",
            expected="a convolutional network that halves the image five times",
            where="model.backbone",
            fix="Take tf_efficientnet_lite0, resnet50, densenet121 or convnext_tiny",
        ) from error
    _replace_batch_norms(network.decoder)
    return network


def _replace_batch_norms(part: nn.Module) -> None:
    """Put a group norm in the place of every batch norm."""
    for name, child in list(part.named_children()):
        if isinstance(child, _BatchNorm):
            channels = child.num_features
            groups = channels // GROUP_CHANNELS if channels % GROUP_CHANNELS == 0 else 1
            setattr(part, name, nn.GroupNorm(groups, channels))
        else:
            _replace_batch_norms(child)


def _fill_encoder(encoder: nn.Module, body: nn.Module, report: WeightsReport) -> WeightsReport:
    """Copy a backbone into its pyramid form, whose names write some dots as underscores."""
    given = {name.replace(".", "_"): (name, tensor) for name, tensor in body.state_dict().items()}
    pairs = {name: given[name.replace(".", "_")] for name in encoder.state_dict()}
    encoder.load_state_dict({name: tensor for name, (_, tensor) in pairs.items()})
    used = {name for name, _ in pairs.values()}
    left = [name for name in body.state_dict() if name not in used]
    notes = [f"{len(left)} tensors after the last feature map are not part of an encoder"]
    return replace(
        report,
        loaded=tuple(name for name in report.loaded if name in used),
        missing=tuple(name for name in report.missing if name in used),
        notes=(*report.notes, *(notes if left else [])),
    )


def _own_checkpoint(weights: WeightsSource) -> dict[str, Tensor]:
    """The tensors of a file that holds one of our segmenters, else nothing."""
    if weights.kind != "file":
        return {}
    tensors = read_tensors(verified_file(weights)[0])
    return tensors if any(".network." in f".{name}" for name in tensors) else {}


def _load_own(
    network: nn.Module, weights: WeightsSource, tensors: dict[str, Tensor], contract: InputContract
) -> WeightsReport:
    """Fill a whole network from a checkpoint of a segmenter."""
    path, sha256 = verified_file(weights)
    origin = WeightsReport(f"segmenter of {path.name}", "", contract, sha256=sha256)
    *_, head = layer_groups(network)
    free = (*weights.allow_missing, *head.parameters, *head.buffers)
    return load_tensors(network, tensors, origin, free)


def _load_volume(network: nn.Module, weights: WeightsSource) -> WeightsReport:
    """Fill a 3D network, or its encoder, from a file; say that it is random without one."""
    if weights.kind == "none":
        said, missing = "random weights: trained from scratch", tuple(network.state_dict())
        return WeightsReport(said, "none needed", VOLUME_CONTRACT, missing=missing)
    if weights.kind != "file":
        raise WeightsError(
            f"there are no {weights.kind} weights for 3D networks",
            expected="none (from scratch) or a file",
            where="model.weights",
            fix="Write weights: none",
        )
    if own := _own_checkpoint(weights):
        return _load_own(network, weights, own, VOLUME_CONTRACT)
    part, free = pretrained_part(network, weights)
    return fill(part, weights, partial(WeightsReport, contract=VOLUME_CONTRACT), free)


def pretrained_part(
    network: nn.Module, weights: WeightsSource
) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the part of a 3D network that published weights fill, and what they need not have."""
    if hasattr(network, "encoder"):
        return network.get_submodule("encoder"), ()
    *_, head = layer_groups(network)
    return network, () if weights.known is None else (*head.parameters, *head.buffers)


def _unet(_: str, outputs: int, width: int, *__: str) -> nn.Module:
    """MONAI's residual 3D U-Net of four levels, instance norm."""
    from monai.networks.nets.unet import UNet

    channels = tuple(width * factor for factor in (1, 2, 4, 8))
    return UNet(3, 1, outputs, channels, strides=(2, 2, 2), num_res_units=2)


def _segresnet(_: str, outputs: int, width: int, *__: str) -> nn.Module:
    """MONAI's SegResNet of four levels, group norm (Myronenko 2018)."""
    from monai.networks.nets.segresnet import SegResNet

    groups = math.gcd(8, width)
    return SegResNet(3, width, 1, outputs, norm=("GROUP", {"num_groups": groups}))


def _resnet(name: str, outputs: int, width: int, norm: str) -> nn.Module:
    """A 3D ResNet as the encoder of a U-Net; its norm is that of its weights, else group norm."""
    from monai.networks.nets.flexible_unet import FlexibleUNet

    channels = tuple(width * factor for factor in (16, 8, 4, 2, 1))
    backbone = name.removesuffix("_3d")
    network = FlexibleUNet(1, outputs, backbone, decoder_channels=channels, spatial_dims=3)
    _replace_batch_norms(network.decoder if norm == "batch" else network)
    return network


def _inflated(name: str, outputs: int, width: int, norm: str) -> nn.Module:
    """A 3D ResNet as `_resnet` makes it, whose stem takes whole slices and keeps each of them.

    Merlin's (Blankemeier et al. 2024): kernels of 7 x 7 x 3 that stride within the slice alone, so
    the decoder's last step enlarges the slice alone.
    """
    network = _resnet(name.removeprefix("i3"), outputs, width, norm)
    parts: Any = network
    parts.encoder.conv1 = nn.Conv3d(1, 64, (7, 7, 3), (2, 2, 1), (3, 3, 1), bias=False)
    parts.decoder.blocks[-1].upsample.upsample_non_trainable.scale_factor = (2.0, 2.0, 1.0)
    return network


_VOLUMES: dict[str, tuple[Callable[[str, int, int, str], nn.Module], int]] = {
    "unet": (_unet, 8),
    "segresnet": (_segresnet, 8),
    **dict.fromkeys(("resnet10", "resnet18", "resnet34", "resnet50"), (_resnet, 32)),
    "i3resnet152": (_inflated, 32),
}
"""First part of a name in `names.VOLUME_NETWORKS` -> (how it is made, its stride)."""


def _multiple(length: int, of: int) -> int:
    """The smallest multiple that is not below a length."""
    return -(-length // of) * of


def _pad(x_BCS: Tensor, shape: Sequence[int]) -> tuple[Tensor, tuple[slice | Any, ...]]:
    """The image in the middle of a larger grid of its darkest value, and where it lies there."""
    sizes = tuple(x_BCS.shape[2:])
    if sizes == tuple(shape):
        return x_BCS, (...,)
    before = [(new - old) // 2 for new, old in zip(shape, sizes, strict=True)]
    after = [new - old - first for new, old, first in zip(shape, sizes, before, strict=True)]
    darkest = x_BCS.amin(dim=tuple(range(2, x_BCS.ndim)), keepdim=True)
    # torch pads the last axis first.
    widths = list(chain.from_iterable(reversed(list(zip(before, after, strict=True)))))
    padded = functional.pad(x_BCS - darkest, widths) + darkest
    return padded, (..., *(slice(b, b + n) for b, n in zip(before, sizes, strict=True)))

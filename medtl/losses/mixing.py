"""Mixtures of two training images: of their intensities (mixup), or of their areas (CutMix)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from medtl.types import Positive

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Mix:
    """Which mixtures a batch is made of; of two, each batch takes one by a fair coin.

    The share of the first image is drawn from Beta(alpha, alpha) for each batch, and the loss is
    that of both targets in the same shares, which is right for targets that are not known too.

    Attributes:
        mixup: Alpha of the shares of intensities, > 0; 0.2 is usual, 1 is any share alike.
        cutmix: Alpha of the shares of areas, > 0: a rectangle of the second image; 1 is usual.

    Reference:
        Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018, equation 2.
        Yun et al., "CutMix", ICCV 2019, equations 1 and 2.

    Raises:
        ValueError: When neither is asked for.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> images = torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1)
        >>> mixed, order, share = Mix(mixup=1.0)(images)
        >>> bool(torch.isclose(mixed[1, 0, 0, 0], share + (1 - share) * order[1].float()))
        True
    """

    mixup: Positive | None = None
    cutmix: Positive | None = None

    def __post_init__(self) -> None:
        """Refuse a mixture of nothing."""
        if not self.asked:
            msg = "state mixup, cutmix or both"
            raise ValueError(msg)

    @property
    def asked(self) -> tuple[str, ...]:
        """The names of what is asked for."""
        return tuple(name for name in ("mixup", "cutmix") if getattr(self, name) is not None)

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor, float]:
        """Return mixed images `(B, C, *S)`, which image was added to each, and the first's share.

        Args:
            images: `(B, C, *S)`; torch's generator decides all that is drawn.
        """
        import torch

        names = self.asked
        name = names[int(torch.randint(len(names), ()))]
        alpha = float(getattr(self, name))
        share = float(torch.distributions.Beta(alpha, alpha).sample())
        order = torch.randperm(len(images), device="cpu").to(images.device)
        other = images[order]
        if name == "mixup":
            return share * images + (1 - share) * other, order, share
        part = (1 - share) ** (1 / (images.ndim - 2))
        box = tuple(_stretch(side, part) for side in images.shape[2:])
        place = (slice(None), slice(None), *box)
        mixed = images.clone()
        mixed[place] = other[place]
        kept = 1 - mixed[place][0, 0].numel() / images[0, 0].numel()
        return mixed, order, kept


def _stretch(side: int, part: float) -> slice:
    """A stretch of a side about a drawn centre, cut at its ends."""
    import torch

    length, center = round(side * part), int(torch.randint(side, ()))
    first = center - length // 2
    return slice(max(first, 0), min(first + length, side))

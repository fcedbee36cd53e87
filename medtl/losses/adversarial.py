"""Learning from images that were changed on purpose, so that small changes move no answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from medtl.types import Count, Fraction

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class AdversarialTraining:
    """Learning from the worst image within `eps` of each training image, as the network sees it.

    The images of every batch are attacked anew (PGD with a random start). A step costs `steps` + 2
    passes, and a model that small changes move less often ranks unchanged images worse. With the
    attacked images alone (`weight` 1) a network that cannot answer them answers everything alike.

    Attributes:
        eps: Largest change of a pixel, as a share of the range from black to white, in (0, 1].
        steps: Gradient steps of the attack.
        weight: Share of the attacked images in the loss, in (0, 1]; the rest is that of the images
            as they are.

    Reference:
        Madry et al., "Towards deep learning models resistant to adversarial attacks", ICLR 2018,
        equations 2 and 3; the share is that of Goodfellow et al., "Explaining and harnessing
        adversarial examples", ICLR 2015, section 6.

    Raises:
        ValueError: When nothing may change.

    Example:
        >>> AdversarialTraining(eps=0.004).attack(seed=5)
        Attack(eps=0.004, steps=3, step_size=None, random_start=True, seed=5)
    """

    eps: Fraction = 0.004
    steps: Count = 3
    weight: Fraction = 0.5
    method: Literal["adversarial"] = field(default="adversarial", repr=False, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse an attack that changes nothing."""
        if not self.eps or not self.weight:
            msg = f"{'weight' if self.eps else 'eps'} 0 changes nothing: leave finetune.learn out"
            raise ValueError(msg)

    def attack(self, seed: int) -> Attack:
        """Return the attack on one batch.

        Args:
            seed: Of the change that it starts from.
        """
        return Attack(self.eps, self.steps, random_start=True, seed=seed)


@dataclass(frozen=True)
class Attack:
    """Projected gradient ascent on a loss, in the maximum norm.

    One step of size eps from the image itself is the fast gradient sign method (Goodfellow et al.
    2015, eq. in section 4); more steps with a random start are PGD (Madry et al. 2018, eq. 3).

    Attributes:
        eps: Largest change of a pixel, in [0, 1] of unit intensity.
        steps: Gradient steps.
        step_size: Of one step; None is eps for one step, 2.5 eps / steps for more.
        random_start: Whether the first step starts from a random change within eps.
        seed: Of that change.

    Example:
        >>> import torch
        >>> image = torch.full((1, 1, 1, 2), 0.5)
        >>> Attack(0.25)(image, lambda x: x[..., 0].sum() - x[..., 1].sum()).tolist()
        [[[[0.75, 0.25]]]]
    """

    eps: float
    steps: int = 1
    step_size: float | None = None
    random_start: bool = False
    seed: int = 0

    def __call__(
        self, units: Tensor, loss: Callable[[Tensor], Tensor], mask: Tensor | None = None
    ) -> Tensor:
        """Return the changed images: within eps of the images, and within [0, 1].

        Args:
            units: `(B, C, *S)` in [0, 1].
            loss: From unit images to what is raised, a sum over the images.
            mask: `(*S)` of 0 and 1: where pixels may change (a patch); None for everywhere.
        """
        import torch

        if self.eps == 0:
            return units
        allowed = torch.ones_like(units) if mask is None else mask.expand_as(units)
        low, high = (units - self.eps).clamp_min(0), (units + self.eps).clamp_max(1)
        changed = units
        if self.random_start:
            drawn = torch.rand(units.shape, generator=torch.Generator().manual_seed(self.seed))
            changed = units + (2 * drawn.to(units.device) - 1) * self.eps * allowed
            changed = torch.maximum(torch.minimum(changed, high), low)
        size = self.step_size or (self.eps if self.steps == 1 else 2.5 * self.eps / self.steps)
        for _ in range(self.steps):
            leaf = changed.detach().requires_grad_()
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(loss(leaf), leaf)
            changed = leaf.detach() + size * gradient.sign() * allowed
            changed = torch.maximum(torch.minimum(changed, high), low)
        return changed.detach()

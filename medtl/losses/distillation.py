"""Distillation: the outputs of a network against those of another one that teaches it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from medtl.losses.known import mean_over_known
from medtl.types import Fraction, Positive

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Distillation:
    """`method: distill`: learning from labels and from what a teacher says of the same images.

    `T^2 * KL(teacher / T || student / T)`, softened by the temperature T on both sides; T^2 keeps
    the size of the gradient. A large T compares the logits themselves: the gradient becomes
    (z - r) / K for K classes with logits of mean 0, and (z - r) / 4 for a finding.

    Attributes:
        teacher: Folder of a run, or of a study of folds whose every case is taught by the models
            that did not train on it (`medtl study kfold --ensemble`); relative to the recipe.
        temperature: T, > 0; 1 to 20 is usual.
        weight: Share of the teacher in the loss, in [0, 1]; the rest is the task's own loss.

    Reference:
        Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015, section 2.

    Example:
        >>> import torch
        >>> loss = Distillation("runs/teacher", temperature=1.0)
        >>> logits = torch.tensor([[2.0, 0.0]])
        >>> float(loss(logits, logits, exclusive=True))
        0.0
    """

    teacher: str
    temperature: Positive = 2.0
    weight: Fraction = 0.5
    method: Literal["distill"] = field(default="distill", repr=False, kw_only=True)

    def __call__(self, outputs: Tensor, teacher: Tensor, *, exclusive: bool) -> Tensor:
        """Return the divergence from the teacher, the mean over the cases that it knows.

        Args:
            outputs: `(B, K)` logits of the student.
            teacher: `(B, K)` logits of the teacher; NaN where it has none.
            exclusive: Whether the outputs are classes of which one holds (a softmax), or findings
                (a sigmoid each).
        """
        import torch
        from torch.nn import functional

        known = ~torch.isnan(teacher)
        both = torch.stack([outputs, torch.where(known, teacher, 0.0)]) / self.temperature
        if exclusive:
            known = known.all(dim=-1)
        else:  # a sigmoid is a softmax over the logit and 0
            both = torch.stack([both, torch.zeros_like(both)], dim=-1)
        student, taught = functional.log_softmax(both, dim=-1)
        each = functional.kl_div(student, taught, reduction="none", log_target=True).sum(dim=-1)
        return self.temperature**2 * mean_over_known(each, known)


def agreement(outputs: Tensor, teacher: Tensor, *, exclusive: bool) -> Tensor:
    """Return the share of cases, or of their findings, for which student and teacher say the same.

    Args:
        outputs: `(B, K)` logits of the student.
        teacher: `(B, K)` logits of the teacher; NaN where it has none.
        exclusive: Whether they are classes, not findings.

    Example:
        >>> import torch
        >>> student, teacher = torch.tensor([[1.0], [-1.0]]), torch.tensor([[2.0], [3.0]])
        >>> float(agreement(student, teacher, exclusive=False))
        0.5
    """
    import torch

    known = ~torch.isnan(teacher)
    if exclusive:
        same = outputs.argmax(dim=-1) == torch.where(known, teacher, 0.0).argmax(dim=-1)
        return mean_over_known(same.float(), known.all(dim=-1))
    return mean_over_known(((outputs > 0) == (teacher > 0)).float(), known)

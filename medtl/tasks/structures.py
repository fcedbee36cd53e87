"""Segmentation: which pixels belong to which structure, in planes and in volumes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medtl.errors import ImageError, ManifestError
from medtl.losses.known import IGNORE
from medtl.losses.segmentation import DiceCrossEntropy
from medtl.tasks.inputs import IMAGE_ALONE, Inputs
from medtl.types import Case

if TYPE_CHECKING:
    from torch import Tensor

MOST_STRUCTURES = 254
"""Classes are stored as bytes, and `IGNORE` is one of them."""


@dataclass(frozen=True)
class Structures:
    """Structures in masks: a softmax over them and the background, or a sigmoid for each.

    Attributes:
        labels: What the structures are called.
        values: The values of a mask's pixels that mean each structure. Several for a structure that
            is the union of others (whole tumour: 1, 2 and 4), which needs `exclusive` False.
        ignored: Values that mean "not known".
        exclusive: Whether a pixel belongs to one structure at most.
        criterion: The loss of (outputs, masks).
        present: Case id -> indices of the structures that its mask shows, once masks were read.
    """

    labels: tuple[str, ...]
    values: tuple[tuple[int, ...], ...]
    ignored: tuple[int, ...] = ()
    exclusive: bool = True
    criterion: Callable[..., Tensor] = field(default_factory=DiceCrossEntropy)
    present: Mapping[str, frozenset[int]] = field(default_factory=dict)
    inputs: Inputs = IMAGE_ALONE
    watched: str = "dice"
    larger_is_better: bool = True

    @property
    def outputs(self) -> int:
        """One number per structure and pixel, and one for the background of exclusive ones."""
        return len(self.labels) + self.exclusive

    @property
    def unit(self) -> None:
        """None: scores are probabilities."""
        return None

    @property
    def meanings(self) -> dict[int, str]:
        """Value in a mask file -> what it means, for `io.masks.read_mask`."""
        meanings = dict.fromkeys(self.ignored, "not known")
        for label, values in zip(self.labels, self.values, strict=True):
            for value in values:
                meanings[value] = f"{meanings[value]}, {label}" if value in meanings else label
        return dict(sorted(meanings.items()))

    def encode(
        self, mask: NDArray[np.integer], *, planes: Sequence[int] = (), where: str = "mask"
    ) -> NDArray[np.uint8]:
        """Return the training mask of what a mask file holds.

        Args:
            mask: `(*S)` values as they stand in the file, or `(P, *S)` of 0 and 1.
            planes: For the latter, the value that each plane stands for.
            where: The file, for the message.

        Returns:
            Class indices `(*S)` (0 is the background), or 0 and 1 `(K, *S)`; `IGNORE` where the
            truth is not known.

        Raises:
            ImageError: When the file holds a value that means nothing.
        """
        found = planes or np.unique(mask).tolist()
        strange = sorted(set(found) - {0, *self.meanings})
        if strange:
            raise ImageError(
                f"the mask holds {', '.join(str(value) for value in strange[:8])}",
                expected=f"only 0, {', '.join(str(value) for value in self.meanings)}",
                where=where,
                fix="Name these values in task.structures or task.ignored",
            )

        def holds(values: Sequence[int]) -> NDArray[np.bool_]:
            if not planes:
                return np.isin(mask, values)
            return np.asarray(mask[[value in values for value in planes]].any(axis=0))

        structures = np.stack([holds(values) for values in self.values]).astype(np.uint8)
        if self.exclusive:
            numbers = np.arange(1, len(structures) + 1, dtype=np.uint8)
            structures *= numbers.reshape(-1, *(1,) * (structures.ndim - 1))
            structures = structures.max(axis=0)
        return np.where(holds(self.ignored), np.uint8(IGNORE), structures)

    def label_map(self, scores: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Return what a mask file should hold: the most probable class, or every score from 0.5 on.

        Args:
            scores: `(outputs, *S)` probabilities.

        Returns:
            As `file_values`.
        """
        if self.exclusive:
            return self.file_values(scores.argmax(axis=0).astype(np.uint8))
        return (scores >= 0.5).astype(np.uint8)

    def file_values(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return what a mask file should hold for an encoded mask; what is not known becomes 0.

        Args:
            mask: As `encode` returned it.

        Returns:
            `(*S)` the first value of each structure, or `(K, *S)` of 0 and 1 if structures overlap.
        """
        values = np.zeros(IGNORE + 1, dtype=np.uint8)
        first = [group[0] for group in self.values]
        values[1 : len(first) + 1] = first if self.exclusive else 1
        return np.asarray(values[mask])

    def plane(self, mask: NDArray[np.uint8], label: str) -> NDArray[np.bool_]:
        """Return where an encoded mask shows one structure, `(*S)`.

        Args:
            mask: As `encode` returned it.
            label: One of `labels`.
        """
        number = self.labels.index(label)
        return np.asarray(mask == number + 1 if self.exclusive else mask[number] == 1)

    def observed(self, masks: Iterable[tuple[str, NDArray[np.uint8]]]) -> Structures:
        """Return this task with what the masks of some cases show, for `tally` and `strata`.

        Args:
            masks: (case id, mask as `encode` returned it).
        """
        return replace(self, present={case: self._shown(mask) for case, mask in masks})

    def targets(self, cases: Sequence[Case]) -> NDArray[np.float32]:
        """`(n, 0)`: the targets are masks, which the image store holds."""
        return np.zeros((len(cases), 0), dtype=np.float32)

    def certain_targets(self, cases: Sequence[Case]) -> NDArray[np.float32]:
        """The targets: none is uncertain."""
        return self.targets(cases)

    def truth_matrix(self, cases: Sequence[Case]) -> NDArray[np.float32]:
        """`(n, K)` of NaN: no single number is the truth of a case."""
        return np.full((len(cases), len(self.labels)), np.nan, dtype=np.float32)

    def strata(self, cases: Sequence[Case]) -> NDArray[np.int64]:
        """`(n, K)`: 1 where the mask was read and shows the structure."""
        shown = [self.present.get(case.case_id, frozenset()) for case in cases]
        rows = [[int(k in structures) for k in range(len(self.labels))] for structures in shown]
        return np.array(rows, dtype=np.int64).reshape(len(cases), len(self.labels))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Scalar; pixels of value `IGNORE` count nowhere."""
        return self.criterion(outputs, targets)

    def decode(self, outputs: Tensor) -> Tensor:
        """`(B, outputs, *S)` probabilities; those of exclusive structures sum to 1."""
        return outputs.softmax(dim=1) if self.exclusive else outputs.sigmoid()

    def explain(self, outputs: Tensor, label: str) -> Tensor:
        """Mean logit of a structure over the pixels that are taken for it (over all, if none)."""
        number = self.labels.index(label) + self.exclusive
        taken = self._decided(outputs)[:, self.labels.index(label)]
        logits = outputs[:, number]
        return logits[taken].mean() if bool(taken.any()) else logits.mean()

    def assess(self, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, float | None]:
        """Mean loss over the cases, and the mean Dice of the structures.

        The Dice of a structure is the mean over cases of the hard masks' overlap. A case in which
        neither mask shows it does not count; None when no case counts.
        """
        import torch

        total, cases = 0.0, 0
        overlap, counted = torch.zeros(len(self.labels)), torch.zeros(len(self.labels))
        for outputs, targets in batches:
            total += float(self.loss(outputs, targets)) * len(outputs)
            cases += len(outputs)
            both, sizes = self._overlap(outputs, targets)
            overlap += torch.where(sizes > 0, 2 * both / sizes.clamp(min=1), 0.0).sum(dim=0)
            counted += (sizes > 0).sum(dim=0)
        seen = counted > 0
        dice = float((overlap[seen] / counted[seen]).mean()) if bool(seen.any()) else None
        return total / cases, dice

    def can_watch(self, cases: Sequence[Case]) -> bool:
        """Always: a Dice of few cases is not grainy, as an AUROC is."""
        del cases
        return True

    def rows(self, case: Case, score: NDArray[np.float32]) -> list[dict[str, Any]]:
        """None: a mask is a file, and `prediction.masks` writes the row that names it."""
        del case, score
        return []

    def tally(self, cases: Sequence[Case]) -> dict[str, dict[str, int]]:
        """Structure -> cases whose mask shows it, does not show it, or is missing."""
        read = [self.present[case.case_id] for case in cases if case.case_id in self.present]
        counts = {}
        for k, label in enumerate(self.labels):
            positive = sum(k in shown for shown in read)
            counts[label] = {
                "positive": positive,
                "negative": len(read) - positive,
                "missing": len(cases) - len(read),
            }
        return counts

    def summary(self, cases: Sequence[Case]) -> str:
        """In how many masks each structure is shown."""
        read = sum(case.case_id in self.present for case in cases)
        shown = "; ".join(
            f"{label} in {of['positive']} of {read} masks"
            for label, of in self.tally(cases).items()
        )
        missing = len(cases) - read
        return f"{shown}; {missing} without a mask" if missing else shown

    def head_bias(self, cases: Sequence[Case]) -> NDArray[np.float32]:
        """`(outputs,)` zeros: how large the structures are is not known before masks are read."""
        del cases
        return np.zeros(self.outputs, dtype=np.float32)

    def weighted(self, cases: Sequence[Case]) -> Structures:
        """This task: the overlap losses weigh structures by themselves."""
        del cases
        return self

    def to_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold to decode and to write masks again."""
        return {
            "kind": "structures",
            "labels": list(self.labels),
            "values": [list(values) for values in self.values],
            "ignored": list(self.ignored),
            "exclusive": self.exclusive,
        }

    def _decided(self, outputs: Tensor) -> Tensor:
        """`(B, K, *S)` booleans: the pixels taken for each structure."""
        if not self.exclusive:
            return outputs >= 0
        best = outputs.argmax(dim=1)
        return _planes(best, self.outputs)

    def _overlap(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """`(B, K)` known pixels in both masks, and the sum of their sizes."""
        known = targets != IGNORE
        truth = targets == 1
        if self.exclusive:
            truth = _planes(targets, self.outputs)
            known = known[:, None]
        decided = (self._decided(outputs) & known).flatten(2)
        both = (decided & truth.flatten(2)).sum(dim=2)
        return both, decided.sum(dim=2) + truth.flatten(2).sum(dim=2)

    def _shown(self, mask: NDArray[np.uint8]) -> frozenset[int]:
        """Indices of the structures in an encoded mask."""
        if self.exclusive:
            return frozenset(int(value) - 1 for value in np.unique(mask) if 0 < value < IGNORE)
        return frozenset(k for k, plane in enumerate(mask) if (plane == 1).any())


def _planes(numbers: Tensor, outputs: int) -> Tensor:
    """`(B, K, *S)` booleans of `(B, *S)` class numbers; the background has none."""
    import torch

    return torch.stack([numbers == k for k in range(1, outputs)], dim=1)


def segmentation_task(
    structures: Mapping[str, int | Sequence[int]],
    *,
    ignored: Sequence[int] = (),
    overlapping: bool = False,
    **options: Any,
) -> Structures:
    """Return the task that a recipe's structures call for.

    Args:
        structures: Name -> value, or values, of the mask's pixels.
        ignored: Values that mean "not known".
        overlapping: Whether a pixel may belong to several structures.
        **options: `criterion` of `Structures`.

    Raises:
        ManifestError: When there is no structure, a value is 0 or outside a byte, or structures
            that exclude each other share a value, or one is called "ignore".
    """
    values = tuple((v,) if isinstance(v, int) else tuple(v) for v in structures.values())
    every = [value for group in (*values, tuple(ignored)) for value in group]
    where = "task.structures"
    if not 0 < len(values) <= MOST_STRUCTURES or not all(values):
        raise ManifestError(
            f"{len(values)} structures", expected=f"1 to {MOST_STRUCTURES}, with values",
            where=where,
        )  # fmt: skip
    if "ignore" in structures:
        known = [name for name in structures if name != "ignore"]
        raise ManifestError(
            "a structure called 'ignore', which nnU-Net calls what is not known",
            expected="structures that are learned",
            where=where,
            fix=f"Leave {', '.join(known)} there and state task.ignored: "
            f"{[*values[[*structures].index('ignore')]]}",
        )
    if any(not 0 < value <= 255 for value in every):
        raise ManifestError(
            "a value is not within 1 to 255", expected="0 is background", where=where
        )
    if not overlapping and len(set(every)) < len(every):
        raise ManifestError(
            "a value belongs to two structures",
            where=where,
            fix="State task.overlapping: true, or give every value to one structure",
        )
    return Structures(
        labels=tuple(structures),
        values=values,
        ignored=tuple(ignored),
        exclusive=not overlapping,
        **options,
    )

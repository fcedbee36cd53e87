"""Predictions of some images: a table with its remarks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtl.io.harmless import HARMLESS

if TYPE_CHECKING:
    import pandas as pd

SHOWN_ROWS = 10
"""Of the table, in a notebook, and of the images that could not be read."""


@dataclass(frozen=True, repr=False)
class Predictions:
    """Predictions of some images.

    Attributes:
        frame: The predictions, as `medtl.cases.predictions.read_predictions` returns them, and for
            new images `file`, `threshold`, `decision`, `content_sha256` and `unlike_training`;
            where validation called for a recalibration also `probability`, the mended score, and
            `probability_threshold` on its scale; where exams are judged `exam_score`, of which
            `decision` and `probability` then are.
        images: Images predicted.
        flagged: Of them, unlike the training images or odd, with what was seen.
        quarantined: Images that could not be read, with file and cause.
        quality: File that lists both, beside the predictions; None when nothing was written.
        left_out: Objects of a fetched study that are no images.
        notes: What of the images that were given was left out, and why.
        unknown: Flag -> images of which the network was not told all it asks for ("sex_unknown").

    Example:
        >>> import pandas as pd
        >>> Predictions(pd.DataFrame({"case_id": ["a"], "y_score": [0.2]}), images=1)
        Predictions(1 images, 1 rows, 0 flagged, 0 not readable)
    """

    frame: pd.DataFrame
    images: int
    flagged: tuple[dict[str, Any], ...] = ()
    quarantined: tuple[dict[str, Any], ...] = ()
    quality: Path | None = None
    left_out: int = 0
    unknown: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def told(self, out: str | PathLike[str], mended: Iterable[str] = ()) -> list[str]:
        """Return what there is to say of them when they have been written.

        Args:
            out: The table.
            mended: What is said of the probabilities.
        """
        lines = [*self.notes]
        if self.left_out:
            lines.append(f"{self.left_out} objects of the study are no images and were left out")
        lines += [f"{self.images} images predicted: {out}", *mended]
        lines += [
            f"{count} of them: {flag.replace('_', ' ')}, so the network was told nothing of it"
            for flag, count in self.unknown.items()
        ]
        if self.flagged or self.quarantined:
            odd, unread = len(self.flagged), len(self.quarantined)
            lines.append(f"{odd} flagged, {unread} could not be read: {self.quality}")
            lines += [f"  {one['file']}: {one['cause']}" for one in self.quarantined[:SHOWN_ROWS]]
            lines += self._flags_in_words()
        return lines

    def _flags_in_words(self) -> list[str]:
        """How many images each common flag is of, and whether anything is to be done."""
        counts = Counter(flag for one in self.flagged for flag in one["flags"])
        lines = [
            f"  {count} {flag}: {HARMLESS[flag]}; nothing to do"
            if flag in HARMLESS
            else f"  {count} {flag}: look at these images"
            for flag, count in counts.most_common(SHOWN_ROWS)
            if flag not in self.unknown  # said above
        ]
        if unlike := sum(bool(one["unlike_training"]) for one in self.flagged):
            lines.append(f"  {unlike} unlike the training images: read their scores with care")
        return lines

    def __repr__(self) -> str:
        return (
            f"Predictions({self.images} images, {len(self.frame)} rows, {len(self.flagged)} flagged"
            f", {len(self.quarantined)} not readable)"
        )

    def _repr_html_(self) -> str:
        return f"{self.frame.head(SHOWN_ROWS).to_html(index=False)}<p>{self!r}: .frame</p>"

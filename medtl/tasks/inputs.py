"""The numbers that a network is told about a case besides its image: none, or the patient's sex."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from medtl.errors import ManifestError
from medtl.types import Case

SEXES = {"f": -8.0, "female": -8.0, "m": 8.0, "male": 8.0, "": 0.0, "u": 0.0, "o": 0.0}
"""Spellings of a sex, lower case -> what the network is told: unknown lies in the middle.

The thousand pooled features of a hand lie 9 (at 224 pixels) to 26 (at 96) from their mean. Every
weight moves by about the same step: of a sex of -1 and 1 a short training would not learn the one
weight.
"""


class Inputs(Protocol):
    """What joins the pooled features of an image."""

    @property
    def width(self) -> int:
        """How many numbers per case; 0 for the image alone."""
        ...

    def __call__(self, cases: Sequence[Case]) -> NDArray[np.float32]:
        """`(n, width)` numbers of some cases."""
        ...

    def completed(self, case: Case, facts: Mapping[str, str | float]) -> Case:
        """The case with what its image's header tells of them, where no column does."""
        ...

    def unknown(self, case: Case) -> tuple[str, ...]:
        """Flags for what neither a column nor the header tells ("sex_unknown")."""
        ...


@dataclass(frozen=True)
class ImageAlone:
    """Nothing besides the image."""

    width: int = 0

    def __call__(self, cases: Sequence[Case]) -> NDArray[np.float32]:
        """`(n, 0)`."""
        return np.zeros((len(cases), 0), dtype=np.float32)

    def completed(self, case: Case, facts: Mapping[str, str | float]) -> Case:
        """The case as it is."""
        del facts
        return case

    def unknown(self, case: Case) -> tuple[str, ...]:
        """Nothing: nothing is asked."""
        del case
        return ()


IMAGE_ALONE = ImageAlone()


@dataclass(frozen=True)
class Sex:
    """The patient's sex as one number.

    Attributes:
        column: Manifest column with one of `SEXES`; among `Case.strata`.

    Example:
        >>> from pathlib import Path
        >>> hand = Case("c", "p", Path("hand.dcm"))
        >>> Sex("male").unknown(hand)
        ('sex_unknown',)
        >>> Sex("male")([Sex("male").completed(hand, {"patient_sex": "F"})])
        array([[-8.]], dtype=float32)
    """

    column: str
    width: int = 1

    def __call__(self, cases: Sequence[Case]) -> NDArray[np.float32]:
        """`(n, 1)`: -8 female, +8 male, 0 unknown.

        Raises:
            ManifestError: When a cell is no sex.
        """
        return np.array([[self._number(case)] for case in cases], dtype=np.float32)

    def completed(self, case: Case, facts: Mapping[str, str | float]) -> Case:
        """The case with Patient's Sex (0010,0040) of its file, if its table has no such column.

        An empty cell stays unknown, as it was in training.
        """
        told = str(facts.get("patient_sex", ""))
        if self.column in case.strata or told.lower() not in SEXES:
            return case
        return replace(case, strata={**case.strata, self.column: told})

    def unknown(self, case: Case) -> tuple[str, ...]:
        """`("sex_unknown",)` where the network is told the middle."""
        return () if self._number(case) else ("sex_unknown",)

    def _number(self, case: Case) -> float:
        """What the network is told about the patient's sex."""
        text = case.strata.get(self.column, "").strip().lower()
        if text not in SEXES:
            raise ManifestError(
                f"a value of column {self.column!r} is no sex",
                expected="F, M, female, male, or an empty cell",
                where=f"row {case.row}",
            )
        return SEXES[text]

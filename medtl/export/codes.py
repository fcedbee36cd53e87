"""Coded words: those of the standard where it has one, medtl's own scheme where it has none.

A finding's name comes from the user's table, so its code is private: guessing a SNOMED CT concept
from a column's name could say something that nobody has said.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from highdicom.coding_schemes import CodingSchemeIdentificationItem
    from highdicom.sr import CodedConcept

SCHEME = "99MEDTL"
"""Coding Scheme Designator of medtl's own codes; private ones start with 99 (PS3.16 8)."""

MEANING_LENGTH = 64
"""Most characters of a Code Meaning (LO, PS3.5 6.2)."""


def own_scheme() -> list[CodingSchemeIdentificationItem]:
    """Return what an object that uses own codes says about them (PS3.3 C.12.1.1.7)."""
    from highdicom.coding_schemes import CodingSchemeIdentificationItem

    return [CodingSchemeIdentificationItem(SCHEME, name="medtl")]


def own_code(value: str, meaning: str) -> CodedConcept:
    """Return a concept of medtl's own scheme."""
    from highdicom.sr import CodedConcept

    return CodedConcept(value, SCHEME, meaning)


def label_code(label: str) -> CodedConcept:
    """Return the concept of a finding or structure that the user named: equal names, equal codes.

    Args:
        label: Any text; what does not fit into a Code Meaning is cut off.
    """
    name = label.strip() or "finding"
    digest = hashlib.sha256(name.encode()).hexdigest()[:12].upper()
    return own_code(f"L{digest}", name[:MEANING_LENGTH])


def structure_code(label: str) -> CodedConcept:
    """Return the concept of a segmented structure: of CID 7151 when that has the very word."""
    from highdicom.sr import CodedConcept
    from pydicom.sr.codedict import codes

    wanted = label.strip().casefold()
    for name in codes.cid7151.dir():
        code = getattr(codes.cid7151, name)
        if code.meaning.casefold() == wanted:
            return CodedConcept.from_code(code)
    return label_code(label)

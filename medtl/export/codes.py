"""Coded words: those of the standard where it has one, medtl's own scheme where it has none.

A finding's name comes from the user's table. Its code is the one that the recipe states
(`data.codes`), else that of `findings.yaml` when the name is there word for word, else a private
one: nothing is guessed from parts of a name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from medtl.errors import RunError
from medtl.storage.yaml import load_yaml

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


def finding_code(label: str, stated: Mapping[str, str]) -> CodedConcept:
    """Return the concept of a finding: as stated, of the dictionary, or medtl's own.

    Args:
        label: Of the finding, as in the table.
        stated: Label -> "SCHEME:VALUE" or "SCHEME:VALUE:MEANING", such as "SCT:36118008" or
            "RADLEX:RID5352:Pneumothorax".

    Raises:
        RunError: When a stated code has another form.
    """
    from highdicom.sr import CodedConcept

    if code := stated.get(label):
        scheme, _, rest = code.partition(":")
        value, _, meaning = rest.partition(":")
        if not (scheme.strip() and value.strip()):
            raise RunError(
                f"the code of {label!r} is {code[:40]!r}",
                expected='"SCHEME:VALUE", such as "SCT:36118008"',
                where="data.codes",
            )
        name = (meaning.strip() or label.replace("_", " "))[:MEANING_LENGTH]
        return CodedConcept(value.strip(), scheme.strip(), name)
    if known := _findings().get(label.replace("_", " ").strip().casefold()):
        return CodedConcept(known["value"], known["scheme"], known["meaning"])
    return label_code(label)


@cache
def _findings() -> dict[str, dict[str, str]]:
    """Name in small letters -> code."""
    return dict(load_yaml(Path(__file__).with_name("findings.yaml")))


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

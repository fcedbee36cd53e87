"""Texts of users as names of files, on every system and never outside of their folder."""

from __future__ import annotations

import hashlib
import re

_REFUSED = re.compile(r'[<>:"/\\|?*\x00-\x1f]|^[ .]|[ .]$')
"""Characters that Windows or POSIX gives a meaning, and ends that Windows drops."""

_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that open a device on Windows, whatever their ending."""

LONGEST = 100
"""Characters that a name keeps; file systems take 255 bytes."""


def file_name(text: str) -> str:
    """Return a text as the stem of a file's name: itself where that is safe, otherwise its hash.

    Example:
        >>> file_name("c-0042"), file_name("../../etc/passwd")
        ('c-0042', 'named-3754d6cb3a38')
    """
    if text and len(text) <= LONGEST and not _REFUSED.search(text) and not _DEVICES.fullmatch(text):
        return text
    return f"named-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

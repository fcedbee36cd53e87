"""The parts of a PNG file that ask for more than its picture: bombs in texts, profiles and pixels.

Pillow stops at such a part and says little; this module names the part. Only part headers are read,
and a compressed text is inflated no further than to the limit.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

from medtl.errors import ImageError

MOST_PART_BYTES = 1 << 20
"""Inflated size of a text or colour profile that is no bomb; Pillow has the same limit."""

_MOST_TEXT_BYTES = 64 << 20
"""The same for all texts of a file."""

_SIGNATURE_BYTES = 8
_SLACK_BYTES = 1 << 12
_TEXTS = (b"zTXt", b"iTXt", b"iCCP", b"tEXt")


def oversized_part(path: Path, raw: int | None = None) -> ImageError | None:
    """Return the error for a PNG whose parts hold more than they may, None when none does.

    Args:
        path: The file; anything but a PNG has no such parts.
        raw: Bytes of the pixels unpacked, if the compressed pixels are to be held against them.

    Reference:
        PNG (third edition) 5.3 chunk layout, 11.3.3 textual information.

    >>> from PIL import Image
    >>> Image.new("L", (8, 8)).save("film.png")
    >>> oversized_part(Path("film.png")) is None
    True
    """
    pixels = texts = 0
    for kind, length, start in _parts(path):
        pixels += length if kind == b"IDAT" else 0
        if kind not in _TEXTS:
            continue
        size = length if kind == b"tEXt" else _inflated(start)
        texts += size
        if (kind != b"tEXt" and size > MOST_PART_BYTES) or texts > _MOST_TEXT_BYTES:
            times = f" ({size // max(len(start), 1)} times)" if size > length else ""
            return ImageError(
                f"a decompression bomb: the {kind.decode()} chunk (text or colour profile) of "
                f"{length} bytes is too large, it inflates to {size} bytes or more{times}",
                expected=f"at most the limit of {MOST_PART_BYTES} bytes a chunk",
                fix="Save the picture again without its texts and profiles",
            )
    if raw is not None and pixels > raw + raw // 100 + _SLACK_BYTES:
        return ImageError(
            f"{pixels} bytes of compressed pixels (IDAT) for a picture of {raw} bytes at most: "
            "there is more behind the last row, as in a decompression bomb",
            expected="no more than the declared size of the picture",
            fix="Save the picture again, or leave it out",
        )
    return None


def _parts(path: Path) -> Iterator[tuple[bytes, int, bytes]]:
    """Yield kind, length and, of texts, the first bytes of every chunk."""
    with path.open("rb") as file:
        if file.read(_SIGNATURE_BYTES) != b"\x89PNG\r\n\x1a\n":
            return
        while len(head := file.read(8)) == 8:
            length, kind = int.from_bytes(head[:4]), head[4:]
            start = file.read(min(length, MOST_PART_BYTES)) if kind in _TEXTS else b""
            yield kind, length, start
            file.seek(length - len(start) + 4, 1)


def _inflated(data: bytes) -> int:
    """Return the inflated size of the deflate stream in a chunk, up to a little above the limit."""
    for at in (data.find(b"\0") + 2, data.find(b"\0") + 3):  # zTXt and iCCP; iTXt has a flag more
        tail = data[at:] if at == data.find(b"\0") + 2 else data[at:].split(b"\0", 2)[-1]
        try:
            return len(zlib.decompressobj().decompress(tail, MOST_PART_BYTES + 1))
        except zlib.error:
            continue
    return len(data)

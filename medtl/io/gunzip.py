"""A gzip stream, read to its end.

Python's own reader looks for the end of the file name in a gzip header byte by byte: a name of a
gigabyte would take minutes. zlib parses headers itself, at the speed of C.
"""

from __future__ import annotations

import io
import zlib
from typing import BinaryIO

_CHUNK_BYTES = 1 << 18
_GZIP_ONLY = 31
"""`wbits` of zlib for a gzip header, checksum included."""


class Gunzip(io.RawIOBase):
    """The bytes inside a gzip file, of all its members (RFC 1952).

    Reading raises `zlib.error` for a corrupt stream or a wrong checksum, and `EOFError` for a
    truncated one.

    Args:
        source: The compressed file, positioned at its start; it is not closed.
    """

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._inflater = zlib.decompressobj(_GZIP_ONLY)
        self._position = 0

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def tell(self) -> int:
        """Return how many bytes have been read."""
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill the start of a buffer; return how many bytes, 0 at the end."""
        while True:
            if self._inflater.eof:
                rest = self._inflater.unused_data.lstrip(b"\0") or self._source.read(_CHUNK_BYTES)
                if not rest.lstrip(b"\0"):
                    return 0
                self._inflater = zlib.decompressobj(_GZIP_ONLY)
            else:
                rest = self._inflater.unconsumed_tail or self._source.read(_CHUNK_BYTES)
                if not rest:
                    raise EOFError("the gzip stream has no end")
            data = self._inflater.decompress(rest, len(buffer))
            if data:
                buffer[: len(data)] = data
                self._position += len(data)
                return len(data)

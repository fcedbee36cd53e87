"""What a file is by its first bytes, in words: for messages about files that are something else.

Nothing is opened beyond those bytes; a pickle in particular is recognised and never loaded.
"""

from __future__ import annotations

import re

HEAD_BYTES = 1024
"""Enough of a file for `content_of`."""

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"%PDF", "a PDF document"),
    (b"{\\rtf", "an RTF document"),
    (b"PK\x03\x04", "a zip archive (or an Office file)"),
    (b"PK\x05\x06", "a zip archive without members"),
    (b"\x1f\x8b", "a gzip stream"),
    (b"BZh", "a bzip2 stream"),
    (b"\xfd7zXZ\0", "an xz stream"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-zip archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd stream"),
    (b"\x93NUMPY", "a NumPy array (.npy)"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"NRRD", "NRRD"),
    (b"ObjectType", "MetaImage (.mha)"),
    (b"\x53\x5c\x31\x32", "MINC"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office file"),
)
"""First bytes -> what the file is."""

_PICKLE = re.compile(rb"\x80[\x02-\x05](?:\x95.{8}|[\x8a\x8c\]}()cqhXKJM])", re.DOTALL)
"""A pickle of protocol 2 to 5 (PEP 307, PEP 3154): its number, then a frame or a usual opcode."""

_TEXT_PICKLE = re.compile(rb"\(?(?:c[A-Za-z_][\w.]*\n[A-Za-z_][\w.]*\n|[dlt]p0\n|i[\w.]+\n\w+\n)")
"""A pickle of protocol 0, which is text: a class by its name, or an empty list or mapping."""


def content_of(head: bytes) -> str:
    r"""Return what the first bytes of a file say that it is, "" when nothing is recognised.

    Args:
        head: The first `HEAD_BYTES`, or all of a shorter file.

    >>> content_of(b"\x89PNG\r\n\x1a\n"), content_of(b"<!DOCTYPE html><html>")
    ('PNG', 'an HTML page, perhaps of a failed download')
    >>> content_of(b"\x80\x04\x95" + bytes(8))
    'a Python pickle, which can run code and is never loaded'
    """
    if head[128:132] == b"DICM":
        return "DICOM"
    if head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0"):
        return "NIfTI"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[257:262] == b"ustar":
        return "a tar archive"
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if is_pickle(head):
        return "a Python pickle, which can run code and is never loaded"
    if head and not head.strip(b"\0"):
        return "zero bytes only"
    return _text_kind(head)


def is_pickle(head: bytes) -> bool:
    """Return whether bytes begin like a Python pickle; nothing is loaded.

    >>> import pickle
    >>> is_pickle(pickle.dumps({"weights": 1})), is_pickle(b"image,label")
    (True, False)
    """
    return _PICKLE.match(head) is not None or _TEXT_PICKLE.match(head) is not None


def _text_kind(head: bytes) -> str:
    """Return which sort of text the bytes are, "" for binary ones."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if re.match(rb"<(!doctype html|html|head|body)", start):
        return "an HTML page, perhaps of a failed download"
    if start.startswith((b"<?xml", b"<svg")):
        return "an XML file"
    if re.search(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]", head) or not start:
        return ""
    if start[:1] in b"{[":
        return "a JSON text"
    try:
        head[:-3].decode("utf-8")
    except UnicodeDecodeError:
        return ""
    return "a text file"

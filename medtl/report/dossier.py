"""The reporting checklists as files for a submission: CSV, and DOCX to be filled in.

The DOCX is written as PS/ECMA-376 asks, with a table and nothing else: python-docx would bring lxml
and puts the time into every file, so that two reports of one run would differ.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from medtl.report.language.texts import plain
from medtl.storage.atomic import write_bytes

COLUMNS = ("guideline", "no", "text", "words", "said")

_MAIN = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
_RELATION = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"


def write_dossier(folder: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Write `reporting_checklist.csv` and `reporting_checklist.docx`.

    Args:
        folder: An existing one.
        rows: Of `checklist.dossier`; a last column is left for the page in the manuscript.
    """
    head = [plain(f"dossier.{name}") for name in (*COLUMNS, "page")]
    table = [head, *([*(row[name] for name in COLUMNS), ""] for row in rows)]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(table)
    # A byte order mark, or Excel reads Korean as something else.
    write_bytes(folder / "reporting_checklist.csv", text.getvalue().encode("utf-8-sig"))
    write_bytes(folder / "reporting_checklist.docx", _docx(table))


def _docx(table: Sequence[Sequence[str]]) -> bytes:
    """A document that holds one table."""
    border = "".join(
        f'<w:{side} w:val="single" w:sz="4"/>'
        for side in ("top", "left", "bottom", "right", "insideH", "insideV")
    )
    rows = "".join(f"<w:tr>{''.join(map(_cell, row))}</w:tr>" for row in table)
    grid = "<w:gridCol/>" * len(table[0])
    body = (
        f"<w:tbl><w:tblPr><w:tblBorders>{border}</w:tblBorders></w:tblPr>"
        f"<w:tblGrid>{grid}</w:tblGrid>{rows}</w:tbl><w:p/>"
    )
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{_PACKAGE}/content-types"><Default Extension="rels" '
        'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/word/document.xml" ContentType="{_TYPE}"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{_PACKAGE}/relationships">'
        f'<Relationship Id="r1" Type="{_RELATION}" Target="word/document.xml"/></Relationships>',
        "word/document.xml": f'<w:document xmlns:w="{_MAIN}"><w:body>{body}</w:body></w:document>',
    }
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            declared = f'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>{content}'
            archive.writestr(zipfile.ZipInfo(name), declared)
    return stream.getvalue()


def _cell(text: str) -> str:
    """A cell of the table."""
    run = f'<w:r><w:t xml:space="preserve">{escape(text)}</w:t></w:r>'
    return f"<w:tc><w:p>{run}</w:p></w:tc>"

"""Tables as hospitals export them: what is plain is taken and said, what is not is refused."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from medtl.errors import ManifestError
from medtl.storage import spreadsheets
from medtl.storage.tables import read_columns, read_table

COLUMNS = ("image", "patient_id", "label")
ROWS = (("a.png", "007", "ja"), ("b.png", "8", "nein"))
TEXT = "image,patient_id,label\na.png,007,ja\nb.png,8,nein\n"


def made(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


KINDS = {
    # name of the file: content, what the notes say
    "plain.csv": (TEXT, ""),
    "UPPER.CSV": (TEXT, ""),
    "bom.csv": ("\ufeff" + TEXT, ""),
    "old_mac.csv": (TEXT.replace("\n", "\r"), ""),
    "semicolon.csv": (TEXT.replace(",", ";"), "separated by semicolons"),
    "stated.csv": ("sep=;\n" + TEXT.replace(",", ";"), "separated by semicolons"),
    "bars.csv": (TEXT.replace(",", "|"), "separated by vertical bars"),
    "stated_tab.csv": ("sep=\t\r\n" + TEXT.replace(",", "\t"), "separated by tabs"),
    "comment.csv": ("# exported\n# by hand\n" + TEXT, "2 lines of comment above the header"),
    "comment_with_comma.csv": ("# exported, by hand\n" + TEXT, "1 lines of comment"),
    "index.csv": (
        ",image,patient_id,label\n0,a.png,007,ja\n1,b.png,8,nein\n",
        "the first column has no name, numbers the rows",
    ),
    "trailing.csv": (TEXT.replace("\n", ",\n"), "the last column has no name, is empty"),
    "trailing_header.csv": (TEXT.replace("label\n", "label,\n"), "the last column has no name"),
}


@pytest.mark.parametrize("name", KINDS)
def test_what_is_plain_is_taken_and_said(name: str, tmp_path: Path) -> None:
    text, note = KINDS[name]
    path = made(tmp_path / name, text)
    table = read_table(path)
    assert (table.columns, table.rows, table.faults) == (COLUMNS, ROWS, ())
    assert any(note in said for said in table.notes) if note else not table.notes
    assert read_columns(path) == list(COLUMNS)


def test_rows_keep_their_line_numbers_below_a_comment(tmp_path: Path) -> None:
    path = made(tmp_path / "a.csv", "# one\n" + TEXT)
    assert read_table(path).lines == (3, 4)
    assert read_table(made(tmp_path / "b.csv", "sep=,\n" + TEXT)).lines == (3, 4)


def test_a_header_may_begin_with_a_hash(tmp_path: Path) -> None:
    path = made(tmp_path / "a.csv", "#,image\n1,a.png\n")
    assert read_table(path).columns == ("#", "image")


def test_a_nameless_column_with_content_is_a_fault(tmp_path: Path) -> None:
    path = made(tmp_path / "a.csv", ",image,label\nx,a.png,1\ny,b.png,0\n")
    with pytest.raises(ManifestError, match="column 1 has no name"):
        read_table(path)
    path = made(tmp_path / "b.csv", "image,label,\na.png,1,x\n")
    with pytest.raises(ManifestError, match="column 3 has no name"):
        read_table(path)


# -- encodings

WESTERN = "image,befund\na.png,Erguß\nb.png,unauffällig\nc.png,Größe 3 µm\n"


def test_western_and_korean_spreadsheets_are_recognised(tmp_path: Path) -> None:
    table = read_table(made(tmp_path / "a.csv", WESTERN, "cp1252"))
    assert [row[1] for row in table.rows] == ["Erguß", "unauffällig", "Größe 3 µm"]
    assert table.notes == ("a.csv: the encoding is taken to be Windows-1252, not UTF-8",)
    table = read_table(made(tmp_path / "b.csv", "image,판독\na.png,폐렴\nb.png,정상\n", "cp949"))
    assert table.columns == ("image", "판독")
    assert [row[1] for row in table.rows] == ["폐렴", "정상"]
    assert table.notes == ("b.csv: the encoding is taken to be Korean CP949, not UTF-8",)
    assert read_columns(tmp_path / "b.csv") == ["image", "판독"]
    table = read_table(made(tmp_path / "c.csv", "image,label\na.png,é\n", "utf-16"))
    assert table.notes == ("c.csv: the encoding is UTF-16",)


@pytest.mark.parametrize("encoding", ["shift_jis", "big5", "gb18030", "euc_jp"])
def test_other_encodings_are_refused(encoding: str, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="line 2: the encoding is not UTF-8"):
        read_table(made(tmp_path / "a.csv", "image,label\na.png,胸部正常異常所見一\n", encoding))


# -- decimal commas


def test_decimal_commas_of_a_column_of_numbers_become_points(tmp_path: Path) -> None:
    text = 'image;age;note;score\na.png;12;1,5 or so;0,873\nb.png;13;2,5;"-1,5e-3"\n'
    table = read_table(made(tmp_path / "a.csv", text))
    assert [row[3] for row in table.rows] == ["0.873", "-1.5e-3"]
    assert [row[2] for row in table.rows] == ["1,5 or so", "2,5"]  # not a column of numbers
    assert "a.csv: column 'score' has decimal commas" in table.notes


def test_a_quoted_comma_between_commas_stays(tmp_path: Path) -> None:
    table = read_table(made(tmp_path / "a.csv", 'image,score\na.png,"0,5"\n'))
    assert table.rows == (("a.png", "0,5"),)


# -- spreadsheets


def sheet(path: Path, rows: list[list[object]], *, more: list[list[object]] | None = None) -> Path:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    if more is not None:
        other = book.create_sheet("zweites")
        for row in more:
            other.append(row)
    book.save(path)
    return path


def merged(path: Path, rows: list[list[object]], cells: str) -> Path:
    """A sheet with one merged range."""
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.load_workbook(sheet(path, rows))
    book.active.merge_cells(cells)
    book.save(path)
    return path


@pytest.mark.parametrize("cells", ["B2:B3", "B3:C3", "A1:A2", "A2:B3"])
def test_merged_cells_among_others_are_a_fault(cells: str, tmp_path: Path) -> None:
    rows = [["image", "label", "view"], ["a.png", 1, "PA"], ["b.png", 1, "PA"]]
    with pytest.raises(ManifestError, match=rf"merged cells \({cells}\): one holds the value"):
        read_table(merged(tmp_path / "a.xlsx", rows, cells))


@pytest.mark.parametrize("cells", ["A1:B1", "A1:B2"])
def test_a_merged_title_is_a_title(cells: str, tmp_path: Path) -> None:
    rows = [["Films of 2024"], [], ["image", "label"], ["a.png", 1]]
    assert read_table(merged(tmp_path / "a.xlsx", rows, cells)).rows == (("a.png", "1"),)


def test_excel_cells_read_as_they_look(tmp_path: Path) -> None:
    rows = [
        ["image", "accession", "label", "score"],
        ["a.png", 4711, "ja", 0.5],
        ["b.png", "007", None, 1.0],
    ]
    path = sheet(tmp_path / "a.xlsx", rows)
    table = read_table(path)
    assert table.columns == ("image", "accession", "label", "score")
    assert table.rows == (("a.png", "4711", "ja", "0.5"), ("b.png", "007", "", "1"))
    assert read_columns(path) == list(table.columns)


def test_an_empty_second_sheet_is_none_and_a_filled_one_is_asked_about(tmp_path: Path) -> None:
    rows = [["image", "label"], ["a.png", 1]]
    assert read_table(sheet(tmp_path / "a.xlsx", rows, more=[])).rows == (("a.png", "1"),)
    with pytest.raises(ManifestError, match=r"2 sheets hold cells \('Sheet', 'zweites'\)"):
        read_table(sheet(tmp_path / "b.xlsx", rows, more=[["x"]]))
    with pytest.raises(ManifestError, match="0 sheets hold cells"):
        read_table(sheet(tmp_path / "c.xlsx", []))


def test_an_ods_sheet(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("odf")
    frame = pd.DataFrame({"image": ["a.png"], "id": [12]})
    frame.to_excel(str(tmp_path / "a.ods"), index=False)
    assert read_table(tmp_path / "a.ods").rows == (("a.png", "12"),)
    frame.to_excel(tmp_path / "b.ods", index=False)  # pandas writes Excel's format to a Path
    assert read_table(tmp_path / "b.ods").rows == (("a.png", "12"),)


def test_damaged_and_huge_spreadsheets_are_refused(tmp_path: Path, monkeypatch) -> None:
    path = sheet(tmp_path / "a.xlsx", [["image"], ["a.png"]])
    data = path.read_bytes()
    (tmp_path / "cut.xlsx").write_bytes(data[: len(data) // 2])
    with pytest.raises(ManifestError, match=r"cannot be read|damaged spreadsheet"):
        read_table(tmp_path / "cut.xlsx")
    monkeypatch.setattr(spreadsheets, "_MAX_UNPACKED", 1 << 20)
    bomb = tmp_path / "bomb.xlsx"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as parts:
        parts.writestr("xl/worksheets/sheet1.xml", bytes(9 << 20))
    with pytest.raises(ManifestError, match="unpacks to 9 MiB"):
        read_table(bomb)


TITLED = {
    "title.csv": "Befunde Radiologie\n\nid;befund\n1;ja\n2;nein\n",
    "title_with_a_comma.csv": "Radiologie, Klinik Nord\nid;befund\n1;ja\n2;nein\n",
    "title_in_a_row_of_cells.csv": "Export vom 3. Mai,\nid,befund\n1,ja\n2,nein\n",
    "two_lines.csv": "Befunde\nStand: Mai 2023\nid\tbefund\n1\tja\n2\tnein\n",
}


@pytest.mark.parametrize("name", TITLED)
def test_a_title_above_the_header_is_left_out_and_said(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(TITLED[name])
    table = read_table(tmp_path / name)
    assert table.columns == ("id", "befund")
    assert table.rows == (("1", "ja"), ("2", "nein"))
    assert (
        table.lines[0]
        == TITLED[name]
        .split("\n")
        .index(next(line for line in TITLED[name].split("\n") if line.startswith("1")))
        + 1
    )
    assert any("above the header, of one cell each" in note for note in table.notes)
    assert read_columns(tmp_path / name) == ["id", "befund"]


@pytest.mark.parametrize(
    "text",
    [
        "image\na.png,1\nb.png,0\n",  # no title: a header that lacks a column
        "id,befund\n1,ja,x\n2,nein,y\n",  # rows that are too long
        "id,befund\n1,ja\n",
    ],
)
def test_a_header_is_not_taken_for_a_title(text: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    table = read_table(tmp_path / "t.csv")
    assert table.columns == tuple(text.split("\n", maxsplit=1)[0].split(","))
    assert not any("above the header" in note for note in table.notes)


def test_a_title_in_a_spreadsheet(tmp_path: Path) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for row in (["Befunde 2023"], [], ["id", "befund"], [1, "ja"], [2, None]):
        sheet.append(row)
    book.save(tmp_path / "t.xlsx")
    table = read_table(tmp_path / "t.xlsx")
    assert table.columns == ("id", "befund")
    assert table.rows == (("1", "ja"), ("2", ""))
    assert table.lines == (4, 5)
    assert read_columns(tmp_path / "t.xlsx") == ["id", "befund"]

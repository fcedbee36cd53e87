"""The predictions table: equal bytes for equal predictions, and clear refusals."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medtl.cases.predictions import mask_labels, read_predictions, write_predictions
from medtl.errors import PredictionsError

GOOD = """case_id,patient_id,split,label,y_true,y_score,y_true_raw,sex
b,p2,test,x,0,0.25,0,F
a,p1,test,x,1,0.75,1,
c,p3,val,x,,0.1,-1,M
"""


def write(folder: Path, text: str, name: str = "predictions.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def refused(folder: Path, text: str, match: str, **options: bool) -> None:
    with pytest.raises(PredictionsError, match=match) as caught:
        read_predictions(write(folder, text), **options)
    assert str(folder) not in str(caught.value)


def table(n: int = 50) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({
        "case_id": [f"c{i}" for i in range(n)], "patient_id": [f"p{i // 2}" for i in range(n)],
        "split": "test", "label": "x", "y_true": rng.integers(0, 2, n).astype(float),
        "y_score": rng.random(n), "age": rng.integers(1, 90, n),
    })  # fmt: skip


def test_rows_columns_and_missing_values(tmp_path: Path) -> None:
    found = read_predictions(write(tmp_path, GOOD))
    assert found["case_id"].tolist() == ["c", "a", "b"]  # val before test, then by case
    assert found["y_score"].tolist() == [0.1, 0.75, 0.25]
    assert np.isnan(found["y_true"][0])
    assert found["y_true_raw"].tolist() == ["-1", "1", "0"]
    assert found["sex"].tolist() == ["M", "", "F"]
    assert found["y_true"].dtype == found["y_score"].dtype == np.float64


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_every_number_comes_back_the_same(tmp_path: Path, suffix: str) -> None:
    data = table()
    data.loc[0, "y_true"] = np.nan
    data.loc[1, "y_score"] = 0.1 + 0.2
    data.loc[2, "y_score"] = 5e-324
    path = tmp_path / f"p.{suffix}"
    write_predictions(data, path)
    found = read_predictions(path).set_index("case_id")
    expected = data.set_index("case_id").loc[found.index]
    assert (found["y_score"] == expected["y_score"]).all()
    assert found["y_true"].equals(expected["y_true"])


def test_equal_predictions_are_equal_bytes(tmp_path: Path) -> None:
    data = table()
    write_predictions(data, tmp_path / "a.csv")
    write_predictions(data.sample(frac=1, random_state=3), tmp_path / "b.csv")
    write_predictions(read_predictions(tmp_path / "a.csv"), tmp_path / "c.csv")
    first = (tmp_path / "a.csv").read_bytes()
    assert first == (tmp_path / "b.csv").read_bytes() == (tmp_path / "c.csv").read_bytes()
    assert first.startswith(b"case_id,patient_id,split,label,y_true,y_score,age\n")
    assert b"\r" not in first


def test_a_cell_with_a_comma_and_a_quote_survives(tmp_path: Path) -> None:
    data = table(4).assign(site='St. "Mary", 서울')
    write_predictions(data, tmp_path / "a.csv")
    assert set(read_predictions(tmp_path / "a.csv")["site"]) == {'St. "Mary", 서울'}


def test_a_foreign_file_is_all_test(tmp_path: Path) -> None:
    text = "case_id,y_true,y_score\n1,0,0.2\n2,1,0.9\n"
    found = read_predictions(write(tmp_path, text), one_image_per_patient=True)
    assert found["split"].tolist() == ["test", "test"]
    assert found["patient_id"].tolist() == ["1", "2"]


def test_without_patients_the_user_must_say_so(tmp_path: Path) -> None:
    text = "case_id,PatientID,y_true,y_score\n1,a,0,0.2\n"
    refused(tmp_path, text, r"no column patient_id.*Rename PatientID.*--one-image-per-patient")


def test_a_byte_order_mark_is_no_part_of_the_name(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text(GOOD, encoding="utf-8-sig")
    assert len(read_predictions(path)) == 3


@pytest.mark.parametrize("cell", ["", "nan", "NA", "NaN", "inf", "-inf"])
def test_a_score_that_is_no_number_is_missing(tmp_path: Path, cell: str) -> None:
    found = read_predictions(write(tmp_path, GOOD.replace("0.75", cell)))
    assert np.isnan(found.set_index("case_id").loc["a", "y_score"])


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("y_score", "score", r"no column y_score.*Rename score"),
        ("case_id", "id", r"no column case_id"),
        ("0.75", "high", r"y_score is not a number in row 3 \(first: 'high'\)"),
        ("val", "trian", r"split is 'trian' in row 4; expected one of train, val, test"),
        ("b,p2", "a,p2", r"1 rows repeat another: row 3"),
        ("b,p2", ",p2", r"case_id is empty in row 2"),
        ("b,p2", "b,", r"patient_id is empty in row 2"),
        ("c,p3", "c,p1", r"1 patients are in two splits"),
    ],
)
def test_faults_are_named_with_their_row(tmp_path: Path, old: str, new: str, match: str) -> None:
    refused(tmp_path, GOOD.replace(old, new, 1), match)


def test_words_as_truth_are_answered_with_what_to_write(tmp_path: Path) -> None:
    table = GOOD.replace(",1,", ",pos,").replace(",0,", ",neg,")
    refused(tmp_path, table, r"y_true is not a number.*Write 1 for the finding and 0 for none")


def test_an_empty_column_of_splits_is_none(tmp_path: Path) -> None:
    """So older tables of `medtl predict` have it: every case is a test case."""
    rows = "".join(f"c{i},p{i},,{i % 2},0.{i}\n" for i in range(1, 5))
    table = read_predictions(write(tmp_path, "case_id,patient_id,split,y_true,y_score\n" + rows))
    assert set(table["split"]) == {"test"}


def test_long_lists_of_rows_are_cut(tmp_path: Path) -> None:
    rows = "".join(f"c{i},p{i},0,x\n" for i in range(20))
    refused(
        tmp_path, "case_id,patient_id,y_true,y_score\n" + rows, r"rows 2, 3, 4, 5, 6 and 15 more"
    )


def test_an_empty_table_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, GOOD.splitlines()[0] + "\n", "the table has no rows")
    refused(tmp_path, "", "the table cannot be read")
    refused(tmp_path, GOOD + '"unfinished', "cannot be read")


def test_a_patient_may_be_val_in_one_fold_and_test_in_another(tmp_path: Path) -> None:
    text = (
        "case_id,patient_id,split,fold,y_true,y_score\n"
        "a,p,val,0,1,0.4\na,p,test,1,1,0.5\n"
    )  # fmt: skip
    assert len(read_predictions(write(tmp_path, text))) == 2


def test_a_segmentation_table_holds_paths(tmp_path: Path) -> None:
    text = "case_id,patient_id,truth,prediction\na,p,masks/a.nii.gz,out/a.nii.gz\n"
    found = read_predictions(write(tmp_path, text))
    assert found["prediction"].tolist() == ["out/a.nii.gz"]
    write_predictions(found, tmp_path / "again.csv")
    assert read_predictions(tmp_path / "again.csv").equals(found)


def test_files_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PredictionsError, match=r"p\.txt: the format \.txt is unknown"):
        read_predictions(tmp_path / "p.txt")
    with pytest.raises(PredictionsError, match=r"p\.csv: the file does not exist"):
        read_predictions(tmp_path / "p.csv")
    with pytest.raises(PredictionsError, match="unknown"):
        write_predictions(table(), tmp_path / "p.xlsx")
    (tmp_path / "p.parquet").write_bytes(b"not parquet")
    with pytest.raises(PredictionsError, match="cannot be read"):
        read_predictions(tmp_path / "p.parquet")


def test_nothing_is_written_when_rows_repeat(tmp_path: Path) -> None:
    data = pd.concat([table(), table()])
    with pytest.raises(PredictionsError, match="repeat another"):
        write_predictions(data, tmp_path / "p.csv")
    with pytest.raises(PredictionsError, match="no column y_score"):
        write_predictions(table().drop(columns="y_score"), tmp_path / "p.csv")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        (None, {}),
        ("study: {question: x}\n", {}),
        ("labels: {0: background, 1: liver, '2': spleen}\n", {1: "liver", 2: "spleen"}),
    ],
)
def test_the_values_of_masks_have_names(
    tmp_path: Path, text: str | None, labels: dict[int, str]
) -> None:
    if text is not None:
        (tmp_path / "t.yaml").write_text(text)
    assert mask_labels(str(tmp_path / "t.csv")) == labels


@pytest.mark.parametrize("text", ["[liver]", "{0: background}", "{a: liver}", "{}"])
def test_labels_that_name_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.yaml").write_text(f"labels: {text}\n")
    with pytest.raises(PredictionsError, match=r"t\.yaml: labels do not name the values"):
        mask_labels(tmp_path / "t.csv")


def plain_rows(patient=lambda i: f"p{i}") -> str:
    rows = [f"c{i},{patient(i)},{i % 2},{0.1 + 0.8 * (i % 7) / 7!r}" for i in range(60)]
    return "\n".join(["case_id,patient_id,y_true,y_score", *rows]) + "\n"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("p.CSV", plain_rows().encode()),
        ("semicolon.csv", plain_rows().replace(",", ";").encode()),
        ("german.csv", plain_rows().replace(",", ";").replace(".", ",").encode()),
        ("tab.tsv", plain_rows().replace(",", "\t").encode()),
        ("utf16.csv", plain_rows().encode("utf-16")),
        ("latin.csv", plain_rows().replace("p7,", "pü7,").encode("latin-1")),
        ("comment.csv", b"# exported\n" + plain_rows().encode()),
        ("pandas.csv", "".join(
            f"{'' if n == 0 else n - 1},{line}\n" for n, line in enumerate(plain_rows().split())
        ).encode()),
    ],
)  # fmt: skip
def test_a_predictions_table_is_read_as_a_manifest_is(tmp_path: Path, name, data) -> None:
    (tmp_path / "plain.csv").write_text(
        plain_rows().replace("p7,", "pü7,") if "latin" in name else plain_rows()
    )
    (tmp_path / name).write_bytes(data)
    assert read_predictions(tmp_path / name).equals(read_predictions(tmp_path / "plain.csv"))


def test_an_excel_table_of_predictions(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for line in plain_rows().split():
        cells = line.split(",")
        book.active.append([*cells[:2], *(float(c) if c[0].isdigit() else c for c in cells[2:])])
    book.save(tmp_path / "p.xlsx")
    (tmp_path / "plain.csv").write_text(plain_rows())
    plain = read_predictions(tmp_path / "plain.csv")
    pd.testing.assert_frame_equal(read_predictions(tmp_path / "p.xlsx"), plain, rtol=1e-12)


def test_one_patient_in_two_spellings(tmp_path: Path, caplog) -> None:
    text = plain_rows(lambda i: f"{i // 2}.0" if i % 2 else f"{i // 2}")
    (tmp_path / "p.csv").write_text(text)
    read_predictions(tmp_path / "p.csv")
    assert "30 patients have ids in two spellings" in caplog.text
    lines = text.split()
    split = [f"{line},{('val', 'test')[n % 2]}" for n, line in enumerate(lines[1:])]
    (tmp_path / "p.csv").write_text("\n".join([f"{lines[0]},split", *split]))
    with pytest.raises(PredictionsError, match="30 of them in two splits"):
        read_predictions(tmp_path / "p.csv")


HEADER, *ROWS = plain_rows().split()


def lines(*rows: str, header: str = HEADER) -> str:
    return "\n".join([header, *rows]) + "\n"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (lines(*(f"{row}," for row in ROWS)), "row 2: 5 fields; expected 4, one per column"),
        (lines(*(f"{n},{row}" for n, row in enumerate(ROWS))), "row 2: 5 fields; expected 4"),
        (lines(*ROWS[:5], "c5,p5,1", *ROWS[6:]), "row 7: 3 fields; expected 4"),
        (lines(*ROWS)[: -len(ROWS[-1].split(",")[-1]) - 2], "row 61: 3 fields; expected 4"),
        (lines(*ROWS[:5], f"{ROWS[5]},9", *ROWS[6:]), "row 7: 5 fields; expected 4"),
        (lines(*(f"{row},0.5" for row in ROWS), header=f"{HEADER},y_score"), "duplicate column"),
        (lines(*(f"{row},0.5" for row in ROWS), header=f"{HEADER}, y_true"), "duplicate column"),
    ],
)
def test_rows_that_do_not_fit_the_header_are_faults(tmp_path: Path, text: str, match: str) -> None:
    """Read by pandas alone, the cells move by a column, or a score becomes a missing one."""
    refused(tmp_path, text, match)


def test_the_last_line_may_lack_its_end_and_lines_may_be_empty(tmp_path: Path) -> None:
    found = read_predictions(write(tmp_path, lines(*ROWS)))
    assert read_predictions(write(tmp_path, lines(*ROWS).rstrip())).equals(found)
    assert read_predictions(write(tmp_path, lines(*ROWS[:9], "", *ROWS[9:], ""))).equals(found)
    assert read_predictions(write(tmp_path, lines(*ROWS[:9], ",,,", *ROWS[9:], ",,,"))).equals(
        found
    )


def test_quoted_cells_may_hold_commas_and_line_ends_but_rows_must_fit(tmp_path: Path) -> None:
    header, rows = f"{HEADER},site", [f'{row},"a, ""b"" ,{n}\nc"' for n, row in enumerate(ROWS)]
    found = read_predictions(write(tmp_path, lines(*rows, header=header))).set_index("case_id")
    assert found["site"]["c7"] == 'a, "b" ,7\nc'
    refused(tmp_path, lines(*rows[:5], '"c5,a",p5,1,0.5', header=header), "row 12: 4 fields")


@pytest.mark.parametrize("blank", [" ", "\t", "\u00a0"])
def test_blanks_around_ids_make_no_second_case(tmp_path: Path, blank: str) -> None:
    text = lines(*ROWS, ROWS[0].replace("c0,", f"c0{blank},"))
    refused(tmp_path, text, "1 rows repeat another: row 62")
    found = read_predictions(
        write(tmp_path, lines(*(row.replace("p", f"{blank}p") for row in ROWS)))
    )
    assert found.equals(read_predictions(write(tmp_path, lines(*ROWS))))


def test_splits_have_the_names_that_a_manifest_may_use(tmp_path: Path, caplog) -> None:
    found = read_predictions(write(tmp_path, GOOD))
    text = GOOD.replace("test", "Testing").replace("val", "validate")
    assert read_predictions(write(tmp_path, text)).equals(found)
    assert "the split 'validate' is read as val" in caplog.text
    caplog.clear()
    read_predictions(write(tmp_path, GOOD))
    assert "is read as" not in caplog.text


@pytest.mark.parametrize("column", ["label", "model"])
def test_one_label_or_model_in_two_spellings_or_without_a_name(tmp_path: Path, column: str) -> None:
    def named(*names: str) -> str:
        return lines(*(f"{r},{names[n % len(names)]}" for n, r in enumerate(ROWS)),
                     header=f"{HEADER},{column}")  # fmt: skip

    refused(tmp_path, named("Mass", "mass"), f"one {column} in several spellings: 'Mass', 'mass'")
    refused(tmp_path, named("1", "1.0"), f"one {column} in several spellings: '1', '1.0'")
    refused(tmp_path, named("Mass", ""), f"{column} is empty in rows 3, 5, 7, 9, 11 and 25 more")
    assert len(read_predictions(write(tmp_path, named("Mass", "Masses")))) == len(ROWS)
    assert len(read_predictions(write(tmp_path, named("")))) == len(ROWS)


def test_rows_of_a_reader_need_no_model(tmp_path: Path) -> None:
    machine = [f"{row},m," for row in ROWS]
    reader = [f"{row.rsplit(',', 1)[0]},1,,Dr A" for row in ROWS]
    text = lines(*machine, *reader, header=f"{HEADER},model,reader")
    assert len(read_predictions(write(tmp_path, text))) == 2 * len(ROWS)
    refused(tmp_path, text.replace("Dr A", "", 1), "model is empty in row 62, and not in others")


@pytest.mark.parametrize("word", ["nan", "NULL", "#N/A"])
def test_a_word_for_missing_is_nobody_twice(tmp_path: Path, word: str) -> None:
    refused(tmp_path, plain_rows(lambda i: word if i in (3, 5) else f"p{i}"),
            rf"patient_id is '{word}', a word for 'missing', in rows 5, 7")  # fmt: skip
    text = plain_rows(lambda i: word if i == 3 else f"p{i}")
    assert len(read_predictions(write(tmp_path, text))) == 60


@pytest.mark.parametrize("column", ["label", "model"])
def test_a_case_has_one_patient_whatever_the_row_is_about(tmp_path: Path, column: str) -> None:
    """Two ids of one person under two labels make 60 patients 120, and intervals too narrow."""
    header = f"{HEADER},{column}"
    good = [f"{row},{name}" for name in "AB" for row in ROWS]
    assert (
        read_predictions(write(tmp_path, lines(*good, header=header)))["patient_id"].nunique() == 60
    )
    bad = [row.replace(",p7,", ",q7,") if row.endswith("B") else row for row in good]
    refused(tmp_path, lines(*bad, header=header), "1 cases have two patients: rows 9, 69")


def test_ages_above_89_leave_as_one_band(tmp_path: Path) -> None:
    ages = ["66", "095Y", "95", "90+", "89.5", "", "058Y"]
    text = lines(*(f"{r},{ages[n % 7]}" for n, r in enumerate(ROWS)), header=f"{HEADER},Age")
    found = read_predictions(write(tmp_path, text))
    assert set(found["Age"]) == {"66", "90+", "89.5", "", "58"}
    write_predictions(found, tmp_path / "again.csv")
    assert read_predictions(tmp_path / "again.csv").equals(found)


@pytest.mark.parametrize(("again", "is_said"), [("C0", True), ("c0.0", False), ("c00", False)])
def test_one_case_in_two_spellings_is_said(
    tmp_path: Path, caplog, again: str, is_said: bool
) -> None:
    found = read_predictions(write(tmp_path, lines(*ROWS, ROWS[0].replace("c0,", f"{again},"))))
    assert len(found) == len(ROWS) + 1
    assert ("1 cases of one patient differ by case or a .0 alone" in caplog.text) == is_said


def test_a_number_of_a_case_with_a_point_and_a_zero_is_said(tmp_path: Path, caplog) -> None:
    rows = [row.replace("c", "", 1) for row in ROWS]
    read_predictions(write(tmp_path, lines(*rows, rows[7].replace("7,", "7.0,", 1))))
    assert "1 cases of one patient differ by case or a .0 alone" in caplog.text

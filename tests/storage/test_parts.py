from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from medtl.errors import RunError
from medtl.storage.parts import WHOLE, Part, Parts, Share

JOB = {"kind": "predict"}


def parts_of(folder: Path, *numbers: int, of: int = 3) -> Parts:
    parts = Parts(folder / "table.csv")
    for n in numbers:
        rows = {"id": [f"00{n}"], "score": pd.array([n / 3 if n > 1 else None], "Float64")}
        parts.write(Share(n, of), "key", JOB, Part(pd.DataFrame(rows), {"unread": n}))
    return parts


@pytest.mark.parametrize("length", [0, 1, 5, 8, 13])
def test_shares_are_neighbours_and_together_the_list(length):
    taken = [Share(n, 4).take(range(length)) for n in range(1, 5)]
    assert [item for one in taken for item in one] == list(range(length))
    assert max(map(len, taken)) - min(map(len, taken)) <= 1
    assert list(WHOLE.take(range(length))) == list(range(length))


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "1/0", "a/b", "-1/4", "1/4/2"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(RunError, match="expected 1/4, 2/4, 3/4 or 4/4"):
        Share.parse(text)


def test_parts_come_back_in_order_with_every_bit(tmp_path):
    parts = parts_of(tmp_path, 3, 1, 2)
    read = parts.read()
    assert [part.facts["unread"] for part in read] == [1, 2, 3]
    table = pd.concat([part.table for part in read], ignore_index=True)
    assert table["id"].tolist() == ["001", "002", "003"]
    assert table["score"].isna().tolist() == [True, False, False]
    assert table["score"].tolist()[1:] == [2 / 3, 1.0]
    assert parts.job() == JOB


def test_a_part_is_found_again_when_it_is_whole_and_of_the_same_work(tmp_path):
    parts = parts_of(tmp_path, 1)
    assert parts.has(Share(1, 3), "key")
    assert not parts.has(Share(1, 3), "another")
    assert not parts.has(Share(2, 3), "key")
    table = parts.folder / "1-of-3.parquet"
    table.write_bytes(table.read_bytes()[:-1] + b"x")
    assert not parts.has(Share(1, 3), "key")


def test_missing_and_damaged_parts_are_named(tmp_path):
    parts = parts_of(tmp_path, 1, 2)
    (parts.folder / "2-of-3.parquet").write_bytes(b"cut")
    with pytest.raises(RunError, match=r"2 of 3 parts are missing or damaged \(2/3, 3/3\).*2/3"):
        parts.read()


def test_parts_of_two_pieces_of_work_are_not_mixed(tmp_path):
    parts_of(tmp_path, 1, 2, 3)
    parts = parts_of(tmp_path, 1, of=4)
    with pytest.raises(RunError, match="not of one piece of work"):
        parts.read()


def test_a_place_without_parts_is_said(tmp_path):
    with pytest.raises(RunError, match=r"table.csv.parts: there are no parts"):
        Parts(tmp_path / "table.csv").read()


def test_a_part_that_was_not_written_to_its_end_is_not_there(tmp_path):
    """The table comes first: what is killed between the two leaves no part."""
    parts = parts_of(tmp_path, 1, 2, 3)
    (parts.folder / "3-of-3.json").unlink()
    assert not parts.has(Share(3, 3), "key")
    with pytest.raises(RunError, match=r"1 of 3 parts .*\(3/3\)"):
        parts.read()

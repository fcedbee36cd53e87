"""A table of vectors and a sheet become a manifest; what has no partner is counted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from medtl.cases.intake.embeddings import join_features, read_vectors, write_features
from medtl.cases.manifest import read_manifest
from medtl.errors import ManifestError

IDS = ["a", "b", "c", "d"]
VECTORS = np.arange(8, dtype=np.float32).reshape(4, 2) / 4


def table_of(path, kind):
    columns = {"film": IDS, "f0": VECTORS[:, 0], "f1": VECTORS[:, 1]}
    if kind == "parquet of lists":
        pd.DataFrame({"film": IDS, "embedding": list(VECTORS)}).to_parquet(path / "v.parquet")
        return path / "v.parquet"
    if kind == "parquet":
        pd.DataFrame(columns).to_parquet(path / "v.parquet")
        return path / "v.parquet"
    if kind == "npz":
        np.savez(path / "v.npz", film=np.array(IDS), vectors=VECTORS)
        return path / "v.npz"
    sep = "\t" if kind == "tsv" else ","
    pd.DataFrame(columns).to_csv(path / f"v.{kind}", index=False, sep=sep)
    return path / f"v.{kind}"


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "parquet of lists", "npz"])
def test_every_form_gives_the_same_vectors(tmp_path, kind):
    ids, vectors = read_vectors(table_of(tmp_path, kind), "film")
    assert ids == IDS
    assert np.array_equal(vectors, VECTORS)
    assert vectors.dtype == np.float32


def test_a_sheet_and_its_vectors_become_a_manifest(tmp_path):
    """In the sheet's order; row d is in the sheet alone, vector a in the table alone."""
    sheet = tmp_path / "labels.csv"
    sheet.write_text("film,patient_id,image,effusion\nc,p3,c.png,1\nb,p2,b.png,0\nx,p9,x.png,1\n")
    found = join_features(table_of(tmp_path, "csv"), sheet, "film")
    out = tmp_path / "study.csv"
    write_features(found, out)
    assert np.load(tmp_path / "study.npy").tolist() == [[1.0, 1.25], [0.5, 0.75]]
    assert out.read_text().splitlines()[1:] == ["study.npy,0,c,p3,1", "study.npy,1,b,p2,0"]
    assert [case.frame for case in read_manifest(out).cases] == [0, 1]
    said = "; ".join(found.notes)
    assert "2 of 4 vectors belong to 2 of 3 rows" in said
    assert "1 rows have no vector" in said
    with pytest.raises(ManifestError, match="the file exists"):
        write_features(found, out)


def test_an_id_among_the_features_is_refused_until_they_are_named(tmp_path):
    """A label or an id that is learned from would be the answer itself."""
    columns = {"film": IDS, "patient": [1, 2, 3, 4], "f0": VECTORS[:, 0], "f1": VECTORS[:, 1]}
    pd.DataFrame(columns).to_csv(tmp_path / "v.csv", index=False)
    with pytest.raises(ManifestError, match=r"hold no fractions \(patient\).*--columns"):
        read_vectors(tmp_path / "v.csv", "film")
    assert np.array_equal(read_vectors(tmp_path / "v.csv", "film", "f*")[1], VECTORS)


@pytest.mark.parametrize(
    ("make", "key", "found"),
    [
        (lambda p: p / "none.csv", "film", "no such file"),
        (lambda p: table_of(p, "csv"), "image", "no column 'image'"),
        (lambda p: table_of(p, "npz"), "image", "the ids as 'image' and one array"),
        (lambda p: table_of(p, "csv").rename(p / "v.xlsx"), "film", r"a table '\.xlsx'"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path, make, key, found):
    with pytest.raises(ManifestError, match=found):
        read_vectors(make(tmp_path), key)


def test_an_archive_that_is_none_is_refused(tmp_path):
    (tmp_path / "v.npz").write_bytes(b"PK")
    with pytest.raises(ManifestError, match="no archive of plain arrays"):
        read_vectors(tmp_path / "v.npz", "film")


def test_vectors_of_several_lengths_are_refused(tmp_path):
    lists = {"film": ["a", "b"], "embedding": [[1.0], [1.0, 2.0]]}
    pd.DataFrame(lists).to_parquet(tmp_path / "v.parquet")
    with pytest.raises(ManifestError, match="no vectors of one length"):
        read_vectors(tmp_path / "v.parquet", "film")


def test_ids_and_vectors_must_be_as_many(tmp_path):
    np.savez(tmp_path / "v.npz", film=np.array(IDS[:2]), vectors=VECTORS)
    with pytest.raises(ManifestError, match=r"2 ids and numbers of shape \(4, 2\)"):
        read_vectors(tmp_path / "v.npz", "film")


def test_a_sheet_of_other_films_is_refused(tmp_path):
    sheet = tmp_path / "labels.csv"
    sheet.write_text("film,patient_id\na,p1\nx,p2\ny,p3\n")
    with pytest.raises(ManifestError, match="1 of 3 rows find a vector among 4"):
        join_features(table_of(tmp_path, "csv"), sheet, "film")
    sheet.write_text("name,patient_id\na,p1\n")
    with pytest.raises(ManifestError, match="no column 'film'"):
        join_features(table_of(tmp_path, "csv"), sheet, "film")

"""Vectors made elsewhere: one row of a table, or an error that says what it is instead."""

from __future__ import annotations

import numpy as np
import pytest

from medtl.errors import ImageError
from medtl.io.vectors import read_features


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "all.npy"
    np.save(path, np.arange(12, dtype=np.float64).reshape(4, 3) / 8)
    return path


def test_a_row_is_an_image_of_one_dimension(table):
    image = read_features(table, 2)
    assert image.array.dtype == np.float32
    assert image.array.tolist() == [[0.75, 0.875, 1.0]]


@pytest.mark.parametrize("row", [None, 4, -1])
def test_a_row_that_is_not_there_is_said(table, row):
    with pytest.raises(ImageError, match=r"no row .* of 4 vectors.*0 to 3"):
        read_features(table, row)


def test_a_number_that_is_none_is_said(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[1.0, np.nan, np.inf]]))
    with pytest.raises(ImageError, match="2 of 3 features are not finite"):
        read_features(tmp_path / "a.npy", 0)


@pytest.mark.parametrize("array", [np.zeros(3), np.zeros((2, 3), dtype=int)])
def test_another_array_is_no_table_of_floats(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ImageError, match="no table of floats"):
        read_features(tmp_path / "a.npy", 0)


@pytest.mark.parametrize("content", [b"\x89PNG\r\n", b""])
def test_another_file_is_no_table_of_features(tmp_path, content):
    (tmp_path / "film.png").write_bytes(content)
    with pytest.raises(ImageError, match=r"no table of features.*model\.backbone"):
        read_features(tmp_path / "film.png", 0)


def test_objects_are_never_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ImageError, match="no table of features"):
        read_features(tmp_path / "a.npy", 0)

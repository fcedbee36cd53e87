"""Archives that cannot be listed: refused as damaged, by every reader that lists them."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from medtl.errors import ManifestError, WeightsError
from medtl.networks.pretrained.keras_file import is_keras_archive
from medtl.networks.pretrained.weight_files import read_tensors
from medtl.storage.tables import read_table


def damaged(path: Path) -> Path:
    """An archive that says that its names are UTF-8, with one that is not."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("é/data.pkl", b"x" * 64)
    data = path.read_bytes()
    assert len(re.findall("é".encode(), data)) == 2
    path.write_bytes(data.replace("é".encode(), b"\xaf\xaf"))
    with pytest.raises(UnicodeDecodeError):
        zipfile.ZipFile(path)
    return path


def of_another_version(path: Path) -> Path:
    """An archive that says that it needs version 9 of the format."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"x" * 64)
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 6] = 90
    path.write_bytes(data)
    with pytest.raises(NotImplementedError):
        zipfile.ZipFile(path)
    return path


@pytest.mark.parametrize("make", [damaged, of_another_version])
def test_weights_are_refused_as_damaged(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    assert not is_keras_archive(make(tmp_path / "a.pt"))
    with pytest.raises(WeightsError):
        read_tensors(tmp_path / "a.pt")


@pytest.mark.parametrize("make", [damaged, of_another_version])
def test_a_sheet_is_refused_as_damaged(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    with pytest.raises(ManifestError, match="damaged"):
        read_table(make(tmp_path / "a.xlsx"))

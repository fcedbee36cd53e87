"""The synthetic study: reproducible, labelled as drawn, free of shortcuts, readable."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medtl.cases.columns import Columns
from medtl.cases.manifest import read_manifest
from medtl.demo import chest
from medtl.demo.anatomy import Effusion
from medtl.demo.chest import (
    FINDINGS,
    SIDECAR,
    draw_patient,
    draw_radiograph,
    labels,
    write_chest_study,
)
from medtl.errors import RunError
from medtl.io.read import read_image
from medtl.storage.yaml import dump_yaml, load_yaml

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENTS = 12


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chest_study(tmp_path_factory.mktemp("study"), patients=PATIENTS, seed=3)


@pytest.fixture(scope="module")
def rows(manifest: Path) -> list[dict[str, str]]:
    with manifest.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def test_manifest_is_accepted_and_finds_every_image(manifest: Path) -> None:
    found = read_manifest(
        manifest,
        Columns(FINDINGS, strata=("view", "sex", "age", "scanner", "site"), ids="pseudonymous"),
    )
    assert found.source == "synthetic phantoms drawn by medtl demo"
    assert found.licence == "CC0-1.0"
    assert len({case.patient_id for case in found.cases}) == PATIENTS
    assert all(case.image.is_file() for case in found.cases)
    assert all(case.split == "" for case in found.cases)
    assert len(list((manifest.parent / "images").iterdir())) == len(found.cases)


def test_columns_and_cells(rows: list[dict[str, str]]) -> None:
    assert list(rows[0]) == [
        *("image", "patient_id", "view", "age", "sex", "scanner", "site"),
        *FINDINGS,
    ]
    for row in rows:
        assert row["view"] in {"PA", "AP"}
        assert row["sex"] in {"F", "M"}
        assert 18 <= int(row["age"]) <= 90
        assert {row[finding] for finding in FINDINGS} <= {"0", "1", "-1", ""}


def test_every_file_reads_back_to_the_drawn_film(
    manifest: Path, rows: list[dict[str, str]]
) -> None:
    for row in rows[::3]:
        name = Path(row["image"]).stem
        patient = draw_patient(3, int(name.split("-")[1]) - 1)
        taken = draw_radiograph(3, patient, int(name.split("-")[2]))
        image = read_image(manifest.parent / row["image"])
        level = taken.encoding.slope or 1.0
        top = ((1 << taken.encoding.bits) - 1) * level
        np.testing.assert_allclose(image.array[0] / top, taken.film, atol=0.51 * level / top + 1e-6)
        assert image.header["view_position"] == row["view"]
        assert float(image.header["patient_age_years"]) == float(row["age"])
        assert image.modality == taken.scanner.modality.lower()


def test_same_seed_same_bytes_whatever_the_workers_and_the_number(
    manifest: Path, tmp_path: Path
) -> None:
    calls: list[tuple[int, int]] = []
    again = write_chest_study(
        tmp_path, patients=4, seed=3, workers=1, progress=lambda *done: calls.append(done)
    )
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    first, second = digests(manifest.parent / "images"), digests(again.parent / "images")
    assert second.items() <= first.items()
    assert first.keys() - second.keys()


def test_processes_draw_the_same(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chest, "_FEW", 1)
    again = write_chest_study(tmp_path, patients=PATIENTS, seed=3, workers=2)
    assert digests(again.parent) == digests(manifest.parent)


def test_processes_that_die_are_done_without(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dying(ThreadPoolExecutor):
        """Gives two results, then breaks as a process pool does."""

        def __init__(self, workers: int, **_: Any) -> None:
            super().__init__(workers)

        def map(self, call: Any, numbers: Any, **_: Any) -> Iterator[Any]:
            yield from [call(number) for number in numbers[:2]]
            raise BrokenProcessPool

    monkeypatch.setattr(chest, "_FEW", 1)
    monkeypatch.setattr(chest, "ProcessPoolExecutor", Dying)
    again = write_chest_study(tmp_path, patients=PATIENTS, seed=3, workers=2)
    assert digests(again.parent) == digests(manifest.parent)


def test_another_seed_draws_others(manifest: Path, tmp_path: Path) -> None:
    other = write_chest_study(tmp_path, patients=1, seed=4)
    assert not set(digests(other.parent / "images").values()) & set(
        digests(manifest.parent / "images").values()
    )


def test_images_of_one_patient_share_anatomy_but_differ() -> None:
    patient = next(p for p in (draw_patient(0, n) for n in range(50)) if p.images > 1)
    first, second = (draw_radiograph(0, patient, image) for image in (1, 2))
    assert first.pose != second.pose
    assert first.film.shape != second.film.shape or not np.array_equal(first.film, second.film)


def test_findings_are_balanced_independent_and_true_to_the_phantom() -> None:
    patients = [draw_patient(0, number) for number in range(400)]
    truth = np.array(
        [
            (p.effusion is not None, p.nodule is not None, p.anatomy.cardiothoracic_ratio > 0.5)
            for p in patients
        ],
        float,
    )
    others = np.array([(p.anatomy.sex == "F", p.anatomy.age, p.images) for p in patients], float)
    assert ((truth.mean(axis=0) > 0.3) & (truth.mean(axis=0) < 0.55)).all()
    together = np.abs(np.corrcoef(np.hstack([truth, others]), rowvar=False)[:3] - np.eye(3, 6))
    assert together.max() < 4 / np.sqrt(400)
    ratios = np.array([p.anatomy.cardiothoracic_ratio for p in patients])
    assert np.abs(ratios - 0.5).min() > 0.019  # nobody on the line, some near it
    assert (np.abs(ratios - 0.5) < 0.04).mean() > 0.1


def test_view_device_and_site_are_drawn_apart_from_the_findings() -> None:
    """The same image of the same phantom is taken alike with and without its findings."""
    patient = draw_patient(0, 1)
    bare = replace(patient, nodule=None, effusion=None)
    ill = replace(patient, effusion=Effusion(1, 0.1))
    for image in (1, 2, 3):
        one, two = draw_radiograph(0, bare, image), draw_radiograph(0, ill, image)
        assert (one.pose, one.scanner, one.encoding) == (two.pose, two.scanner, two.encoding)


def test_cells_are_mostly_certain() -> None:
    cells: Counter[str] = Counter()
    for number in range(200):
        patient = draw_patient(0, number)
        given = labels(0, patient, 1, patient.effusion)
        cells.update(given.values())
        assert given["nodule"] in {str(int(patient.nodule is not None)), "-1", ""}
        assert given["effusion"] in {str(int(patient.effusion is not None)), "-1", ""}
    assert 0 < cells[""] < 30
    assert 0 < cells["-1"] < 60


def test_sidecar_in_the_repository_is_the_one_that_is_written(manifest: Path) -> None:
    kept = REPOSITORY / "tests" / "golden" / "demo_chest.yaml"
    assert load_yaml(kept) == SIDECAR == load_yaml(manifest.with_suffix(".yaml"))
    assert kept.read_text(encoding="utf-8") == dump_yaml(SIDECAR)


def test_no_patient_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="0 patients are asked for; expected 1 or more"):
        write_chest_study(tmp_path, patients=0)


def test_folder_that_cannot_be_written_is_said_without_its_path(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    with pytest.raises(RunError, match=r"^taken: the images cannot be written") as caught:
        write_chest_study(tmp_path / "taken", patients=1)
    assert str(tmp_path) not in str(caught.value)

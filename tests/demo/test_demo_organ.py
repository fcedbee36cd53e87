"""The synthetic volumes: reproducible, labelled as drawn, laid out as real devices lay them out."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from browsing import look_at, needs_chromium

from medtl.cases.columns import Columns
from medtl.cases.manifest import read_manifest
from medtl.demo.demonstration import run_demo
from medtl.demo.organ import CYST, KIDNEY, SCANNERS, draw_phantom, draw_volume, write_organ_study
from medtl.errors import RunError
from medtl.io.masks import read_mask
from medtl.io.read import read_image
from medtl.preprocess.volume import VolumePreprocessor

PATIENTS = 8


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_organ_study(tmp_path_factory.mktemp("study"), patients=PATIENTS, seed=3)


def test_the_manifest_is_accepted_and_every_mask_lies_on_its_image(manifest: Path) -> None:
    found = read_manifest(manifest, Columns(mask="mask", strata=("scanner",), ids="pseudonymous"))
    assert found.licence == "CC0-1.0"
    assert len(found.cases) == PATIENTS
    for number, case in enumerate(found.cases):
        image = read_image(case.image)
        assert case.mask is not None
        mask = read_mask(case.mask, like=image, labels={KIDNEY: "kidney", CYST: "cyst"})
        drawn = draw_volume(3, number)
        assert np.array_equal(mask.array, drawn.labels)
        np.testing.assert_allclose(image.array, drawn.image.array, rtol=1e-6)
        np.testing.assert_allclose(image.affine, drawn.image.affine, atol=1e-4)
        assert (CYST in mask.labels) == (draw_phantom(3, number).cyst is not None)


def test_the_same_seed_gives_the_same_bytes(manifest: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_organ_study(tmp_path, patients=2, seed=3, progress=lambda *done: calls.append(done))
    assert calls == [(1, 2), (2, 2)]
    for path in [*tmp_path.rglob("*.nii.gz")]:
        first = manifest.parent / path.relative_to(tmp_path)
        digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (path, first)]
        assert digests[0] == digests[1]


def test_the_kidney_is_on_the_patient_s_right_whatever_the_device() -> None:
    geometry, seen = VolumePreprocessor(spacing=(2.5, 2.5, 2.5)), set()
    for number in range(12):
        drawn = draw_volume(0, number)
        seen.add(drawn.scanner.name)
        on_grid = geometry.mask_to_unit(drawn.labels, drawn.image)
        places = np.nonzero(on_grid == KIDNEY)[0]
        assert places.mean() > on_grid.shape[0] * 0.62
        unit = geometry.to_unit(drawn.image)[0]
        assert unit[on_grid == KIDNEY].mean() > unit[on_grid == 0].mean() + 0.2
    assert seen == {scanner.name for scanner in SCANNERS}


def test_faults_are_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="0 patients"):
        write_organ_study(tmp_path, patients=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        write_organ_study(tmp_path / "file", patients=1)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_demo(tmp_path_factory.mktemp("organ") / "demo", task="segmentation").report_path


@pytest.mark.slow
def test_both_structures_are_found_and_the_report_says_synthetic(report: Path) -> None:
    measures = json.loads(report.with_name("metrics.json").read_text())["measures"]
    dice = {
        m["label"]: m["value"]
        for m in measures
        if (m["name"], m["split"], m["subset"]) == ("dice", "test", "all")
    }
    assert dice["right kidney"] > 0.85, dice
    assert dice["cyst"] > 0.7, dice
    assert "Synthetic images" in report.read_text()


@needs_chromium
@pytest.mark.slow
def test_the_report_in_a_browser(report: Path) -> None:
    look_at(report, ["strip", "hd95", "volume"])

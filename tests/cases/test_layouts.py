"""Decathlon, nnU-Net and described folders become manifests, and manifests become folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from make_dicom import SHARED
from test_masks import LABELS, left_handed
from test_series import VALUES, series

from medtl.cases.columns import Columns
from medtl.cases.intake.layout_export import export_layout
from medtl.cases.intake.layouts import import_layout
from medtl.cases.manifest import place_for, read_manifest, write_manifest_of
from medtl.errors import ImageError, ManifestError
from medtl.io.masks import write_mask
from medtl.io.read import read_image
from medtl.types import Manifest

DESCRIBED = Path(__file__).parents[2] / "data_manifests"
LABEL_NAMES = {"0": "background", "1": "anterior", "2": "posterior"}


def cases(folder: Path, names: list[str], suffix: str, part: str = "Tr") -> None:
    """Write a volume and its labels for each name."""
    (folder / f"images{part}").mkdir(parents=True, exist_ok=True)
    (folder / f"labels{part}").mkdir(exist_ok=True)
    for name in names:
        path, _ = left_handed(folder / f"images{part}", f"{name}{suffix}.nii.gz")
        write_mask(folder / f"labels{part}" / f"{name}.nii.gz", LABELS, like=read_image(path))


def decathlon(folder: Path, **changes: Any) -> Path:
    """Write a Decathlon folder of two labelled cases and one test image."""
    cases(folder, ["hip_001", "hip_002"], "")
    told: dict[str, Any] = {
        "name": "Hippocampus",
        "description": "left and right",
        "licence": "CC-BY-SA 4.0",
        "modality": {"0": "MRI"},
        "labels": LABEL_NAMES,
        "training": [
            {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}
            for name in ("hip_001", "hip_002")
        ],
        "test": ["./imagesTs/hip_003.nii.gz"],
        **changes,
    }
    (folder / "dataset.json").write_text(json.dumps(told))
    return folder


def nnunet(folder: Path, **changes: Any) -> Path:
    """Write an nnU-Net folder of three training cases and one test case, and two folds."""
    cases(folder, ["a", "b", "c"], "_0000")
    cases(folder, ["d"], "_0000", "Ts")
    told: dict[str, Any] = {
        "channel_names": {"0": "T1"},
        "labels": {"background": 0, "anterior": 1, "posterior": 2, "whole": [1, 2]},
        "file_ending": ".nii.gz",
        **changes,
    }
    (folder / "dataset.json").write_text(json.dumps(told))
    folds = [{"train": ["a", "b"], "val": ["c"]}, {"train": ["b", "c"], "val": ["a"]}]
    (folder / "splits_final.json").write_text(json.dumps(folds))
    return folder


def imported(folder: Path, layout: str | Path, **options: Any) -> Manifest:
    """Import a folder, write its manifest and read it back."""
    found = import_layout(folder, layout, **options)
    path = place_for(folder, folder.parent / "manifest.csv")
    write_manifest_of(folder, found.rows, path, found.sidecar)
    return read_manifest(path, Columns(mask="mask", ids="pseudonymous"))


# ----------------------------------------------------------------------- import


def test_a_decathlon_folder_is_a_manifest(tmp_path):
    folder = decathlon(tmp_path / "Task04")
    (folder / "imagesTr" / "._hip_001.nii.gz").write_bytes(b"what macOS leaves")
    manifest = imported(folder, "msd")
    assert [case.case_id for case in manifest.cases] == ["hip_001", "hip_002"]
    assert {case.patient_id for case in manifest.cases} == {"hip_001", "hip_002"}
    assert manifest.cases[0].mask == folder.resolve() / "labelsTr" / "hip_001.nii.gz"
    assert manifest.cases[0].image.is_file()
    assert manifest.meanings["1"] == "anterior"
    assert manifest.meanings["image"] == "MRI"
    assert manifest.licence == "CC-BY-SA 4.0"
    notes = import_layout(folder, "msd").notes
    assert any("1 test images without labels were left out" in note for note in notes)
    assert any("a patient of its own" in note for note in notes)


def test_an_nnunet_folder_has_its_own_test_set_and_folds(tmp_path):
    folder = nnunet(tmp_path / "Dataset004")
    manifest = imported(folder, "nnunet", fold=1)
    splits = {case.case_id: case.split for case in manifest.cases}
    assert splits == {"a": "val", "b": "train", "c": "train", "d": "test"}
    assert manifest.meanings["2"] == "posterior"
    assert manifest.cases[0].image.name == "a_0000.nii.gz"
    found = import_layout(folder, "nnunet")
    assert {row["split"] for row in found.rows} == {"train", "test"}
    assert any('"whole": [1, 2]' in n and '"overlapping": true' in n for n in found.notes)


@pytest.mark.parametrize("layout", ["nnunet_v1", "nnunet"])
def test_an_nnunet_folder_of_version_1_says_modality_and_values(tmp_path, layout):
    folder = tmp_path / "Task004_Hippocampus"
    cases(folder, ["hip_001", "hip_002"], "_0000")
    told = {
        "name": "Hippocampus",
        "description": "left and right hippocampus",
        "reference": "Vanderbilt University",
        "licence": "CC-BY-SA 4.0",
        "relase": "1.0 04/05/2018",  # as nnU-Net's own documentation spells it
        "tensorImageSize": "3D",
        "modality": {"0": "MRI"},
        "labels": LABEL_NAMES,
        "numTraining": 2,
        "numTest": 0,
        "training": [
            {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}
            for name in ("hip_001", "hip_002")
        ],
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps(told))
    manifest = imported(folder, layout)
    assert [case.image.name for case in manifest.cases] == [
        "hip_001_0000.nii.gz",
        "hip_002_0000.nii.gz",
    ]
    assert [case.mask.name for case in manifest.cases] == ["hip_001.nii.gz", "hip_002.nii.gz"]
    assert manifest.meanings["1"] == "anterior"
    assert manifest.licence == "CC-BY-SA 4.0"
    notes = " ".join(import_layout(folder, layout).notes)
    assert '"structures": {"anterior": 1, "posterior": 2}' in notes
    (folder / "dataset.json").write_text(json.dumps({**told, "modality": {"0": "T2", "1": "ADC"}}))
    with pytest.raises(ManifestError, match="2 channels in separate files"):
        import_layout(folder, layout)


def test_an_nnunet_folder_without_splits_makes_none(tmp_path):
    folder = tmp_path / "Dataset004"
    cases(folder, ["a"], "_0000")
    told = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "x": 1}}
    (folder / "dataset.json").write_text(json.dumps(told))
    assert import_layout(folder, "nnunet").rows[0].keys() == {
        "image",
        "mask",
        "case_id",
        "patient_id",
    }


def test_the_bone_age_release_is_described_by_its_yaml(tmp_path):
    folder = tmp_path / "rsna"
    (folder / "boneage-training-dataset").mkdir(parents=True)
    for name in ("1377", "0042"):
        (folder / "boneage-training-dataset" / f"{name}.png").write_bytes(b"\x89PNG")
    table = folder / "boneage-training-dataset.csv"
    table.write_text("id,boneage,male\n1377,180,False\n0042,12,True\n")
    found = import_layout(folder, DESCRIBED / "rsna_boneage.yaml")
    assert found.rows[1] == {
        "image": "boneage-training-dataset/0042.png",
        "boneage_months": "12",
        "sex": "M",
        "patient_id": "rsna-0042",
    }
    path = place_for(folder, None)
    write_manifest_of(folder, found.rows, path, found.sidecar)
    manifest = read_manifest(path, Columns(["boneage_months"], strata=["sex"]))
    assert manifest.units == {"boneage_months": "months"}
    assert [case.strata["sex"] for case in manifest.cases] == ["F", "M"]
    table.write_text("id,boneage,male\n1377,180,False\n9,12,True\n8,12,True\n")
    with pytest.raises(ManifestError, match="2 faults") as caught:
        import_layout(folder, DESCRIBED / "rsna_boneage.yaml")
    assert "row 3: no image boneage-training-dataset/9.png" in str(caught.value)


def test_a_description_may_add_to_a_known_layout(tmp_path):
    manifest = imported(decathlon(tmp_path / "t"), DESCRIBED / "msd_hippocampus.yaml")
    assert manifest.meanings["2"] == "posterior hippocampus"
    assert manifest.licence == "CC BY-SA 4.0"


def test_every_missing_file_is_listed(tmp_path):
    folder = decathlon(tmp_path / "t")
    (folder / "imagesTr/hip_001.nii.gz").unlink()
    (folder / "labelsTr/hip_002.nii.gz").unlink()
    with pytest.raises(ManifestError, match="2 faults") as caught:
        import_layout(folder, "msd")
    for name in ("imagesTr/hip_001.nii.gz", "labelsTr/hip_002.nii.gz"):
        assert f"the file {name} is not found" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": [{"image": "../x.nii", "label": "/etc/passwd"}]}, "leads out of the folder"),
        ({"training": ["x.nii"]}, r"training\[0\]: no image and label"),
        ({"training": []}, "no case with an image"),
        ({"training": {}}, "no case with an image"),
    ],
)
def test_a_decathlon_description_that_is_wrong_is_refused(tmp_path, changes, message):
    with pytest.raises(ManifestError, match=message):
        import_layout(decathlon(tmp_path / "t", **changes), "msd")


def test_an_nnunet_folder_that_is_wrong_is_refused(tmp_path):
    two = nnunet(tmp_path / "two", channel_names={"0": "T1", "1": "T2"})
    with pytest.raises(ManifestError, match="2 channels in separate files"):
        import_layout(two, "nnunet")
    folder = nnunet(tmp_path / "n")
    with pytest.raises(ManifestError, match=r"splits_final\.json: fold 2 is asked for; expected 0"):
        import_layout(folder, "nnunet", fold=2)
    (folder / "splits_final.json").write_text('[{"train": ["a"], "val": ["c"]}]')
    with pytest.raises(ManifestError, match="1 cases are in no part of fold 0"):
        import_layout(folder, "nnunet", fold=0)
    (folder / "imagesTr/a_0000.nii.gz").unlink()
    with pytest.raises(ManifestError, match=r"imagesTr/a_0000\.nii\.gz is not found"):
        import_layout(folder, "nnunet")


def test_a_folder_that_is_none_of_these_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="there is no such folder"):
        import_layout(tmp_path / "x", "msd")
    with pytest.raises(ManifestError, match=r"dataset\.json: the file is not there"):
        import_layout(tmp_path, "msd")
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(ManifestError, match=r"dataset\.json: no JSON"):
        import_layout(tmp_path, "msd")
    with pytest.raises(ManifestError, match="no such layout; expected msd, nnunet or a YAML file"):
        import_layout(tmp_path, "bids")
    with pytest.raises(ManifestError, match="a Decathlon folder has no folds"):
        import_layout(tmp_path, "msd", fold=0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("layot: table", r"unknown key 'layot'.*Did you mean 'layout'"),
        ("manifest: {}", "no layout; expected layout: one of table, msd, nnunet"),
        ("{layout: table, image: x}", "no 'table'; expected a text or a list"),
        ("{layout: table, table: no.csv, image: x}", r"the table is not there; expected one of no"),
        ("{layout: table, table: t.csv, image: '{name}'}", "the table has no column 'name'"),
        (
            "{layout: table, table: t.csv, image: i.png, columns: {sex: {from: id}}}",
            "a column is neither a text nor",
        ),
        (
            "{layout: table, table: t.csv, image: i.png, columns: {s: {from: id, values: {a: b}}}}",
            "a value of the column id has no meaning; expected a",
        ),
    ],
)
def test_a_description_that_is_wrong_is_refused(tmp_path, spec, message):
    (tmp_path / "t.csv").write_text("id\n7\n")
    (tmp_path / "i.png").write_bytes(b"x")
    (tmp_path / "spec.yaml").write_text(spec)
    with pytest.raises(ManifestError, match=message):
        import_layout(tmp_path, tmp_path / "spec.yaml")


def test_a_manifest_never_lies_below_its_images_nor_over_another(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(ManifestError, match="a manifest lies at or above its images"):
        place_for(tmp_path / "a", tmp_path / "b" / "manifest.csv")
    (tmp_path / "a" / "manifest.csv").write_text("image\n")
    with pytest.raises(ManifestError, match="the manifest exists"):
        place_for(tmp_path / "a", None)


# ----------------------------------------------------------------------- export


def study(tmp_path: Path) -> Manifest:
    """A DICOM series and two NIfTI volumes with masks, in train, val and test."""
    folder = tmp_path / "data"
    folder.mkdir()
    series(folder / "scan")
    write_mask(folder / "scan.nii.gz", LABELS, like=read_image(folder / "scan"))
    for name in ("v", "t"):
        path, _ = left_handed(folder, f"{name}.nii.gz")
        write_mask(folder / f"{name}_mask.nii.gz", LABELS, like=read_image(path))
    rows = [
        {"image": "scan", "mask": "scan.nii.gz", "patient_id": "p1", "split": "train"},
        {"image": "v.nii.gz", "mask": "v_mask.nii.gz", "patient_id": "p2", "split": "val"},
        {"image": "t.nii.gz", "mask": "t_mask.nii.gz", "patient_id": "p3", "split": "test"},
    ]
    rows = [{**row, "case_id": f"case{number}"} for number, row in enumerate(rows)]
    write_manifest_of(folder, rows, folder / "manifest.csv", {"labels": LABEL_NAMES})
    return read_manifest(folder / "manifest.csv", Columns(mask="mask", ids="pseudonymous"))


@pytest.mark.parametrize("layout", ["msd", "nnunet"])
def test_what_is_exported_lies_where_it_lay_and_imports_again(tmp_path, layout):
    manifest = study(tmp_path)
    out = tmp_path / "out"
    assert export_layout(manifest, out, layout, name="Task") == 3
    suffix = "_0000" if layout == "nnunet" else ""
    scan = nibabel.load(out / f"imagesTr/case0{suffix}.nii.gz")
    np.testing.assert_array_equal(scan.get_fdata(), VALUES)
    np.testing.assert_allclose(scan.affine, read_image(manifest.cases[0].image).affine, atol=1e-5)
    labels = nibabel.load(out / "labelsTr/case0.nii.gz")
    np.testing.assert_array_equal(np.asarray(labels.dataobj), LABELS)
    np.testing.assert_allclose(labels.affine, scan.affine)
    back = import_layout(out, layout, fold=0 if layout == "nnunet" else None)
    parts = {row["case_id"]: row.get("split", "") for row in back.rows}
    if layout == "nnunet":
        assert parts == {"case0": "train", "case1": "val", "case2": "test"}
    else:
        assert set(parts) == {"case0", "case1"}
    assert back.sidecar["labels"] == LABEL_NAMES
    told = json.loads((out / "dataset.json").read_text())
    assert told["numTraining"] == 2


def test_a_pair_that_does_not_agree_is_not_exported(tmp_path):
    manifest = study(tmp_path)
    nibabel.save(nibabel.Nifti1Image(LABELS, np.eye(4)), manifest.root / "v_mask.nii.gz")
    with pytest.raises(ImageError, match=r"v_mask\.nii\.gz: affine mismatch"):
        export_layout(manifest, tmp_path / "out", "msd")


def test_what_cannot_be_exported_is_refused(tmp_path):
    manifest = study(tmp_path)
    with pytest.raises(ManifestError, match="the folder exists"):
        export_layout(manifest, tmp_path, "msd")
    bare = read_manifest(manifest.root / "manifest.csv", Columns(ids="pseudonymous"))
    with pytest.raises(ManifestError, match="row 2: 3 of 3 cases have no mask"):
        export_layout(bare, tmp_path / "o", "msd")
    rows = [{"image": "v.nii.gz", "mask": "v_mask.nii.gz", "patient_id": "p", "frame": "1"}]
    write_manifest_of(manifest.root, rows, manifest.root / "flat.csv")
    flat = read_manifest(manifest.root / "flat.csv", Columns(mask="mask", ids="pseudonymous"))
    with pytest.raises(ManifestError, match="row 2: an image of 2 dimensions; expected volumes"):
        export_layout(flat, tmp_path / "o", "msd")


@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="needs ../shared/data")
def test_the_shared_hippocampus_pairs_agree():
    from medtl.io.masks import read_mask

    folder = SHARED / "data" / "mri_hippocampus_msd"
    manifest = read_manifest(folder / "manifest.csv", Columns(mask="label"), salt=b"test")
    for case in manifest.cases[::20]:
        image = read_image(case.image)
        mask = read_mask(case.mask, like=image, labels={1: "anterior", 2: "posterior"})
        assert mask.labels == (1, 2)
        assert mask.flags == ()


def test_the_command_line_imports_checks_and_exports(tmp_path, capsys):
    from medtl.cli.manifest_commands import manifest_export, manifest_import

    folder = decathlon(tmp_path / "t")
    manifest_import(folder, "msd")
    assert "2 rows: " in capsys.readouterr().out
    manifest_export(folder / "manifest.csv", tmp_path / "out", "nnunet")
    assert "2 cases: " in capsys.readouterr().out
    assert len(list((tmp_path / "out" / "imagesTr").iterdir())) == 2
    # without `ids: pseudonymous` the exported names are pseudonyms
    assert not any("hip" in path.name for path in (tmp_path / "out" / "imagesTr").iterdir())

"""Twenty-three kinds of input that once came out wrong, each with several members.

`KINDS` names every kind by its code (F01 ... F45); a member builds its input and says what is
right.
"""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
import timm
import torch
from make_dicom import write
from PIL import Image as Pillow

from medtl.cases.columns import Columns
from medtl.cases.intake.discover import discover
from medtl.cases.intake.layouts import import_layout
from medtl.cases.manifest import read_manifest
from medtl.cases.polarity import finding_of
from medtl.cases.predictions import read_predictions
from medtl.data.reader import ImageReader
from medtl.errors import ImageError, LeakError, ManifestError, RecipeError
from medtl.evaluation.overlaps import overlap_table
from medtl.io.masks import read_mask
from medtl.io.nifti import read_nifti
from medtl.io.pairs import check_pair
from medtl.io.read import read_image
from medtl.networks.weights import WeightsSource, create_backbone
from medtl.preprocess.pipeline import Preprocessor
from medtl.run.check import check_recipe
from medtl.run.init import write_starter
from medtl.tasks.structures import segmentation_task
from medtl.types import Case, Image, Manifest

Member = Callable[[Path], None]

ROWS, COLUMNS = np.mgrid[:64, :48]
GREY = (ROWS * 400 + COLUMNS * 200).astype(np.uint16)
ELLIPSE = np.hypot(*np.mgrid[-40:40, -48:48]) < 30
SALT = b"s" * 32


# -- pictures and masks


def alpha_mask(mode: str, grey: int, folder: Path) -> None:
    """The share of the mask is never read from a plane that holds none: refused, cause named."""
    planes = [np.full(ELLIPSE.shape, grey, np.uint8)] * (len(mode) - 1)
    both = np.dstack([*planes, ELLIPSE.astype(np.uint8) * 255])
    Pillow.fromarray(both, mode).save(folder / "mask.png")
    with pytest.raises(ImageError, match="alpha channel"):
        read_mask(folder / "mask.png")


def tiff(stored: np.ndarray, shown: np.ndarray, options: dict[str, Any], folder: Path) -> None:
    """Values come out as they were stored, white is the largest."""
    file = folder / "film.tif"
    tifffile.imwrite(file, stored, **{"photometric": "minisblack"} | options)
    planes = shown[None] if shown.ndim == 2 else np.moveaxis(shown, 2, 0)
    found = read_image(file, color="grey" if shown.ndim == 2 else "rgb").array
    np.testing.assert_array_equal(found, planes.astype(np.float32))


def colour(*planes: int) -> np.ndarray:
    """16-bit colour whose planes are the grey picture divided."""
    return np.stack([GREY // part for part in planes], -1)


def mosaic(tiles: int, image_type: list[str], folder: Path) -> None:
    """Many slices in one plane are no picture."""
    side = 32 * tiles
    write(folder / "m.dcm", np.zeros((side, side), np.uint16), ImageType=image_type)
    with pytest.raises(ImageError, match="a mosaic"):
        read_image(folder / "m.dcm")


def gzipped(kind: str, folder: Path) -> None:
    """The cause is named."""
    plain = folder / f"a.{kind}"
    if kind == "dcm":
        write(plain, np.zeros((8, 8), np.uint16))
    else:
        Pillow.fromarray(np.zeros((8, 8), np.uint8)).save(plain)
    packed = folder / f"a.{kind}.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    with pytest.raises(ImageError, match="compressed with gzip"):
        read_image(packed)


# -- NIfTI

AFFINE = np.diag([-1, 1.5, 2, 1.0])
AFFINE[:3, 3] = 90, -100, -50


def nifti_header(sform: bool, offset: int, value: bytes, folder: Path) -> None:
    """The file is read, its voxels have the size that they have."""
    image = nibabel.Nifti1Image(np.arange(960).reshape(10, 12, 8).astype(np.int16), AFFINE)
    image.set_qform(AFFINE, 1)
    image.set_sform(AFFINE if sform else None, 1 if sform else 0)
    data = bytearray(image.to_bytes())
    data[offset : offset + len(value)] = value
    (folder / "a.nii").write_bytes(data)
    assert read_nifti(folder / "a.nii").spacing == pytest.approx((1, 1.5, 2))


def unit_quaternion(excess: float) -> bytes:
    """Three numbers of a quaternion whose length is that much above 1."""
    turn = np.array([0.6, 0.64, 0.48])
    return struct.pack("<3f", *turn * (1 + excess) / np.linalg.norm(turn))


def rounded_pair(kind: str, folder: Path) -> None:
    """A mask whose place differs by the rounding of a header is the image's; one voxel is not."""
    del folder
    c, s = np.cos(0.21), np.sin(0.21)
    affine = np.eye(4)
    turned = np.round([[c, -s, 0], [s, c, 0], [0, 0, 1]], 4) @ np.diag([0.9375, 0.9375, 4.4])
    affine[:3, :3], affine[:3, 3] = turned, (100.1234567, 80.7654321, -60.3)
    image = Image(
        np.zeros((1, 64, 64, 10), np.float32), spacing=(0.9375, 0.9375, 4.4), affine=affine
    )
    other = affine.copy()
    if kind == "float32":
        other = affine.astype(np.float32).astype(float)
    elif kind == "shifted by 0.01 mm":
        other[:3, 3] += 0.01
    elif kind == "turned by rounding":
        other[:3, :3] = np.round(affine[:3, :3], 5)
    else:
        other[0, 3] += 0.9375
    mask = Image(np.ones((1, 64, 64, 10), np.float32), spacing=image.spacing, affine=other)
    if kind != "one voxel away":
        assert check_pair(image, mask, labels={1: "a"}).labels == (1,)
        return
    with pytest.raises(ImageError):
        check_pair(image, mask, labels={1: "a"})


def plane(shape: tuple[int, ...], ending: str, folder: Path) -> None:
    """A NIfTI picture is a plane for a study of planes."""
    stored = np.random.default_rng(0).integers(0, 900, shape, dtype=np.int16)
    file = folder / f"slice{ending}"
    nibabel.save(nibabel.Nifti1Image(stored, np.eye(4)), file)
    reader = ImageReader(Preprocessor(32))
    assert reader.read(Case("c", "p", file)).array.ndim == 3


# -- sheets


def sheet(folder: Path, header: str, rows: list[str], name: str = "manifest.csv") -> Path:
    """A table beside 24 films."""
    (folder / "img").mkdir(exist_ok=True)
    for row in range(24):
        pixels = np.random.default_rng(row).integers(0, 200, (40, 40)).astype(np.uint8)
        Pillow.fromarray(pixels).save(folder / f"img/{row:03d}.png")
    file = folder / name
    file.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return file


def read(file: Path, **data: Any) -> Manifest:
    """A manifest as a study reads it."""
    return read_manifest(file, Columns.of(data), salt=SALT)


def recipe(file: Path, **data: Any) -> dict[str, Any]:
    """A recipe as a file holds it."""
    return {
        "study": {"question": "Is it there?"},
        "data": {"manifest": str(file), "target": "label", **data},
        "image": {"modality": "cxr"},
    }


def class_folders(pair: tuple[str, str], folder: Path) -> None:
    """The finding is right, or it is asked for; never the absence, in either order."""
    finding, absence = pair
    for name in pair:
        (folder / "data" / name).mkdir(parents=True)
        for number in range(4):
            pixels = np.full((20, 20), number, np.uint8)
            Pillow.fromarray(pixels).save(folder / "data" / name / f"{number}.png")
    said = "\n".join(write_starter(folder / "data", folder / "out"))
    assert f"positive: {finding}" in said or f'positive: "{finding}"' in said
    assert finding_of(absence, finding) == finding


def asked(pair: tuple[str, str], folder: Path) -> None:
    """What is not certain is asked for, with both answers, and nothing is written."""
    for name in pair:
        (folder / "data" / name).mkdir(parents=True)
        for number in range(4):
            pixels = np.full((20, 20), number, np.uint8)
            Pillow.fromarray(pixels).save(folder / "data" / name / f"{number}.png")
    with pytest.raises(ManifestError, match="nothing says which one is the finding") as error:
        list(write_starter(folder / "data", folder / "out"))
    assert all(f"--positive {name}" in str(error.value) for name in pair)
    assert not (folder / "out").exists()


def two_spellings(spell: Callable[[int, int], str], folder: Path) -> None:
    """One patient under two ids in train and test is a leak."""
    rows = [
        f"img/{i:03d}.png,{spell(i // 2, i % 2)},{('train', 'test')[i % 2]},{(i // 2) % 2}"
        for i in range(24)
    ]
    with pytest.raises(LeakError, match="one patient id in 2 spellings"):
        read(sheet(folder, "image,patient_id,split,label", rows), target="label")


def one_class(words: list[str], folder: Path) -> None:
    """Spellings of one word are a fault that names them, or are folded into the word stated."""
    rows = [f"img/{i:03d}.png,P{i},{words[i % len(words)]}" for i in range(24)]
    file = sheet(folder, "image,patient_id,label", rows)
    with pytest.raises(RecipeError, match="one value in several spellings"):
        check_recipe(recipe(file))
    found = read(file, target="label", classes=words[:1] + words[-1:])
    assert {case.targets["label"] for case in found.cases} == {words[0], words[-1]}


def several_findings(separator: str, folder: Path) -> None:
    """The cells are lists: the answer is printed, and is right."""
    cells = ["No Finding", "Effusion", f"Effusion{separator}Mass", "Mass"]
    rows = [f'img/{i:03d}.png,P{i},"{cells[i % 4]}"' for i in range(24)]
    file = sheet(folder, "image,patient_id,label", rows)
    with pytest.raises(RecipeError, match=r"target: \[Effusion, Mass\], data.listed_in: label"):
        check_recipe(recipe(file))
    said = {"target": ["Effusion", "Mass"], "listed_in": "label", "separator": separator.strip()}
    cases = read(file, **said).cases
    assert [tuple(case.targets.values()) for case in cases[:4]] == [
        ("0", "0"), ("1", "0"), ("1", "1"), ("0", "1"),
    ]  # fmt: skip


def other_names(header: str, called: dict[str, str], folder: Path) -> None:
    """A release's own column names: said, mapped, read; the header is one."""
    rows = [f"img/{i:03d}.png,P{i},Frontal,AP,{i % 2}" for i in range(24)]
    file = sheet(folder, header, rows, "train.csv")
    with pytest.raises(ManifestError) as error:
        read(file, target="label")
    assert "does not look like names" not in str(error.value)
    assert f"columns: {{image: {called['image']}}}" in str(error.value)
    assert len(read(file, target="label", columns=called).cases) == 24


def usable_table(change: Callable[[list[str]], list[str]], name: str, folder: Path) -> None:
    """A table of another make is used, not passed over."""
    rows = ["image,patient_id,label"]
    rows += [f"img/{i:03d}.png,P{i // 2},{(i // 2) % 2}" for i in range(24)]
    changed = change(rows)
    sheet(folder, changed[0], changed[1:], name)
    found = discover(folder, salt=SALT)
    assert (found.kind, len(found.rows), found.target) == ("csv", 24, "label")
    assert found.rows[3]["image"] == "img/003.png"


def split_word(word: str, folder: Path) -> None:
    """The validation part by any of its names."""
    parts = ("train", word, "test")
    rows = [f"img/{i:03d}.png,P{i},{parts[i % 3]},{i % 2}" for i in range(24)]
    file = sheet(folder, "image,patient_id,split,label", rows)
    assert [case.split for case in read(file, target="label").cases[:3]] == ["train", "val", "test"]
    for part in parts:
        for name in ("normal", "pneumonia"):
            (folder / "tree" / part / name).mkdir(parents=True)
            for number in range(3):
                pixels = np.full((20, 20), number, np.uint8)
                Pillow.fromarray(pixels).save(folder / f"tree/{part}/{name}/{number}.png")
    assert {row["split"] for row in discover(folder / "tree").rows} == {"train", "val", "test"}


def predictions(encoding: str, separator: str, name: str, folder: Path) -> None:
    """A predictions table is read as manifests are."""
    lines = ["case_id,patient_id,y_true,y_score"]
    lines += [f"c{i},p{i},{int(i % 3 == 0)},{0.1 + 0.8 * (i % 7) / 7}" for i in range(60)]
    file = folder / name
    file.write_bytes(("\n".join(lines) + "\n").replace(",", separator).encode(encoding))
    found = read_predictions(file)
    assert len(found) == 60
    assert found["y_true"].sum() == 20


def file_names(written: str, folder: Path) -> None:
    """A name that can mean one file alone is that file, and it is said."""
    rows = [f"{written.format(i)},P{i},{i % 2}" for i in range(24)]
    found = read(sheet(folder, "image,patient_id,label", rows), target="label")
    assert [case.image.name for case in found.cases] == [f"{i:03d}.png" for i in range(24)]
    assert "24 files were found by names that differ" in " ".join(found.notes)


def old_age(written: str, folder: Path) -> None:
    """An age above 89 is a band however it is written."""
    rows = [f"img/{i:03d}.png,P{i},{i % 2},{written if i % 3 == 0 else '58'}" for i in range(24)]
    if not written.strip().isdigit() and "." not in written:
        rows = [row.replace(",58", ",058Y") for row in rows]
    found = read(sheet(folder, "image,patient_id,label,age", rows), target="label", strata=["age"])
    assert {case.strata["age"] for case in found.cases} == {"90+", "58"}


# -- nnU-Net


def nnunet(labels: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The task that the import of such a folder prints."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir()
    for number in range(3):
        mask = np.zeros((8, 8, 4), np.uint8)
        mask[2:4], mask[5:6] = 1, 2
        for name, array in ((f"imagesTr/c{number}_0000", mask * 9), (f"labelsTr/c{number}", mask)):
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), folder / f"{name}.nii.gz")
    told = {"channel_names": {"0": "MR"}, "labels": labels, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(told))
    (note,) = [
        n for n in import_layout(folder, "nnunet").notes if n.startswith("the recipe's task: ")
    ]
    found: dict[str, Any] = json.loads(note.removeprefix("the recipe's task: "))
    return found


def ignore_label(folder: Path) -> None:
    """It is out of the loss: no structure, and a value that is not known."""
    task = nnunet({"background": 0, "liver": 1, "ignore": 2}, folder)
    assert task == {"kind": "segmentation", "structures": {"liver": 1}, "ignored": [2]}
    built = segmentation_task(task["structures"], ignored=task["ignored"])
    assert built.encode(np.array([0, 1, 2])).tolist() == [0, 1, 255]


def ignore_as_a_class(folder: Path) -> None:
    """Nobody learns it."""
    del folder
    with pytest.raises(ManifestError, match=r"state task.ignored: \[2\]"):
        segmentation_task({"liver": 1, "ignore": 2})


def ignore_in_metrics(folder: Path) -> None:
    """Voxels of unknown truth count nowhere: by hand, 2 of 2 and 1 of 3 remain."""
    import pandas as pd

    truth = np.array([[1, 1, 0, 2, 2, 0]], np.uint8)
    for name, values in (("t", truth), ("p", np.array([[1, 0, 0, 1, 1, 0]], np.uint8))):
        Pillow.fromarray(values).save(folder / f"{name}.png")
    (folder / "masks.yaml").write_text("labels: {1: liver, 2: ignore}\n")
    rows = pd.DataFrame([{"case_id": "a", "truth": "t.png", "prediction": "p.png"}])
    found = overlap_table(rows, folder / "masks.csv")
    assert found["label"].tolist() == ["liver"]
    assert found["dice"].tolist() == pytest.approx([2 / 3])


def regions(folder: Path) -> None:
    """Regions become structures of several values that may overlap."""
    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    assert nnunet(labels, folder) == {
        "kind": "segmentation",
        "structures": {"whole": [1, 2], "core": 2},
        "ignored": [3],
        "overlapping": True,
    }


# -- weights


def channels(name: str, folder: Path) -> None:
    """The first layer of one channel is adapted, and answers a grey image as it did."""
    torch.manual_seed(0)
    trained = timm.create_model(name, in_chans=1, num_classes=0).eval()
    torch.save(trained.state_dict(), folder / "w.pt")
    model, report = create_backbone(name, WeightsSource("file", path=folder / "w.pt"))
    assert any("from 1 to 3 channels" in note for note in report.notes)
    grey = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        before, after = trained(grey), model.eval()(grey.expand(1, 3, -1, -1))
    torch.testing.assert_close(before, after, rtol=1e-3, atol=1e-4)


def checkpoint(kind: str, folder: Path) -> None:
    """Every tensor of the network is found in what another program saved."""
    torch.manual_seed(0)
    tensors = timm.create_model("test_resnet", num_classes=14).state_dict()
    other = timm.create_model("test_resnet", num_classes=14).state_dict()
    saved: dict[str, Any]
    if kind == "last.ckpt":
        named = {f"model.net.{name}": value for name, value in tensors.items()}
        saved = {"state_dict": named, "pytorch-lightning_version": "2.4", "epoch": 3}
    elif kind == "model_best.pth.tar":
        saved = {"state_dict": {f"module.{name}": v for name, v in tensors.items()}, "arch": "r"}
    else:
        saved = {"state_dict": other, "state_dict_ema": tensors}
    torch.save(saved, folder / kind)
    model, _ = create_backbone("test_resnet", WeightsSource("file", path=folder / kind))
    assert all(torch.equal(value, tensors[name]) for name, value in model.state_dict().items())


PAIRS = [
    ("fracture", "no fracture"), ("Parasitized", "Uninfected"), ("CT_COVID", "CT_NonCOVID"),
    ("ja", "nein"), ("Pneumonie", "gesund"), ("Fraktur", "keine Fraktur"),
    ("oui", "non"), ("malade", "sain"), ("fracture", "sans fracture"),
    ("enfermo", "sano"), ("derrame", "sin derrame"), ("malato", "sano"), ("doente", "saudável"),
    ("양성", "음성"), ("폐렴", "정상"), ("골절", "골절 없음"),
    ("陽性", "陰性"), ("骨折", "骨折なし"), ("阳性", "阴性"), ("感染", "未感染"),
    ("ziek", "gezond"),
]  # fmt: skip
"""Twenty-one pairs in ten languages: finding, absence."""

KINDS: dict[str, tuple[str, dict[str, Member]]] = {
    "F01": ("a mask kept in the alpha channel", {
        f"{mode}, {grey}": partial(alpha_mask, mode, grey)
        for mode, grey in (("RGBA", 255), ("LA", 255), ("RGBA", 0), ("LA", 128))}),
    "F02": ("white is zero", {
        "16 bits": partial(tiff, 65535 - GREY, GREY, {"photometric": "miniswhite"}),
        "16 bits, big-endian": partial(
            tiff, 65535 - GREY, GREY, {"photometric": "miniswhite", "byteorder": ">"}),
        "8 bits": partial(tiff, (255 - (GREY >> 8)).astype(np.uint8), GREY >> 8,
                          {"photometric": "miniswhite"})}),
    "F04": ("16-bit colour", {
        "pixels": partial(tiff, colour(1, 2, 3), colour(1, 2, 3), {"photometric": "rgb"}),
        "planes": partial(tiff, np.moveaxis(colour(1, 2, 3), 2, 0), colour(1, 2, 3),
                          {"photometric": "rgb", "planarconfig": "separate"}),
        "deflated": partial(tiff, colour(3, 1, 2), colour(3, 1, 2),
                            {"photometric": "rgb", "compression": "zlib"})}),
    "F05": ("unsigned 32 bits", {
        "above 2**31": partial(tiff, GREY.astype(np.uint32) * 70000 + 1,
                               GREY.astype(np.uint32) * 70000 + 1, {}),
        "big-endian": partial(tiff, GREY.astype(np.uint32) * 70000,
                              GREY.astype(np.uint32) * 70000, {"byteorder": ">"}),
        "the largest": partial(tiff, np.full((64, 48), 2**32 - 1, np.uint32),
                               np.full((64, 48), 2**32 - 1, np.uint32), {})}),
    "F06": ("a mosaic of slices", {
        "of nine": partial(mosaic, 3, ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]),
        "of sixteen, derived": partial(mosaic, 4, ["DERIVED", "PRIMARY", "MOSAIC"]),
        "of phases": partial(mosaic, 2, ["ORIGINAL", "PRIMARY", "P", "ND", "MOSAIC"])}),
    "F08": ("the finding of two class folders", {
        **{f"{a} / {b}": partial(class_folders, (a, b)) for a, b in PAIRS},
        **{f"{a} or {b}": partial(asked, (a, b)) for a, b in
           (("AD", "CN"), ("left", "right"), ("healed", "nonhealed"))}}),
    "F09": ("one patient under two spellings", {
        "a trailing .0": partial(two_spellings, lambda n, odd: f"{n}.0" if odd else f"{n}"),
        "leading zeros": partial(two_spellings, lambda n, odd: f"{n}" if odd else f"{n:05d}"),
        "case": partial(two_spellings, lambda n, odd: f"{'pP'[odd]}{n:04d}"),
        "blank": partial(two_spellings, lambda n, odd: f"P{(' ', chr(160))[odd]}{n}"),
        "invisible": partial(two_spellings, lambda n, odd: f"P{n}" + "\u200b" * odd),
        "full width": partial(two_spellings, lambda n, odd: f"{('P', chr(0xFF30))[odd]}{n}")}),
    "F11": ("one class in several spellings", {
        "case": partial(one_class, ["pneumonia", "Pneumonia", "PNEUMONIA", "normal"]),
        "invisible": partial(one_class, ["pneumonia", "pneumonia\u200b", "normal"]),
        "full width": partial(one_class, ["AB", "\uff21\uff22", "normal"]),
        "blanks": partial(one_class, ["no\u00a0finding", "no finding", "mass"])}),
    "F12": ("weights of another number of channels", {
        name: partial(channels, name)
        for name in ("test_resnet", "test_efficientnet", "test_convnext")}),
    "F13": ("several findings in one cell", {
        repr(mark): partial(several_findings, mark) for mark in ("|", ";", ", ", "/")}),
    "F20": ("NIfTI headers that others understand", {
        "qfac 0": partial(nifti_header, False, 76, struct.pack("<f", 0)),
        "qfac 0 beside an sform": partial(nifti_header, True, 76, struct.pack("<f", 0)),
        "negative size": partial(nifti_header, False, 80, struct.pack("<f", -1)),
        "a long quaternion": partial(nifti_header, False, 256, unit_quaternion(3e-7))}),
    "F21": ("a mask placed by rounding", {
        kind: partial(rounded_pair, kind) for kind in
        ("float32", "shifted by 0.01 mm", "turned by rounding", "one voxel away")}),
    "F30": ("a release's own column names", {
        "CheXpert": partial(other_names, "Path,Patient,Frontal/Lateral,AP/PA,label",
                            {"image": "Path", "patient_id": "Patient"}),
        "German": partial(other_names, "Datei/Pfad,Patientennummer,Ebene,AP/PA,label",
                          {"image": "Datei/Pfad", "patient_id": "Patientennummer"}),
        "Korean": partial(other_names, "파일,환자,방향,AP/PA,label",
                          {"image": "파일", "patient_id": "환자"})}),
    "F31": ("tables of another make", {
        "row numbers": partial(usable_table, lambda t: [
            f",{t[0]}", *(f"{n},{row}" for n, row in enumerate(t[1:]))], "manifest.csv"),
        "sep=": partial(usable_table, lambda t: [
            "sep=;", *(row.replace(",", ";") for row in t)], "manifest.csv"),
        "a comment": partial(usable_table, lambda t: ["# exported", *t], "manifest.csv"),
        "upper case": partial(usable_table, lambda t: t, "MANIFEST.CSV"),
        "a trailing comma": partial(usable_table, lambda t: [f"{row}," for row in t], "m.csv"),
        "tabs": partial(usable_table, lambda t: [row.replace(",", "\t") for row in t], "m.tsv")}),
    "F33": ("words for the validation part", {
        word: partial(split_word, word) for word in ("validate", "Validation", "valid", "dev")}),
    "F34": ("whole TIFF files of rare kinds", {
        "float64": partial(tiff, GREY / 7.0, GREY / 7.0, {}),
        "float16": partial(tiff, (GREY / 100).astype(np.float16),
                           (GREY / 100).astype(np.float16), {}),
        "float32 colour": partial(tiff, colour(1, 2, 3).astype(np.float32), colour(1, 2, 3),
                                  {"photometric": "rgb"}),
        "big-endian BigTIFF": partial(tiff, GREY, GREY, {"bigtiff": True, "byteorder": ">"}),
        "signed 8 bits": partial(tiff, (GREY % 100 - 50).astype(np.int8),
                                 (GREY % 100 - 50).astype(np.int8), {})}),
    "F35": ("gzipped images", {kind: partial(gzipped, kind) for kind in ("dcm", "png", "tif")}),
    "F37": ("nnU-Net's ignore label", {
        "imported": ignore_label, "as a class": ignore_as_a_class,
        "in metrics": ignore_in_metrics, "beside regions": regions}),
    "F39": ("predictions tables of another make", {
        "upper case": partial(predictions, "utf-8", ",", "p.CSV"),
        "semicolons": partial(predictions, "utf-8", ";", "p.csv"),
        "UTF-16": partial(predictions, "utf-16", ",", "p.csv"),
        "a mark and tabs": partial(predictions, "utf-8-sig", "\t", "p.tsv")}),
    "F41": ("names that differ from the file's", {
        "no ending": partial(file_names, "img/{:03d}"),
        "another case": partial(file_names, "img/{:03d}.PNG"),
        "backslashes": partial(file_names, "img\\{:03d}.png"),
        "both": partial(file_names, "img\\{:03d}")}),
    "F42": ("a NIfTI picture in a study of planes", {
        "(X, Y, 1)": partial(plane, (40, 30, 1), ".nii.gz"),
        "not packed": partial(plane, (40, 30, 1), ".nii"),
        "(X, Y)": partial(plane, (40, 30), ".nii.gz")}),
    "F43": ("checkpoints of other programs", {
        name: partial(checkpoint, name) for name in ("last.ckpt", "model_best.pth.tar", "t.pth")}),
    "F45": ("ages above 89", {
        written: partial(old_age, written)
        for written in ("095Y", "95", "95.5", "95 years", "95세")}),
}  # fmt: skip
"""Code of a kind -> what it is, and its members: the input that came out wrong and others."""

MEMBERS = [(code, name) for code, (_, members) in KINDS.items() for name in members]


@pytest.mark.parametrize(("code", "name"), MEMBERS)
def test_every_member_comes_out_right(code: str, name: str, tmp_path: Path) -> None:
    KINDS[code][1][name](tmp_path)


def test_all_kinds_are_here_with_two_further_members_each() -> None:
    assert len(KINDS) == 23
    assert all(len(members) >= 3 for _, members in KINDS.values())

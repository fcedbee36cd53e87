"""A manifest of volumes and masks written as a Decathlon or nnU-Net v2 folder.

Every pair is read and checked on the way, so that what another tool trains on is what this one
would. Cases go by their pseudonymous ids; voxels keep their place, axes and spacing.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medtl.errors import ManifestError
from medtl.io.masks import nifti_bytes, read_mask, write_mask
from medtl.io.read import read_image
from medtl.storage.atomic import write_bytes, write_json
from medtl.types import Case, Image, Manifest

_ENDING = ".nii.gz"


def export_layout(
    manifest: Manifest,
    out: str | PathLike[str],
    layout: Literal["msd", "nnunet"],
    *,
    name: str = "medtl",
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write the volumes and masks of a manifest in the layout of another tool; return how many.

    Cases of the test split go to imagesTs, all others to imagesTr. For nnU-Net, train and val
    become the one fold of splits_final.json, and labels of the test split go to labelsTs.

    Args:
        manifest: Read with its mask column.
        out: Folder to write to; it must not exist yet.
        layout: "msd" or "nnunet".
        name: Of the data set.
        progress: Called with cases done and in all.

    Raises:
        ManifestError: The folder exists, or a case has no mask.
        ImageError: An image or mask cannot be read, they do not agree, or are no volumes.
    """
    out = Path(out)
    if out.exists():
        raise ManifestError("the folder exists", where=out.name, fix="Choose another --out")
    bare = [case for case in manifest.cases if case.mask is None]
    if bare or not manifest.cases:
        raise ManifestError(
            f"{len(bare)} of {len(manifest.cases)} cases have no mask",
            expected="a mask for every case",
            where=f"row {bare[0].row}" if bare else "manifest",
            fix="Name the column of the masks, and leave out cases without one",
        )
    parts = ("imagesTr", "labelsTr", "imagesTs", "labelsTs")
    for part in parts if any(case.split == "test" for case in manifest.cases) else parts[:2]:
        (out / part).mkdir(parents=True)
    labels = {int(key): text for key, text in manifest.meanings.items() if key.isdigit()}
    found: set[int] = set()
    modality, channels = "", 1
    for done, case in enumerate(manifest.cases, start=1):
        image, values = _write_case(case, out, layout, labels, manifest.root)
        found |= values
        modality, channels = modality or image.modality, len(image.array)
        if progress is not None:
            progress(done, len(manifest.cases))
    names = {label: labels.get(label, f"label {label}") for label in sorted(found - {0})}
    sequences = {str(channel): modality or "unknown" for channel in range(channels)}
    told = {"name": name, "description": manifest.source, "licence": manifest.licence}
    if layout == "msd":
        names = {0: labels.get(0, "background"), **names}
        write_json(out / "dataset.json", {**told, **_msd_parts(manifest, sequences, names)})
    else:
        write_json(out / "dataset.json", {**_nnunet_parts(manifest, sequences, names), **told})
        fold = {
            part: [case.case_id for case in manifest.cases if case.split == part]
            for part in ("train", "val")
        }
        if fold["val"]:
            write_json(out / "splits_final.json", [fold])
    return len(manifest.cases)


def _write_case(
    case: Case, out: Path, layout: str, labels: Mapping[int, str], root: Path
) -> tuple[Image, set[int]]:
    """Write one pair; return its image and the labels of its mask."""
    image = read_image(case.image, root=root, frame=case.frame)
    if image.array.ndim != 4:
        raise ManifestError(
            f"an image of {image.array.ndim - 1} dimensions",
            expected="volumes: NIfTI files, or folders of DICOM series",
            where=f"row {case.row}",
        )
    assert case.mask is not None
    mask = read_mask(case.mask, like=image, labels=labels or None, source=case.image, root=root)
    part = "Ts" if case.split == "test" else "Tr"
    if layout == "nnunet":
        names = [f"{case.case_id}_{channel:04d}{_ENDING}" for channel in range(len(image.array))]
        arrays = list(image.array)
    else:
        names = [f"{case.case_id}{_ENDING}"]
        is_single = len(image.array) == 1
        arrays = [image.array[0] if is_single else np.moveaxis(image.array, 0, -1)]
    for name, array in zip(names, arrays, strict=True):
        data = gzip.compress(nifti_bytes(array, image), mtime=0)
        write_bytes(out / f"images{part}" / name, data)
    write_mask(out / f"labels{part}" / f"{case.case_id}{_ENDING}", mask.array, like=image)
    return image, set(mask.labels)


def _msd_parts(
    manifest: Manifest, sequences: Mapping[str, str], labels: Mapping[int, str]
) -> dict[str, Any]:
    """Return what the dataset.json of a Decathlon folder says of its files."""
    training = [case.case_id for case in manifest.cases if case.split != "test"]
    test = [case.case_id for case in manifest.cases if case.split == "test"]
    return {
        "tensorImageSize": "3D" if len(sequences) == 1 else "4D",
        "modality": dict(sequences),
        "labels": {str(label): text for label, text in labels.items()},
        "numTraining": len(training),
        "numTest": len(test),
        "training": [
            {"image": f"./imagesTr/{case}{_ENDING}", "label": f"./labelsTr/{case}{_ENDING}"}
            for case in training
        ],
        "test": [f"./imagesTs/{case}{_ENDING}" for case in test],
    }


def _nnunet_parts(
    manifest: Manifest, sequences: Mapping[str, str], labels: Mapping[int, str]
) -> dict[str, Any]:
    """Return what the dataset.json of an nnU-Net folder says of its files."""
    return {
        "channel_names": dict(sequences),
        "labels": {"background": 0, **{text: label for label, text in labels.items()}},
        "numTraining": sum(case.split != "test" for case in manifest.cases),
        "file_ending": _ENDING,
    }

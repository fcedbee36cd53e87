"""Folder layouts that challenges and other tools use: import as a manifest, export from one.

Medical Segmentation Decathlon (dataset.json, imagesTr, labelsTr), nnU-Net (dataset.json,
CASE_0000.nii.gz, splits_final.json), and releases that a YAML file of `data_manifests/` describes.
Files are named where they lie; nothing is copied by an import.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any

from medtl.cases.releases.described import SPEC_KEYS, check_keys, import_described
from medtl.cases.releases.made_files import Imported
from medtl.cases.releases.shelf import names, shipped
from medtl.cases.sidecar import SIDECAR_KEYS
from medtl.errors import ManifestError, MedtlError, located
from medtl.storage.tables import nearest, raise_together
from medtl.storage.yaml import load_yaml

_ENDINGS = (".nii.gz", ".nii", ".png", ".tif")
"""Files of images that the layouts may hold."""

IGNORE = "ignore"
"""nnU-Net's name for what is not known: out of loss and metrics, and no class."""

_ONE_EACH = (
    "every case is taken for a patient of its own: correct the column patient_id if some patients "
    "have several"
)


@dataclass(frozen=True)
class Takes:
    """What of a described release is taken.

    Attributes:
        partial: Whether less than half of the images is enough.
        where: Rows to take in place of the description's own choice; "" takes all.
    """

    partial: bool = False
    where: str | None = None


def import_layout(
    folder: str | PathLike[str],
    layout: str | PathLike[str],
    *,
    fold: int | None = None,
    takes: Takes = Takes(),
) -> Imported:
    """Return the rows and the sidecar of a manifest for a release folder.

    Args:
        folder: The release as it was unpacked.
        layout: A data set of `data_manifests/` ("chexpert"), "msd", "nnunet", or a YAML file of
            your own that describes the release.
        fold: nnU-Net: which fold of splits_final.json becomes train and val; None makes no split.
        takes: What of a described release is taken.

    Raises:
        ManifestError: The folder is not laid out like that; all missing files are listed.
        LeakError: A patient stands in two official splits.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ManifestError("there is no such folder", where=folder.name, fix="Check the path")
    name = str(layout)
    spec = load_yaml(Path(layout)) if Path(layout).is_file() else shipped(Path(layout).stem)
    if spec is None and name not in _READERS:
        near = nearest(name, names())
        raise ManifestError(
            "no such layout",
            expected=f"{', '.join(_READERS)} or a YAML file, or one of {', '.join(names())}",
            where=Path(layout).name,
            fix=f"Did you mean '{near}'?" if near else "`medtl manifest layouts` lists them",
        )
    with located(Path(layout).name):
        found = _described(folder, spec or {"layout": name}, fold, takes)
    if not found.rows:
        raise ManifestError("no case with an image", where=folder.name, fix="Check the path")
    return found


# -------------------------------------------------------------------- Decathlon


def _read_msd(folder: Path, fold: int | None) -> Imported:
    """Return the training cases of a Decathlon folder."""
    _refuse_fold(fold, "a Decathlon folder")
    told = _load_json(folder / "dataset.json")
    faults: list[MedtlError] = []
    rows = []
    for number, entry in enumerate(_listed(told, "training")):
        where = f"dataset.json, training[{number}]"
        if not isinstance(entry, dict) or not {"image", "label"} <= set(entry):
            faults.append(ManifestError("no image and label", where=where))
            continue
        image, mask = (str(entry[key]) for key in ("image", "label"))
        faults += [fault for name in (image, mask) if (fault := _missing(folder, name, where))]
        rows.append({**_row(_case_of(image)), "image": _clean(image), "mask": _clean(mask)})
    raise_together(faults, folder.name)
    notes = [_ONE_EACH]
    if unlabelled := _listed(told, "test"):
        notes.append(f"{len(unlabelled)} test images without labels were left out")
    labels = {str(value): str(name) for value, name in _mapping(told, "labels").items()}
    modality = ", ".join(str(name) for name in _mapping(told, "modality").values())
    return Imported(tuple(rows), _sidecar(told, labels, modality), tuple(notes))


# ---------------------------------------------------------------------- nnU-Net


def _read_nnunet(folder: Path, fold: int | None) -> Imported:
    """Return the labelled cases of an nnU-Net folder, of version 2 or 1.

    Version 1 says `modality` for `channel_names`, and value -> name of its labels.
    """
    told = _load_json(folder / "dataset.json")
    channels = _mapping(told, "channel_names") or _mapping(told, "modality")
    if len(channels) != 1:
        raise ManifestError(
            f"{len(channels)} channels in separate files",
            expected="one channel; several sequences belong into one four-dimensional NIfTI file",
            where="dataset.json",
            fix="Merge them (fslmerge, nibabel) and import the folder of the merged files",
        )
    ending = str(told.get("file_ending", ".nii.gz"))
    splits = {} if fold is None else _splits(folder, fold)
    rows: list[dict[str, str]] = []
    faults: list[MedtlError] = []
    has_test = (folder / "labelsTs").is_dir()
    for part in ("Tr", "Ts"):
        for label in sorted((folder / f"labels{part}").glob(f"*{ending}")):
            if label.name.startswith("."):
                continue
            case = label.name.removesuffix(ending)
            image = f"images{part}/{case}_0000{ending}"
            fault = _missing(folder, image, f"labels{part}/{label.name}")
            faults += [fault] if fault else []
            rest = "" if fold is not None else "train"
            split = "test" if part == "Ts" else splits.get(case, rest)
            row = {**_row(case), "image": image, "mask": f"labels{part}/{label.name}"}
            rows.append({**row, "split": split} if has_test or splits else row)
    unsplit = [row["case_id"] for row in rows if splits and not row["split"]]
    if unsplit:
        found = f"{len(unsplit)} cases are in no part of fold {fold}"
        faults.append(ManifestError(found, where="splits_final.json"))
    raise_together(faults, folder.name)
    labels, task = _nnunet_labels(told)
    notes = [_ONE_EACH, f"the recipe's task: {task}"]
    modality = ", ".join(str(name) for name in channels.values())
    return Imported(tuple(rows), _sidecar(told, labels, modality), tuple(notes))


def _nnunet_labels(told: Mapping[str, Any]) -> tuple[dict[str, str], str]:
    """Return value -> name of what the masks hold, and the task that a recipe states for them.

    Reference:
        nnU-Net v2, documentation/region_based_training.md and ignore_label.md: a list of values is
        a region, which may overlap others; voxels of "ignore" count neither in loss nor metrics.
    """
    labels = _mapping(told, "labels")
    if labels and all(str(name).isdigit() for name in labels):
        labels = {str(name): int(value) for value, name in labels.items()}
    given = {str(name): _values(value) for name, value in labels.items()}
    known = {name: v for name, v in given.items() if v != (0,) and name != IGNORE}
    names = {str(v[0]): name for name, v in given.items() if len(v) == 1}
    for name, values in known.items():
        if len(values) > 1:  # a value that has no name of its own is called by its regions
            for value in map(str, values):
                names.setdefault(value, name)
    task: dict[str, Any] = {
        "kind": "segmentation",
        "structures": {name: v[0] if len(v) == 1 else [*v] for name, v in known.items()},
    }
    if IGNORE in given:
        task["ignored"] = [*given[IGNORE]]
    if sum(map(len, known.values())) > len({value for v in known.values() for value in v}):
        task["overlapping"] = True
    return names, json.dumps(task, ensure_ascii=False)


def _values(given: Any) -> tuple[int, ...]:
    """The values of a label or region; none for what is no whole number."""
    listed = given if isinstance(given, list) else [given]
    return tuple(int(value) for value in listed if str(value).isdigit())


def _splits(folder: Path, fold: int) -> dict[str, str]:
    """Return case -> "train" or "val" of one fold."""
    folds = _load_json(folder / "splits_final.json")
    if not isinstance(folds, list) or not 0 <= fold < len(folds):
        count = len(folds) if isinstance(folds, list) else 0
        raise ManifestError(
            f"fold {fold} is asked for", expected=f"0 to {count - 1}", where="splits_final.json"
        )
    return {str(case): part for part in ("train", "val") for case in _listed(folds[fold], part)}


# ---------------------------------------------------------- described by a YAML


def _described(folder: Path, spec: Mapping[str, Any], fold: int | None, takes: Takes) -> Imported:
    """Return what a description says of a release."""
    check_keys(spec, SPEC_KEYS)
    told = spec.get("manifest", {})
    layout = str(spec.get("layout", "table" if "rows" in spec else ""))
    if layout in _READERS:
        found = _READERS[layout](folder, fold)
        return replace(found, sidecar={**found.sidecar, **told})
    if layout != "table":
        raise ManifestError("no layout", expected=f"layout: one of table, {', '.join(_READERS)}")
    _refuse_fold(fold, "a table")
    return import_described(folder, spec, partial=takes.partial, where=takes.where)


# ------------------------------------------------------------------------ parts


def _refuse_fold(fold: int | None, what: str) -> None:
    """Refuse a fold where there are none."""
    if fold is not None:
        raise ManifestError(f"{what} has no folds", fix="Leave --fold out")


def _load_json(path: Path) -> Any:
    """Return the content of a JSON file."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ManifestError(
            "the file is not there", where=path.name, fix="Check the folder and the layout"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ManifestError(f"no JSON ({type(error).__name__})", where=path.name) from None


def _listed(told: Any, key: str) -> list[Any]:
    """Return a list of a JSON object, [] when it is not there."""
    found = told.get(key) if isinstance(told, dict) else None
    return found if isinstance(found, list) else []


def _mapping(told: Any, key: str) -> dict[str, Any]:
    """Return a mapping of a JSON object, {} when it is not there."""
    found = told.get(key) if isinstance(told, dict) else None
    return found if isinstance(found, dict) else {}


def _row(case: str) -> dict[str, str]:
    """Return the ids of a case that is a patient of its own."""
    return {"image": "", "mask": "", "case_id": case, "patient_id": case}


def _case_of(image: str) -> str:
    """Return the name of an image without its folder and ending."""
    name = PurePosixPath(image).name
    ending = next((ending for ending in _ENDINGS if name.endswith(ending)), "")
    return name.removesuffix(ending)


def _clean(path: str) -> str:
    """Return a path of a data set without its leading './'."""
    return PurePosixPath(path).as_posix()


def _missing(folder: Path, path: str, where: str) -> ManifestError | None:
    """Return the fault of a path that leads out of the folder or to nothing."""
    parts = PurePosixPath(path).parts
    if ".." in parts or path.startswith("/"):
        return ManifestError("a path leads out of the folder", where=where)
    if not (folder / path).is_file():
        return ManifestError(f"the file {_clean(path)} is not found", where=where)
    return None


def _sidecar(told: Mapping[str, Any], labels: Mapping[str, str], modality: str) -> dict[str, Any]:
    """Return the sidecar that a dataset.json gives."""
    source = " ".join(str(told[key]) for key in ("name", "description") if told.get(key))
    sidecar: dict[str, Any] = {
        "columns": {"image": modality or "volume", "mask": "label of each voxel"},
        "labels": dict(labels),
        "source": source,
        "licence": str(told.get("licence") or told.get("license") or ""),
    }
    return {key: value for key, value in sidecar.items() if key in SIDECAR_KEYS and value}


_READERS: Mapping[str, Callable[[Path, int | None], Imported]] = {
    "msd": _read_msd,
    "nnunet": _read_nnunet,
}
"""Name of a layout -> what reads it."""

LAYOUTS: Sequence[str] = tuple(_READERS)
"""Formats of folders that are read by code of their own."""

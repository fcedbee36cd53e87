"""Folder layouts that challenges and other tools use: import as a manifest, export from one.

Medical Segmentation Decathlon (dataset.json, imagesTr, labelsTr), nnU-Net v2 (dataset.json,
CASE_0000.nii.gz, splits_final.json), and tables beside a folder of images, described by a YAML
file of `data_manifests/`. Files are named where they lie; nothing is copied by an import.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any

from medtl.cases.sidecar import SIDECAR_KEYS
from medtl.errors import ManifestError, MedtlError, located
from medtl.storage.tables import nearest, raise_together, read_table
from medtl.storage.yaml import load_yaml

_ENDINGS = (".nii.gz", ".nii", ".png", ".tif")
"""Files of images that the layouts may hold."""

_SPEC_KEYS = ("layout", "table", "image", "columns", "manifest")
"""Keys of a YAML file that describes a release: how it is laid out and what its manifest says."""

IGNORE = "ignore"
"""nnU-Net's name for what is not known: out of loss and metrics, and no class."""

_ONE_EACH = (
    "every case is taken for a patient of its own: correct the column patient_id if some patients "
    "have several"
)


@dataclass(frozen=True)
class Imported:
    """The contents of a release folder, as the start of a manifest.

    Attributes:
        rows: Rows of the manifest; paths are relative to the folder.
        sidecar: What the YAML file beside the manifest says.
        notes: What was decided and what the user has to look at.
    """

    rows: tuple[dict[str, str], ...]
    sidecar: dict[str, Any]
    notes: tuple[str, ...]


def import_layout(
    folder: str | PathLike[str], layout: str | PathLike[str], *, fold: int | None = None
) -> Imported:
    """Return the rows and the sidecar of a manifest for a release folder.

    Args:
        folder: The release as it was unpacked.
        layout: "msd", "nnunet", or the YAML file that describes the release.
        fold: nnU-Net: which fold of splits_final.json becomes train and val; None makes no split.

    Raises:
        ManifestError: The folder is not laid out like that; all missing files are listed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ManifestError("there is no such folder", where=folder.name, fix="Check the path")
    if isinstance(layout, str) and layout in _READERS:
        found = _READERS[layout](folder, fold)
    else:
        found = _described(folder, Path(layout), fold)
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
    """Return the labelled cases of an nnU-Net v2 folder."""
    told = _load_json(folder / "dataset.json")
    channels = _mapping(told, "channel_names")
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
    given = {str(name): _values(value) for name, value in _mapping(told, "labels").items()}
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


def _described(folder: Path, path: Path, fold: int | None) -> Imported:
    """Return what a YAML file of `data_manifests/` says about a release."""
    if not path.is_file():
        expected = f"{', '.join(_READERS)} or a YAML file"
        raise ManifestError("no such layout", expected=expected, where=path.name)
    spec = load_yaml(path)
    with located(path.name):
        return _by_spec(folder, spec, fold)


def _by_spec(folder: Path, spec: Mapping[str, Any], fold: int | None) -> Imported:
    """Return what a described release holds."""
    odd = [key for key in spec if key not in _SPEC_KEYS]
    if odd:
        near = nearest(odd[0], _SPEC_KEYS)
        raise ManifestError(
            f"unknown key '{odd[0]}'",
            expected=", ".join(_SPEC_KEYS),
            fix=f"Did you mean '{near}'" if near else "Delete it",
        )
    told = spec.get("manifest", {})
    layout = str(spec.get("layout", ""))
    if layout in _READERS:
        found = _READERS[layout](folder, fold)
        return Imported(found.rows, {**found.sidecar, **told}, found.notes)
    if layout != "table":
        raise ManifestError("no layout", expected=f"layout: one of table, {', '.join(_READERS)}")
    _refuse_fold(fold, "a table")
    return Imported(tuple(_table_rows(folder, spec)), dict(told), ())


def _table_rows(folder: Path, spec: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Yield the rows that a table and its description give; all faults are raised together."""
    names, images = _texts(spec, "table"), _texts(spec, "image")
    there = [name for name in names if (folder / name).is_file()]
    if not there:
        raise ManifestError(
            "the table is not there", expected=f"one of {', '.join(names)}", where=folder.name
        )
    table = read_table(folder / there[0])
    faults: list[MedtlError] = list(table.faults)
    rows = []
    for line, cells in zip(table.lines, table.rows, strict=True):
        row = dict(zip(table.columns, cells, strict=True))
        paths = [_filled(template, row) for template in images]
        found = [path for path in paths if not _missing(folder, path, "")]
        if not found:
            faults.append(ManifestError(f"no image {paths[0]}", where=f"row {line}"))
            continue
        made = {name: _cell(rule, row) for name, rule in _mapping(spec, "columns").items()}
        rows.append({"image": found[0], **made})
    raise_together(faults, there[0])
    yield from rows


def _cell(rule: Any, row: Mapping[str, str]) -> str:
    """Return a cell: a template filled, or the value that a cell of the table stands for."""
    if isinstance(rule, str):
        return _filled(rule, row)
    if not isinstance(rule, dict) or set(rule) != {"from", "values"}:
        raise ManifestError("a column is neither a text nor {from, values}", fix="Write '{COLUMN}'")
    given = _filled("{" + str(rule["from"]) + "}", row)
    known = {str(key).casefold(): str(value) for key, value in rule["values"].items()}
    if given.casefold() not in known:
        raise ManifestError(
            f"a value of the column {rule['from']} has no meaning", expected=", ".join(known)
        )
    return known[given.casefold()]


def _filled(template: str, row: Mapping[str, str]) -> str:
    """Return a template with each {COLUMN} replaced by the cell of that column."""

    def cell(match: re.Match[str]) -> str:
        if match[1] not in row:
            raise ManifestError(
                f"the table has no column '{match[1]}'", expected=f"one of {', '.join(row)}"
            )
        return row[match[1]]

    return re.sub(r"\{([^{}]+)\}", cell, template)


def _texts(spec: Mapping[str, Any], key: str) -> list[str]:
    """Return one text or a list of them."""
    given = spec.get(key)
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise ManifestError(f"no '{key}'", expected="a text or a list of texts")
    return texts


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
"""Layouts known by name."""

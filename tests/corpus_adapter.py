"""Runs medtl on every kind of a corpus of bad and odd files, and writes what happened.

usage: python tests/corpus_adapter.py CORPUS OUT.json

CORPUS holds a `manifest.json` with "kinds": id, family, inputs, limits. Each kind is read through
the public interface in a fresh process in an empty folder. OUT.json maps each id to its outcome
(accept, accept_flag, reject, stop, crash, timeout), message, flags, the array as an .npy file in
OUT.arrays/, spacing, seconds, and the growth of the peak memory over an idle process in MB.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image as Pillow
from torch import nn

from medtl.cases.intake.discover import discover
from medtl.cases.intake.scan import scan_dicom
from medtl.errors import ImageError, MedtlError
from medtl.io.dicom.image import read_dicom  # noqa: F401  what an idle worker has loaded
from medtl.io.dicom.series import read_series
from medtl.io.nifti import read_nifti  # noqa: F401
from medtl.io.pairs import check_pair
from medtl.io.raster import read_raster  # noqa: F401
from medtl.io.read import read_image
from medtl.networks.pretrained.weight_files import read_tensors
from medtl.run.check import read_recipe
from medtl.run.prepare import read_study
from medtl.storage.tables import read_table
from medtl.storage.yaml import dump_yaml, load_yaml
from medtl.training.checkpoint import load_exactly
from medtl.types import Image

Kind = Mapping[str, Any]
Result = dict[str, Any]

SPARE_SECONDS = 10.0
"""A process is killed this long after its kind's limit."""

RECIPE: Mapping[str, dict[str, Any]] = {
    "study": {"question": "Which class?"},
    "data": {"target": "label"},
    "image": {"modality": "cxr", "size": 32},
    "model": {"backbone": "test_resnet", "weights": {"source": "none", "random_features": True}},
    "finetune": {"stages": [{"name": "all", "train": "all", "epochs": 1, "lr": 1e-3}]},
    "run": {"tensorboard": False, "device": "cpu"},
}
"""What the corpus leaves open."""

KEYS = {
    ("model", "name"): "model.backbone",
    ("train", "epochs"): "finetune.stages.0.epochs",
    ("train", "lr"): "finetune.stages.0.lr",
    ("train", "batch_size"): "finetune.batch_size",
    ("train", "optimizer"): "finetune.optimizer",
    ("train", "seed"): "run.seed",
    ("loss", "name"): "task.loss",
    ("loss", "gamma"): "task.focal_gamma",
}
"""(section, key) of the corpus -> key of a recipe. What is not here keeps its name."""


def main(corpus: Path, out: Path) -> int:
    """Run every kind and write the results."""
    kinds = json.loads((corpus / "manifest.json").read_text("utf-8"))["kinds"]
    arrays = out.with_suffix(".arrays")
    arrays.mkdir(exist_ok=True)
    results = {}
    become_idle_worker()
    for kind in kinds:
        results[kind["id"]] = in_fresh_process(kind, corpus.resolve(), arrays.resolve())
    out.write_text(json.dumps(results, indent=1, ensure_ascii=False), encoding="utf-8")
    return 0


def become_idle_worker() -> None:
    """Load what a worker has loaded before its first file: the processes are forks of this one."""
    torch.set_num_threads(1)
    here = Path.cwd()
    with TemporaryDirectory() as folder:
        os.chdir(folder)
        write_study_of(())
        check_recipe({**RECIPE, "data": {**RECIPE["data"], "manifest": "manifest.csv"}})
        os.chdir(here)


def in_fresh_process(kind: Kind, corpus: Path, arrays: Path) -> Result:
    """The result of one kind; a process that dies or hangs is a crash or a timeout."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    with TemporaryDirectory() as folder:
        process = context.Process(target=work, args=(kind, corpus, arrays, Path(folder), sender))
        process.start()
        sender.close()
        limit = float(kind.get("limits", {}).get("max_s", 20)) + SPARE_SECONDS
        try:
            result: Result = receiver.recv() if receiver.poll(limit) else {"outcome": "timeout"}
        except EOFError:
            result = {"outcome": "crash", "message": "the process died"}
        if result["outcome"] == "timeout":
            process.kill()
        process.join()
        executed = [p.name for p in Path(folder).rglob("CANARY*")]
    if executed:
        result = {"outcome": "crash", "message": f"executed: {executed}"}
    return result


def work(kind: Kind, corpus: Path, arrays: Path, folder: Path, sender: Connection) -> None:
    """Run one kind in an empty folder and send its result."""
    cwd = folder / "a" / "b" / "c"  # a payload that climbs out of it stays below `folder`
    cwd.mkdir(parents=True)
    os.chdir(cwd)
    idle, started = peak_mb(), time.monotonic()
    try:
        result = FAMILIES[kind["family"]](kind, corpus)
    except ImageError as error:
        result = {"outcome": "reject", "message": str(error)}
    except MedtlError as error:
        result = {"outcome": "stop", "message": str(error)}
    except BaseException:
        result = {"outcome": "crash", "message": traceback.format_exc(), "traceback": True}
    result["s"] = round(time.monotonic() - started, 2)
    result["mb"] = round(peak_mb() - idle, 1)
    if (array := result.pop("values", None)) is not None:
        np.save(arrays / f"{kind['id']}.npy", array)
        result["array"] = str(arrays / f"{kind['id']}.npy")
    sender.send(result)


def peak_mb() -> float:
    """Peak resident memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def read(kind: Kind, corpus: Path) -> Result:
    """Files that hold pixels: one, several of the same sort, a folder, or an image and its mask."""
    paths = [corpus / name for name in kind["inputs"]]
    if paths[0].is_dir():
        return read_folder(paths[0], is_series=kind["family"] == "series")
    images = [read_image(path, root=path.parent, color="keep") for path in paths]
    if len(paths) == 2 and "mask" in paths[1].name:
        classes = kind["expect"].get("config", {}).get("num_classes")
        labels = None if classes is None else range(classes)
        check_pair(images[0], images[1], labels=labels, where=paths[1].name)
    flags = list(dict.fromkeys(flag for image in images for flag in image.flags))
    if len(paths) > 1 and kind["family"] == "dicom":
        flags += scan_dicom(paths[0].parent, salt=bytes(32), workers=1).notes
    return accepted(images[0], flags)


def read_folder(folder: Path, *, is_series: bool) -> Result:
    """A folder that is one series, or one in which images are looked for."""
    if is_series:
        image = read_series(folder, root=folder.parent)
        return accepted(image, list(image.flags))
    found = scan_dicom(folder, salt=bytes(32), workers=1)
    flags = [*found.notes, *(f"skipped {name}: {cause}" for name, cause in found.skipped)]
    images = [read_image(folder / row["image"], root=folder) for row in found.rows]
    return {**accepted(images[0], flags), "n_images": len(images)}


def accepted(image: Image, flags: Sequence[str]) -> Result:
    """The result for an image that was read: channels last, none when there is one."""
    array = image.array[0] if len(image.array) == 1 else np.moveaxis(image.array, 0, -1)
    return {
        "outcome": "accept_flag" if flags else "accept",
        "flags": list(flags),
        "message": "; ".join(image.notes),
        "spacing": image.spacing,
        "values": array,
    }


def check_table(kind: Kind, corpus: Path) -> Result:
    """A manifest: what `medtl check` says of it before any training.

    The corpus says in words that its labels are the classes 0 and 1; a table without any of them
    has others.
    """
    manifest = corpus / kind["inputs"][0]
    data: dict[str, Any] = {"manifest": str(manifest), "target": "label"}
    try:
        table = read_table(manifest)
        column = {row[table.columns.index("label")] for row in table.rows}
    except (MedtlError, ValueError):
        column = set()  # the check below says what is wrong
    if {"0", "1"} <= column:
        data["classes"] = ["0", "1"]
    return check_recipe({**RECIPE, "data": data})


def check_recipe(recipe: Mapping[str, Any]) -> Result:
    """A recipe: both passes of `medtl check` up to the pixels."""
    path = Path("recipe.yaml")
    path.write_text(dump_yaml(recipe), encoding="utf-8")
    prepared = read_study(read_recipe(path))
    flags = list(prepared.manifest.notes)
    return {
        "outcome": "accept_flag" if flags else "accept",
        "flags": flags,
        "rows": len(prepared.manifest.cases),
        "recipe": prepared.recipe.to_dict(),
    }


def check_configuration(kind: Kind, corpus: Path) -> Result:
    """A configuration file: read as it is, then with its keys mapped to those of a recipe."""
    given = load_yaml(corpus / kind["inputs"][0])
    recipe = {name: dict(section) for name, section in RECIPE.items()}
    classes: list[str] = []
    for section, keys in given.items():
        if not isinstance(keys, dict):
            recipe[section] = keys
            continue
        for key, value in keys.items():
            if (section, key) == ("model", "num_classes") and isinstance(value, int):
                recipe["data"]["classes"] = [str(number) for number in range(value)]
            elif (section, key) == ("data", "classes") and isinstance(value, list):
                classes = value
            elif (section, key) != ("data", "root"):
                place(recipe, KEYS.get((section, key), f"{section}.{key}"), value)
    write_study_of(classes)
    result = check_recipe(recipe)
    rate = result["recipe"]["finetune"]["stages"][0]["lr"]["head"]
    return {**result, "message": f"lr is the number {rate}"}


def place(recipe: dict[str, Any], dotted: str, value: Any) -> None:
    """Set a value at "section.key" or "section.list.0.key"."""
    *sections, last = dotted.split(".")
    inner: Any = recipe
    for section in sections:
        inner = inner[int(section)] if isinstance(inner, list) else inner.setdefault(section, {})
    inner[last] = value


def write_study_of(classes: Sequence[Any]) -> None:
    """Write the manifest that the corpus's configurations speak of: two classes, by number."""
    rows = [("image", "patient_id", "label")]
    for number in range(24):
        pixels = np.random.default_rng(number).integers(0, 255, (32, 32), dtype=np.uint8)
        Pillow.fromarray(pixels).save(f"{number}.png")
        rows.append((f"{number}.png", f"P{number}", str(number % 2)))
    with open("manifest.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    meanings = {str(number): str(name) for number, name in enumerate(classes)}
    Path("manifest.yaml").write_text(dump_yaml({"labels": meanings}), encoding="utf-8")


def load_weights(kind: Kind, corpus: Path) -> Result:
    """Foreign weights for the corpus's network: a convolution and two classes."""
    path = corpus / kind["inputs"][0]
    network = nn.ModuleDict({"conv": nn.Conv2d(1, 4, 3), "fc": nn.Linear(4, 2)})
    load_exactly(network, read_tensors(path), path.name)
    return {"outcome": "accept"}


def extract(kind: Kind, corpus: Path) -> Result:
    """An archive of images: what `medtl init` says of it."""
    discover(corpus / kind["inputs"][0])
    return {"outcome": "accept"}


FAMILIES: Mapping[str, Callable[[Kind, Path], Result]] = {
    "dicom": read,
    "series": read,
    "nifti": read,
    "image": read,
    "csv": check_table,
    "yaml": check_configuration,
    "checkpoint": load_weights,
    "archive": extract,
}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))

"""Facts that a run keeps besides its results: environment, cohort, data quality."""

from __future__ import annotations

import csv
import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import medtl
from medtl.errors import MedtlError, RunError
from medtl.recipe.schema import parse_recipe
from medtl.run.files import RunFiles
from medtl.storage.atomic import read_json, sha256_file, write_bytes, write_json
from medtl.storage.yaml import load_yaml
from medtl.types import SPLITS, Case

if TYPE_CHECKING:
    from medtl.data.reader import ReadRecord
    from medtl.report.render import Records
    from medtl.tasks.protocols import Task

RECORDED = ("torch", "torchvision", "timm", "numpy", "pydicom", "pandas", "scikit-learn")
"""Packages whose version can change a number."""


def environment(
    seed: int, hashes: Mapping[str, str], precision: str, device: str
) -> dict[str, Any]:
    """Return what the numbers depend on besides recipe and data; no host, user or path.

    Args:
        seed: Of the run.
        hashes: Name -> hash of recipe, manifest, split and weights.
        precision: Of the forward passes.
        device: Kind of device.
    """
    import torch

    return {
        "medtl": medtl.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "device": device,
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "precision": precision,
        "seed": seed,
        "versions": {name: metadata.version(name) for name in RECORDED},
        **hashes,
    }


def check_installation() -> Iterator[str]:
    """Yield versions, hardware, and whether torch, torchvision and timm fit together.

    Raises:
        MedtlError: When timm cannot be imported, which a torch without its torchvision causes.
    """
    yield f"medtl {medtl.__version__}, Python {platform.python_version()}, {platform.machine()}"
    for name in RECORDED:
        yield f"  {name} {_version_of(name)}"
    try:
        import torch
    except ModuleNotFoundError:  # the core alone, which is an installation too
        return
    try:
        import timm  # noqa: F401
    except (ImportError, RuntimeError) as error:
        raise MedtlError(
            "timm cannot be imported",
            expected="torch and torchvision of one release pair",
            fix="Install both with the constraints file: see the Makefile",
        ) from error
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    yield f"GPU: {gpu}"
    instructions = torch.backends.cpu.get_cpu_capability()
    yield f"CPU: {torch.get_num_threads()} threads, {instructions}"


def _version_of(distribution: str) -> str:
    """The installed version, or what to install."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed: pip install 'medtl[train]'"


def data_quality(cases: Sequence[Case], records: Sequence[ReadRecord]) -> dict[str, Any]:
    """Return the images that were odd, and those that could not be read.

    Args:
        cases: All cases of the study.
        records: One per case.
    """
    splits = {case.case_id: case.split for case in cases}
    flagged = [r for r in records if r.flags]
    return {
        "cases": [
            {"case_id": r.case_id, "split": splits[r.case_id], "flags": list(r.flags)}
            for r in flagged
        ],
        "quarantined": [
            {"case_id": r.case_id, "split": splits[r.case_id], "cause": r.cause}
            for r in records
            if r.cause
        ],
        "counts": dict(Counter(flag for r in flagged for flag in r.flags)),
        "n_images": len(records),
    }


def cohort(
    cases: Sequence[Case],
    task: Task,
    *,
    excluded: Mapping[str, int],
    manifest_sha256: str,
    split_hash: str,
    notes: Sequence[str],
    devices: bool = False,
) -> dict[str, Any]:
    """Return images, patients, labels, age, sex and other groups of each split.

    Args:
        cases: The cases that were used.
        task: Counts the labels.
        excluded: Reason -> number of images left out.
        manifest_sha256: Of the table.
        split_hash: Of the assignment of patients to splits.
        notes: What was decided while reading the manifest.
        devices: Whether makers, devices and years are read from DICOM headers.
    """
    by_split = {name: [case for case in cases if case.split == name] for name in SPLITS}
    return {
        "splits": {name: _describe(part, task, devices) for name, part in by_split.items()},
        "excluded": [{"reason": reason, "n": n} for reason, n in excluded.items()],
        "manifest_sha256": manifest_sha256,
        "split_hash": split_hash,
        "notes": list(notes),
    }


def keep_learning(files: RunFiles, learning: Mapping[str, Any] | None) -> None:
    """Write down from what a run learns besides its labels, once and for all.

    Args:
        files: Of the run.
        learning: JSON types; None where it learns from its labels alone.

    Raises:
        RunError: When the run was started with another teacher, or other images without labels.
    """
    if learning is None:
        return
    before = read_json(files.learning) if files.learning.is_file() else learning
    differing = sorted(name for name in learning if learning[name] != before.get(name))
    if differing:
        raise RunError(
            f"what the run learns from has changed since it was started ({', '.join(differing)})",
            where=str(files.folder),
            fix="Restore it, or start again with another --out",
        )
    write_json(files.learning, dict(learning))


MOST_LEVELS = 12
"""A column with more values than this is not counted value by value."""


def _describe(cases: Sequence[Case], task: Task, devices: bool) -> dict[str, Any]:
    """One split in numbers."""
    facts: dict[str, Any] = {
        "images": len(cases),
        "patients": len({case.patient_id for case in cases}),
        "labels": task.tally(cases),
    }
    ages = [float(text) for case in cases if (text := case.strata.get("age", "")).isdigit()]
    if ages:
        low, median, high = np.percentile(ages, (25, 50, 75))
        facts["age"] = f"{median:.0f} ({low:.0f}-{high:.0f})"
        facts["age_known"] = len(ages)
    sexes = Counter(case.strata.get("sex", "") or "unknown" for case in cases)
    if set(sexes) != {"unknown"}:
        facts["sex"] = dict(sorted(sexes.items()))
    columns = dict.fromkeys(column for case in cases for column in case.strata)
    for column in sorted(columns.keys() - {"age", "sex", *facts}):
        levels = Counter(case.strata.get(column, "") or "unknown" for case in cases)
        if set(levels) != {"unknown"} and len(levels) <= MOST_LEVELS:
            facts[column] = dict(sorted(levels.items()))
    if not devices:
        return facts
    from medtl.cases.intake.devices import device_facts  # pydicom, which a prediction may not need

    return facts | device_facts(case.image for case in cases)


def history_rows(file: Path) -> list[dict[str, str]]:
    """Return the rows of a `history.csv` with their cells as they were written."""
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def report_records(files: RunFiles) -> Records:
    """Return what a run's folder holds for its report besides its measures and recipe.

    What is not there is None.
    """

    def content(file: Path) -> Any:
        return read_json(file) if file.is_file() else None

    return {
        "history": history_rows(files.history) if files.history.is_file() else None,
        "layers": content(files.layers),
        "learning": content(files.learning),
        "sanity": content(files.sanity),
        "shortcuts": content(files.shortcuts),
        "curve": content(files.curve),
        "forgetting": content(files.forgetting),
        "stress": files.stress,
        "gallery": files.gallery,
        "cohort": content(files.cohort),
        "data_quality": content(files.quality),
        "recipe_text": files.recipe.read_text("utf-8") if files.recipe.is_file() else None,
        "environment": content(files.environment),
    }


def adopt_study(run: RunFiles, study: Path) -> list[str]:
    """Copy what a study says of a run or its recipe into the run's folder, for its report.

    Args:
        run: Of the run.
        study: A folder of `medtl study shortcuts`, `learning-curve` or `forgetting`, or of
            `medtl stress`.

    Returns:
        Names of the files, or of the folder.

    Raises:
        RunError: When the study has not ended, or is one of another recipe or network.
    """
    own, theirs = RunFiles(run.folder), RunFiles(study)
    if (study / "robustness.json").is_file():
        _refuse_other_network(own, read_json(study / "robustness.json"), study)
        _adopt_stress(own.stress, study)
        return [own.stress.name]
    names = ("shortcuts", "curve", "forgetting")
    there = [name for name in names if getattr(theirs, name).is_file()]
    if not there:
        raise RunError(
            "the folder holds no finding of a study",
            expected=", ".join(getattr(theirs, name).name for name in names),
            where=study.name,
            fix="Name a finished folder of medtl study shortcuts, learning-curve or forgetting, or "
            "of medtl stress",
        )
    if there == ["forgetting"]:
        _refuse_other_network(own, read_json(theirs.forgetting), study)
    else:
        _refuse_other_recipe(own, theirs, study)
    for name in there:
        write_json(getattr(own, name), read_json(getattr(theirs, name)))
    return [getattr(own, name).name for name in there]


def _adopt_stress(own: Path, study: Path) -> None:
    """Copy a stress test, its pictures before the numbers that name them."""
    (own / "pictures").mkdir(parents=True, exist_ok=True)
    for picture in sorted((study / "pictures").glob("*.jpg")):
        write_bytes(own / "pictures" / picture.name, picture.read_bytes())
    write_json(own / "robustness.json", read_json(study / "robustness.json"))


def _refuse_other_network(own: RunFiles, found: Mapping[str, Any], study: Path) -> None:
    """Refuse what was found of another tuned network than the run's."""
    if not own.best.is_file() or sha256_file(own.best) != found["tuned_sha256"]:
        raise RunError(
            f"the study is one of another network, that of {found['tuned']}",
            where=study.name,
            fix="Name a folder of medtl study forgetting or of medtl stress made with this run",
        )


def _refuse_other_recipe(own: RunFiles, theirs: RunFiles, study: Path) -> None:
    """Refuse what was found of another recipe than the run's."""
    plan = study / "plan.json"
    stored = load_yaml(theirs.recipe) if theirs.recipe.is_file() else read_json(plan)["recipe"]
    asked, ours = (
        parse_recipe(data, where=study.name).to_dict() for data in (stored, load_yaml(own.recipe))
    )
    for part in (asked, ours):
        part["data"] = {k: v for k, v in part["data"].items() if k not in ("split", "manifest")}
    differing = [k for k in ("data", "image", "model", "task", "finetune") if asked[k] != ours[k]]
    if differing:
        raise RunError(
            f"the study is one of another recipe ({', '.join(differing)})",
            where=study.name,
            fix="Name a study of the recipe that this run was made from",
        )

"""Read a recipe and find all its faults at once, without importing torch."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from medtl.cases.columns import Columns
from medtl.cases.labels import FINDING_CELLS, label_faults, meaning_faults, soft_faults
from medtl.cases.manifest import manifest_columns, read_manifest
from medtl.cases.spellings import folded
from medtl.errors import ManifestError, MedtlError, RecipeError
from medtl.losses.distillation import Distillation
from medtl.losses.mixmatch import FromUnlabelled
from medtl.networks.names import FEATURES, VOLUME_NETWORKS, backbone_names
from medtl.networks.pretrained.cards import all_cards, bundled_cards
from medtl.preprocess.intensity import WINDOWS
from medtl.preprocess.policy import policy_faults
from medtl.recipe.overrides import read_data
from medtl.recipe.schema import Recipe, parse_recipe
from medtl.storage.tables import read_table
from medtl.storage.yaml import scalar
from medtl.types import SPLITS, Case

OF_LABELS = ("classification",)
"""Kinds of task whose target columns hold labels; the first is that of a recipe that names none."""


def read_recipe(path: str | PathLike[str], overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe of a file with the command line's changes, after the first pass.

    Args:
        path: The YAML file. Paths inside it are relative to its folder.
        overrides: "key.key=value" with values in YAML; paths are relative to the current folder.

    Raises:
        RecipeError: With every fault of schema, files, columns, labels, leaks and names.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     _ = Path(folder, "study.yaml").write_text("study: {question: Is it there?}")
        ...     read_recipe(Path(folder, "study.yaml"))
        Traceback (most recent call last):
        medtl.errors.RecipeError: study.yaml: 2 faults
          - data: this key is missing. Add it.
          - image: this key is missing. Add it.
    """
    path = Path(path)
    return check_recipe(read_data(path, overrides), where=path.name)


def check_recipe(data: Mapping[str, Any], *, where: str = "recipe") -> Recipe:
    """Return the recipe of plain data, after the first pass.

    Args:
        data: What a recipe file holds, its paths absolute.
        where: The recipe's file name, for messages.

    Raises:
        RecipeError: With every fault of schema, files, columns, labels, leaks and names.
    """
    faults: list[MedtlError] = []
    recipe: Recipe | None = None
    try:
        recipe = parse_recipe(data, where=where)
    except RecipeError as error:
        faults += error.faults
    faults += _manifest_faults(data)
    faults += _name_faults(data)
    if recipe is not None:
        faults += _stage_faults(recipe)
        faults += _augmentation_faults(recipe)
        faults += _learning_faults(recipe)
    if faults or recipe is None:
        raise RecipeError(faults, where=where)
    return recipe


def _manifest_faults(data: Mapping[str, Any]) -> list[MedtlError]:
    """Faults of the manifest named by raw recipe data: file, columns, rows, labels, leaks."""
    section = data.get("data")
    if not isinstance(section, dict) or not isinstance(section.get("manifest"), str):
        return []
    path = Path(section["manifest"])
    columns = Columns.of(section)
    try:
        present = columns.known_names(manifest_columns(path))
    except MedtlError as error:
        return [error]
    faults: list[MedtlError] = [
        _unknown(name, present, where=f"data.{key}", what="column")
        for key, names in columns.missing_from(present).items()
        for name in names
    ]
    known = columns.within(present)
    try:
        manifest = read_manifest(path, known)
    except MedtlError as error:
        return [*faults, error]
    spec = data.get("task")
    if isinstance(spec, dict) and spec.get("kind", OF_LABELS[0]) not in OF_LABELS:
        return faults
    if len({case.patient_id for case in manifest.cases}) < len(SPLITS):
        faults.append(
            ManifestError(
                f"too few rows to divide ({len(manifest.cases)})",
                expected=f"at least {len(SPLITS)} patients, one for each of {', '.join(SPLITS)}",
                where="data.manifest",
                fix="Add patients",
            )
        )
    if known.soft:
        return faults + [f for name in known.targets for f in soft_faults(manifest.cases, name)]
    study = data.get("study")
    if isinstance(study, dict) and isinstance(study.get("prevalence"), (int, float)):
        faults += _prevalence_faults(manifest.cases, known.targets, section)
    of_labels = _label_faults(manifest.cases, known.targets, section)
    return [*faults, *_word_faults(path, known, bool(of_labels)), *of_labels]


def _word_faults(path: Path, columns: Columns, is_unclear: bool) -> list[MedtlError]:
    """Words of `data.labels` that no cell holds, where that decides what is learned.

    A list of words may be longer than one table needs; but where no word for "present" occurs, or
    the cells cannot be read as labels, a word that is nowhere is the one to look at.
    """
    words = [word for word in columns.meanings if word]
    if not words or columns.listed_in is not None:
        return []
    table = read_table(path)
    names = columns.raters if len(columns.raters) > 1 else columns.targets
    places = [table.columns.index(name) for name in names if name in table.columns]
    cells = sorted({row[place].strip() for row in table.rows for place in places} - {""})
    known = {*map(folded, cells)}
    unused = [word for word in words if folded(word) not in known]
    positive = [word for word in words if columns.meanings[word] == "1"]
    if not (is_unclear or (positive and {*positive} <= {*unused})):
        return []
    return [_unknown(word, cells, where="data.labels", what="value") for word in unused]


def _label_faults(
    cases: Sequence[Case], targets: Sequence[str], section: Mapping[str, Any]
) -> list[MedtlError]:
    """Faults of the label columns: one value only, a positive or a label that is not there."""
    faults: list[MedtlError] = []
    for target in targets:
        counts = Counter(case.targets.get(target, "").strip() for case in cases)
        if len({*counts} - {"", "-1"}) < 2:
            faults.append(_one_value(target, counts))
        classes = section.get("classes")
        if not (isinstance(classes, list) and all(isinstance(one, str) for one in classes)):
            classes = ()  # the schema says what is wrong with others
        strangers = label_faults(cases, target, classes)
        faults += strangers or meaning_faults(
            cases, target, positive=section.get("positive"), classes=classes
        )
    positive = section.get("positive")
    if len(targets) == 1 and isinstance(positive, str):
        words = sorted({case.targets.get(targets[0], "").strip() for case in cases} - {""})
        if positive not in words:
            faults.append(_unknown(positive, words, where="data.positive", what="value"))
    for key in ("uncertain", "names"):
        by_target = section.get(key)
        if isinstance(by_target, dict):
            faults += [
                _unknown(column, list(targets), where=f"data.{key}", what="target")
                for column in by_target
                if column not in targets
            ]
    return faults


def _one_value(target: str, counts: Mapping[str, int]) -> ManifestError:
    """The fault of a label column that says one thing alone, and what else it may have meant."""
    said = [value for value in counts if value not in ("", "-1")]
    fix = "There is nothing to learn from it; choose another column"
    if said and len(counts) > 1:
        absent = "-1" if "-1" in counts else ""
        read = "-1 is read as uncertain" if absent else "An empty cell is no label"
        meant = f"data.labels: {{{scalar(said[0])}: 1, {scalar(absent)}: 0}}"
        fix = f"{read}; if it means absent, state {meant}"
    held = ", ".join(f"{value or '(empty)'} {count} times" for value, count in counts.items())
    return ManifestError(
        f"column {target!r} holds one value only ({held})",
        expected="at least two",
        where="data.target",
        fix=fix,
    )


def _prevalence_faults(
    cases: Sequence[Case], targets: Sequence[str], section: Mapping[str, Any]
) -> list[MedtlError]:
    """One prevalence stated for several classes that exclude each other."""
    if len(targets) != 1 or section.get("positive") is not None:
        return []
    values = {case.targets.get(targets[0], "").strip() for case in cases} - {""}
    if len(values) < 3 or values <= FINDING_CELLS:
        return []
    return [
        MedtlError(
            f"one prevalence for {len(values)} classes",
            expected="none, because it belongs to one finding",
            where="study.prevalence",
            fix="State one for each class, {NAME: 0.01}, or study one class with data.positive",
        )
    ]


def _name_faults(data: Mapping[str, Any]) -> list[MedtlError]:
    """Faults of names that are looked up in lists: backbone, weights, window."""
    faults: list[MedtlError] = []
    section = data.get("model")
    model = section if isinstance(section, dict) else {}
    first = next(iter(bundled_cards()))
    weights = model.get("weights", "bundled")
    stated = weights if isinstance(weights, dict) else {"source": weights}
    card = all_cards().get(str(stated.get("card")))
    backbone = model.get("backbone", first if card is None else card.backbone)
    source = stated.get("source", "file" if "path" in stated else "bundled")
    # "resnet50.a1_in1k" is an architecture with a tag of weights.
    architecture = backbone.partition(".")[0] if isinstance(backbone, str) else first
    image = data.get("image")
    is_of_volumes = isinstance(image, dict) and image.get("spacing") is not None
    names = VOLUME_NETWORKS if is_of_volumes else backbone_names()
    if backbone == FEATURES:
        return faults
    if architecture not in names:
        faults.append(_unknown(backbone, names, where="model.backbone", what="backbone"))
    elif source == "bundled" and architecture not in bundled_cards():
        faults.append(
            MedtlError(
                f"no weights of {backbone} come with the installation",
                expected=f"backbone {' or '.join(bundled_cards())}, or weights from elsewhere",
                where="model.weights",
                fix="State weights: {source: file, path: ...}, timm (downloads them) or none",
            )
        )
    if isinstance(stated.get("path"), str):
        path = Path(stated["path"])
        if not path.is_file():
            faults.append(MedtlError(f"no file {path.name!r}", where="model.weights.path"))
    window = image.get("window") if isinstance(image, dict) else None
    if isinstance(window, str) and window not in WINDOWS:
        faults.append(_unknown(window, list(WINDOWS), where="image.window", what="window"))
    return faults


def _stage_faults(recipe: Recipe) -> list[MedtlError]:
    """Stages that train layers below the head without a rate, or freeze random ones."""
    spec, weights = recipe.finetune, recipe.model.weights
    is_random = recipe.model.is_random and not weights.random_features
    frozen = [
        MedtlError(
            f"the first stage, {stage.name!r}, freezes layers of random weights",
            expected="a first stage that trains all layers, or weights",
            where="finetune.stages.0.train",
            fix="Write train: all, or weights: bundled; for a control of random features, "
            "model.weights: {source: none, random_features: true}",
        )
        for stage in spec.stages[:1]
        if is_random and spec.preset is None and stage.selector == "head"
    ]
    return frozen + [
        MedtlError(
            "layers below the head train but lr.base is missing",
            where=f"finetune.stages.{number}.lr",
            fix="State lr: {head: ..., base: ...}",
        )
        for number, stage in enumerate(recipe.finetune.stages)
        if "base" not in stage.lr and stage.selector != "head"
    ]


def _augmentation_faults(recipe: Recipe) -> list[MedtlError]:
    """Transforms that the safety table refuses for this modality."""
    spec = recipe.augment
    return policy_faults(
        recipe.image.modality,
        transforms=spec.transforms,
        probability=spec.probability,
        i_know=spec.i_know,
    )


def _learning_faults(recipe: Recipe) -> list[MedtlError]:
    """A teacher, or images without labels, that are not there; images that have no two views."""
    learn = recipe.finetune.learn
    if isinstance(learn, Distillation) and not Path(learn.teacher).is_dir():
        found, where = f"no folder {Path(learn.teacher).name!r}", "finetune.learn.teacher"
        return [MedtlError(found, expected="a run, or a study of folds", where=where)]
    if not isinstance(learn, FromUnlabelled):
        return []
    faults = []
    if not Path(learn.unlabelled).is_file():
        found, where = f"no file {Path(learn.unlabelled).name!r}", "finetune.learn.unlabelled"
        faults.append(MedtlError(found, expected="a manifest of images", where=where))
    if recipe.augment.policy == "none" or recipe.image.spacing is not None:
        what = "volumes" if recipe.image.spacing else "images that are not augmented"
        fix = "Leave it out" if recipe.image.spacing else "State augment.policy: safe"
        found = f"{learn.method} learns views of pictures, and the recipe has {what}"
        faults.append(MedtlError(found, where="finetune.learn", fix=fix))
    return faults


def _unknown(name: str, valid: Sequence[str], *, where: str, what: str) -> MedtlError:
    """An error for a name that is not in a list, with the nearest that is."""
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.4)
    if near:
        return MedtlError(f"no {what} {name!r}", where=where, fix=f"Did you mean {near[0]!r}?")
    shown = ", ".join(list(valid)[:12]) + (", ..." if len(valid) > 12 else "")
    return MedtlError(f"no {what} {name!r}", expected=f"one of {shown}", where=where)

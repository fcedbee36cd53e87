"""`medtl init`: from a user's own data to a manifest and a short recipe that can be checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medtl.cases.discover import Discovery, discover
from medtl.cases.manifest import write_manifest
from medtl.errors import MedtlError, RunError
from medtl.run.check import read_recipe
from medtl.storage.atomic import write_text
from medtl.storage.yaml import dump_yaml

NEGATIVE_WORDS = ("normal", "no_finding", "negative", "healthy", "control", "benign", "none", "no")
"""Names of classes that are the absence of a finding."""

KINDS = {
    "folders": "one folder per class",
    "csv": "listed in a table",
    "dicom": "DICOM headers were scanned",
}

RECIPE = """\
# Made by `medtl init`. Every other setting has a default; `medtl check` shows them at work.
study:
  question: {question}
  operating_point: {{sensitivity: 0.90}}
data:
  manifest: {manifest}
  target: {target}
{choices}image: {{modality: {modality}, size: 224}}
model: {{backbone: tf_efficientnet_lite0, weights: bundled}}
task: {{kind: classification}}
"""


def write_starter(data: Path, out: Path, *, target: str | None, modality: str) -> Iterator[str]:
    """Write `OUT/recipe.yaml`, and a manifest beside the data unless there is one.

    The manifest lies at the top of the data folder, because its paths are relative to it and never
    leave it.

    Args:
        data: A folder of images by class, a table, or a DICOM folder.
        out: Folder for the recipe.
        target: Column to learn; None takes the one that was recognised.
        modality: Of the images, for intensity and safe augmentation.

    Yields:
        What was found, decided and is left for the user to state.

    Raises:
        ManifestError: When nothing usable is found. RunError: When a file would be overwritten.
    """
    found = discover(data)
    recipe = out / "recipe.yaml"
    if recipe.exists():
        raise RunError("there is a recipe already", where=str(recipe), fix="Choose another --out")
    target = target or found.target
    out.mkdir(parents=True, exist_ok=True)
    yield f"Found {len(found.rows)} images: {KINDS[found.kind]}"
    yield from found.notes
    manifest = _write_manifest(found)
    yield f"Manifest: {manifest}"
    if target is None:
        columns = ", ".join(found.rows[0])
        raise RunError(
            "no column was recognised as the target",
            expected=f"one of {columns}",
            where=manifest.name,
            fix="Say which one to learn with --target",
        )
    text = RECIPE.format(
        question=_scalar(f"Is {target} present?"),
        manifest=_scalar(str(manifest.resolve())),
        target=_scalar(target),
        choices="".join(f"  {line}\n" for line in _choices(found, target)),
        modality=modality,
    )
    write_text(recipe, text)
    yield f"Recipe: {recipe}"
    try:
        read_recipe(recipe)
    except MedtlError as error:
        yield str(error)
        yield f"Complete the recipe, then: medtl check {recipe}"
    else:
        yield f"Next: medtl check {recipe}"


def _write_manifest(found: Discovery) -> Path:
    """The manifest of the data: the table itself, or a new one at the top of the folder."""
    if found.table is not None:
        return found.table
    path = found.root / "manifest.csv"
    if path.exists():
        raise RunError(
            "there is a manifest already",
            where=str(path),
            fix=f"Use it: medtl init {path} --out ..., or move it away",
        )
    write_manifest(found.rows, path)
    return path


def _choices(found: Discovery, target: str) -> list[str]:
    """Lines of the data section that depend on what was found."""
    lines = []
    values = sorted({row.get(target, "") for row in found.rows} - {""})
    if len(values) == 2 and not set(values) <= {"0", "1"}:
        findings = [v for v in values if v.lower().replace(" ", "_") not in NEGATIVE_WORDS]
        positive = findings[0] if len(findings) == 1 else values[-1]
        lines.append(f"positive: {_scalar(positive)}    # the class that counts as the finding")
    if "patient_id" not in found.rows[0]:
        lines.append(
            "one_image_per_patient: false    # no patient_id column: say true only if it is"
        )
    if found.kind == "dicom":
        lines.append("ids: pseudonymous    # the scan has replaced them")
    return lines


def _scalar(text: str) -> str:
    """A text as it must be written in YAML."""
    return dump_yaml({"x": text}).partition(":")[2].strip()

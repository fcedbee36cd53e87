"""`medtl init`: from a user's own data to a manifest and a short recipe that can be checked."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medtl.cases.columns import Where
from medtl.cases.intake.discover import NO_PATIENTS, Discovery, discover
from medtl.cases.intake.joining import join_sheet
from medtl.cases.labels import FINDING_CELLS, listed_findings
from medtl.cases.manifest import write_manifest
from medtl.cases.polarity import is_absence, is_presence, meanings_of
from medtl.cases.spellings import folded
from medtl.errors import ManifestError, MedtlError, RunError
from medtl.run.check import read_recipe
from medtl.storage.atomic import write_text
from medtl.storage.tables import nearest, raise_together, read_table
from medtl.storage.yaml import scalar

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
{choices}image: {{modality: {modality}, size: 224}}
model: {{backbone: tf_efficientnet_lite0, weights: bundled}}
task: {{kind: classification}}
finetune:
  ema_decay: 0.95           # weights averaged over about 20 steps are validated and kept
{mix}  stages:                   # short: more steps make scores surer, not better
{stages}"""

MIX = {"cxr": "  mix: {mixup: 0.2}         # scores that may be read as probabilities\n"}
"""Modality -> mixtures of images, where they have been measured."""

STAGES = (
    ("name: head, train: head", 3, "lr: 3e-3"),
    ('name: top, train: [head, "last:3"]', 5, "lr: {head: 1e-3, base: 5e-4}, warmup_epochs: 1"),
    ("name: full, train: all", 3, "lr: {head: 3e-4, base: 1e-4}, warmup_epochs: 1"),
)
"""The stages of `pipelines/chest_xray.yaml`: what is trained, epochs, rates."""

STEPS = 17
"""Steps of an epoch for which those were chosen; shorter epochs are more of them."""

IMAGES_A_STEP = 32 / 0.7
"""Batches of the training part, as a recipe divides the images by default."""

NO_LABEL = frozenset({"nan", "na", "n/a", "#n/a", "null", "missing", "?", "unknown"})
"""Values that may say that there is no label."""

NAMELESS = frozenset({"label", "class", "target"})
"""Columns whose name is none of a finding: of class folders, and of tables."""

_MEASURE = re.compile(r"[-+]?\d+([.,]\d+)?\s?%|[-+]?\d*[.,]\d*[1-9]\d*")
"""A share in percent, or a number with a fraction."""

_MOST_WORDS = 50
"""More different values of a target are numbers, or no labels."""


@dataclass(frozen=True)
class Answers:
    """What a user says of their data beforehand.

    Attributes:
        target: Column to learn; None takes the one that was recognised.
        positive: Its value that is the finding.
        labels: A sheet whose rows belong to the images of the folder.
        key: The sheet's column that says which image or patient a row is about.
        match: What of the images that column holds ("accession number"), if several fit.
        where: Which rows to take, "view in [AP, PA]".
        modality: Of the images, for intensity and safe augmentation.
        unlabelled: List the images without a row of the sheet in a manifest of their own.
    """

    target: str | None = None
    positive: str | None = None
    labels: Path | None = None
    key: str | None = None
    match: str | None = None
    where: str | None = None
    modality: str = "cxr"
    unlabelled: bool = False


def write_starter(data: Path, out: Path, answers: Answers = Answers()) -> Iterator[str]:
    """Write `OUT/recipe.yaml`, and `OUT/manifest.csv` unless the data are a table already.

    `OUT/unlabelled.csv` lists the images without a row of the sheet, if they are asked for.

    Nothing is written into the folder of the images. Nothing is written at all while it is not
    certain which value is the finding.

    Args:
        data: A folder of images by class, a table, or a DICOM folder.
        out: Folder for recipe and manifest.
        answers: What the user says.

    Yields:
        What was found, decided and is left for the user to state.

    Raises:
        ManifestError: When nothing usable is found, the sheet cannot be joined, or nothing says
            which value is the finding. RunError: When a file would be overwritten.
    """
    recipe = out / "recipe.yaml"
    if recipe.exists():
        raise RunError("there is a recipe already", where=str(recipe), fix="Choose another --out")
    found = discover(data, has_sheet=answers.labels is not None)
    others: list[dict[str, str]] = []
    if answers.labels is not None:
        found, others = _joined(found, answers.labels, answers)
    if answers.unlabelled:
        others = _of_other_patients(others, found.rows, answers)
    yield f"Found {len(found.rows)} images: {KINDS[found.kind]}"
    yield from found.notes
    target = _target(found, answers.target)
    choices = [*_label_lines(found, target, answers.positive), *_id_lines(found)]
    if answers.where:
        choices.append(f"where: {scalar(answers.where)}")
    out.mkdir(parents=True, exist_ok=True)
    images = None if out.samefile(found.root) else {"images": str(found.root.resolve())}
    manifest = found.table
    if manifest is None:
        manifest = out / "manifest.csv"
        write_manifest(found.rows, manifest, images)
    yield f"Manifest: {manifest}"
    if answers.unlabelled:
        write_manifest(others, out / "unlabelled.csv", images)
        yield f"Without labels: {len(others)} images of other patients: {out / 'unlabelled.csv'}"
    text = RECIPE.format(
        question=scalar(f"Is {target} present?"),
        manifest=scalar(str(manifest.resolve())),
        choices="".join(f"  {line}\n" for line in choices),
        modality=answers.modality,
        mix=MIX.get(answers.modality, ""),
        stages=stage_lines(len(found.rows)),
    )
    yield from (f"Recipe: {line}" for line in choices)
    write_text(recipe, text)
    yield f"Recipe: {recipe}"
    try:
        read_recipe(recipe)
    except MedtlError as error:
        yield str(error)
        yield f"Complete the recipe, then: medtl check {recipe}"
    else:
        yield f"Next: medtl check {recipe}"


def stage_lines(images: int) -> str:
    """Return the stages as lines of a recipe.

    A stage of few images, whose epochs are short, does not end early after a few steps.

    >>> print(stage_lines(60).splitlines()[0])
        - {name: head, train: head, epochs: 24, lr: 3e-3, patience: 40}
    """
    times = max(1, round(STEPS / math.ceil(images / IMAGES_A_STEP)))
    patience = f", patience: {max(epochs for _, epochs, _ in STAGES) * times}" if times > 1 else ""
    return "".join(
        f"    - {{{what}, epochs: {epochs * times}, {rates}{patience}}}\n"
        for what, epochs, rates in STAGES
    )


def _joined(
    found: Discovery, sheet: Path, answers: Answers
) -> tuple[Discovery, list[dict[str, str]]]:
    """The images that a row of the sheet is about, with their target; and the other images."""
    table = read_table(sheet)
    raise_together(table.faults, sheet.name)
    for option, name in (("--key", answers.key), ("--target", answers.target)):
        if name not in table.columns:
            near = nearest(name or "", table.columns)
            raise ManifestError(
                f"no column '{name}'" if name else f"{option} is not stated",
                expected=f"one of: {', '.join(table.columns)}",
                where=sheet.name,
                fix=f"Did you mean {option} '{near}'?" if near else f"Name it with {option}",
            )
    assert answers.key is not None
    assert answers.target is not None
    index = {name: i for i, name in enumerate(table.columns)}
    keys = [row[index[answers.key]] for row in table.rows]
    join = join_sheet(keys, found.called, column=answers.key, match=answers.match)
    taken, said = {answers.target: index[answers.target]}, [*table.notes, *join.notes]
    answered = ["hold no labels"]
    patient = nearest("patient_id", table.columns, likeness=1.0)
    if patient and "patient_id" not in found.rows[0]:
        taken["patient_id"] = index[patient]
        answered.append(NO_PATIENTS)
        said.append(f"'{patient}' of {sheet.name} says who the patient is")
    rows = tuple(
        {**image, **{name: table.rows[row][place] for name, place in taken.items()}}
        for image, row in zip(found.rows, join.rows, strict=True)
        if row is not None
    )
    others = [dict(image) for image, row in zip(found.rows, join.rows, strict=True) if row is None]
    kept = [note for note in found.notes if not any(one in note for one in answered)]
    return replace(found, rows=rows, target=None, notes=(*kept, *said)), others


def _of_other_patients(
    images: Sequence[dict[str, str]], labelled: Sequence[dict[str, str]], answers: Answers
) -> list[dict[str, str]]:
    """The images of patients of whom no image has a label: any of these may become a test patient.

    Where patients are not known, the study itself refuses images of test patients by their pixels.
    """
    known = {row["patient_id"] for row in labelled if row.get("patient_id")}
    others = [image for image in images if image.get("patient_id") not in known]
    if answers.where:
        rule = Where.parse(answers.where)
        others = [image for image in others if rule.holds(image.get(rule.column, ""))]
    if not others:
        raise ManifestError(
            f"of {len(images)} images without a row none is to be taken",
            expected="images of patients who have no label, joined with a sheet (--labels SHEET)",
            where="--unlabelled",
            fix="Leave --unlabelled out, or look at --where",
        )
    return others


def _target(found: Discovery, stated: str | None) -> str:
    """The column to learn."""
    columns = list(found.rows[0])
    target = stated or found.target
    if target in columns:
        return target
    if target is None and found.called:
        raise RunError(
            "nothing says what to learn",
            expected="a sheet with the labels",
            fix="Join it: --labels SHEET --key COLUMN --target COLUMN. Or write the manifest with "
            "`medtl manifest scan`, add a column to it, and give it to init",
        )
    near = nearest(target or "", columns)
    raise RunError(
        f"no column '{target}'" if target else "no column was recognised as the target",
        expected=f"one of {', '.join(columns)}",
        fix=f"Did you mean --target '{near}'" if near else "Say which one to learn with --target",
    )


def _label_lines(found: Discovery, target: str, positive: str | None) -> list[str]:
    """What the recipe says of the target column, as lines of its section `data`."""
    cells = [row.get(target, "") for row in found.rows]
    values = sorted({*cells} - {""})
    if positive is not None and positive not in values:
        raise ManifestError(
            f"--positive {positive!r} occurs in no row",
            expected=f"one of {', '.join(values[:20])}",
            where=f"column {target!r}",
        )
    _refuse_what_is_no_label(target, cells, values)
    values = _spelled_once(cells, positive)
    line = f"target: {scalar(target)}"
    if none_said := _plain_missing(values, positive):
        return [line, *none_said]
    if FINDING_CELLS.issuperset(values) or len(values) > _MOST_WORDS or len(values) < 2:
        return [line]
    listed = None if positive else listed_findings(values)
    if listed is not None:
        findings = ", ".join(map(scalar, listed[1]))
        said = f"listed_in: {scalar(target)}", f"separator: {scalar(listed[0])}"
        return [f"target: [{findings}]", *said]
    meanings = meanings_of(values, positive)
    if meanings is not None and len(meanings) == 2 and len(values) == len({*cells} - {""}):
        finding = next(iter(meanings))
        named = [line, f"positive: {scalar(finding)}    # the value that is the finding"]
        called = f"names: {{{scalar(target)}: {scalar(target)}}}    # what reports call it"
        return [*named, called] if is_presence(finding) and target not in NAMELESS else named
    if meanings is not None:
        pairs = ", ".join(f"{scalar(word)}: {value}" for word, value in meanings.items())
        return [line, f"labels: {{{pairs}}}    # 1 present, 0 absent, -1 uncertain"]
    if len(values) > 2 and positive is None and not (_have_a_gap(values) or _say_one_thing(values)):
        return [line, f"classes: [{', '.join(map(scalar, values))}]"]
    counts = ", ".join(f"{value!r} ({cells.count(value)})" for value in values)
    numbers = all(value.isdecimal() for value in values)
    quantity = "; for a quantity task: {kind: regression, unit: ...}, or {kind: bone_age}"
    raise ManifestError(
        f"the values are {counts}, and nothing says which one is the finding",
        where=f"column {target!r}",
        fix="Say it: " + " or ".join(f"--positive {scalar(value)}" for value in values)
        if positive is None and len(values) == 2
        else "Write a recipe by hand with data.labels: "
        f"{{{scalar(positive or values[-1])}: 1, ...}}, 1 present, 0 absent, -1 uncertain, "
        "'' no label; or data.classes, if each is a class" + quantity * numbers,
    )


def _refuse_what_is_no_label(target: str, cells: list[str], values: list[str]) -> None:
    """Refuse a column that says nothing, one whose blanks may mean "absent", and measures."""
    blank = sum(not cell for cell in cells)
    where = f"column {target!r}"
    if not values:
        raise ManifestError(
            f"empty in all {len(cells)} rows",
            expected="labels",
            where=where,
            fix="Formulas have results only after the sheet was saved by a spreadsheet program",
        )
    if len(values) == 1 and blank:
        only = scalar(values[0])
        raise ManifestError(
            f"{len(cells) - blank} cells say {values[0]!r} and {blank} say nothing, which may mean "
            "that it is absent, or that nobody looked",
            where=where,
            fix=f"If empty means absent, write 0 into the empty cells (in a recipe of your own: "
            f"data.labels: {{{only}: 1, '': 0}})",
        )
    if len(values) <= _MOST_WORDS and all(map(_MEASURE.fullmatch, values)):
        raise ManifestError(
            f"{len(values)} different numbers from {values[0]!r} to {values[-1]!r}, which are no "
            "classes",
            expected="words, or whole numbers that are grades",
            where=where,
            fix="For a quantity write a recipe with task: {kind: regression, unit: ...}; for "
            "probabilities in [0, 1] state data.soft: true (percent are divided by 100)",
        )


def _say_one_thing(values: list[str]) -> bool:
    """Whether several values may be one: "neg" and "negative", a remark, a question mark."""
    words = [value.casefold().strip() for value in values]
    longer = [(a, b) for a in words for b in words if a != b and b.startswith(a)]
    remarked = any("(" in b[len(a) :] for a, b in longer)
    shortened = any(is_absence(a) and is_absence(b) for a, b in longer)
    return remarked or shortened or any("?" in word for word in words)


def _spelled_once(cells: list[str], positive: str | None) -> list[str]:
    """The different values, each in its commonest spelling, or as it was stated."""
    spellings: dict[str, Counter[str]] = {}
    for cell in filter(None, cells):
        spellings.setdefault(folded(cell), Counter())[cell] += 1
    if positive is not None:
        spellings[folded(positive)] = Counter([positive])
    return sorted(counts.most_common(1)[0][0] for counts in spellings.values())


def _plain_missing(values: list[str], positive: str | None) -> list[str]:
    """What the recipe says where some values say that there is none, beside a certain finding."""
    missing = [value for value in values if value.casefold() in NO_LABEL]
    meanings = meanings_of([v for v in values if v not in missing], positive) if missing else None
    if meanings is None:
        return []
    pairs = ", ".join(f"{scalar(word)}: {value}" for word, value in meanings.items())
    none = ", ".join(f'{scalar(word)}: ""' for word in missing)
    return [
        f"labels: {{{pairs}, {none}}}    # 1 present, 0 absent, -1 uncertain, nothing: no label"
    ]


def _have_a_gap(values: list[str]) -> bool:
    """Whether values are whole numbers that are no grades (0, 1, 9): one may mean "not known"."""
    if not all(value.isdecimal() for value in values):
        return any(value.casefold() in NO_LABEL for value in values)
    numbers = sorted(map(int, values))
    return numbers != list(range(numbers[0], numbers[0] + len(numbers)))


def _id_lines(found: Discovery) -> list[str]:
    """Lines of the data section about patients and ids."""
    lines = []
    if "patient_id" not in found.rows[0]:
        lines.append(
            "one_image_per_patient: false    # no patient_id column: say true only if it is"
        )
    if found.kind == "dicom":
        lines.append("ids: pseudonymous    # the scan has replaced them")
    return lines

"""A release as its YAML file describes it, turned into the rows of a manifest.

Keys of the description: `table` or `rows` (what the rows are), `join`, `let` (columns made before
others use them), `group` (rows that are about one image), `where`, `image`, `mask`, `columns`,
`findings` (a column for each that a cell may list), `manifest` (the sidecar) and `about`.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any

from medtl.cases.case_rows import SPLIT_NAMES
from medtl.cases.columns import Where
from medtl.cases.manifest import write_manifest
from medtl.cases.releases.cells import (
    Maker,
    Oddities,
    ReleasedRow,
    cell_of,
    column_of,
    filled,
    listed,
)
from medtl.cases.releases.made_files import MADE, Imported, array_rows, mask_of
from medtl.cases.releases.sources import (
    JOIN_KEYS,
    SOURCE_KEYS,
    Release,
    find_release,
    joined,
    rows_of,
    texts,
)
from medtl.errors import LeakError, ManifestError, MedtlError
from medtl.storage.tables import nearest, raise_together, rows_text

SPEC_KEYS = (
    *("title", "about", "layout", "table", "rows", "join", "let", "group", "where", "image"),
    *("mask", "columns", "findings", "manifest"),
)
"""Keys of a YAML file that describes a release."""

_FINDING_KEYS = ("from", "separator", "none", "names", "others")

_FEW = 3
"""Missing images that are told row by row are fewer."""


def check_keys(given: Iterable[str], known: Sequence[str], what: str = "") -> None:
    """Raise a `ManifestError` for the first key that is not known, with the nearest that is."""
    odd = [key for key in given if key not in known]
    if odd:
        near = nearest(odd[0], known)
        raise ManifestError(
            f"unknown key '{odd[0]}'{what}",
            expected=", ".join(known),
            fix=f"Did you mean '{near}'?" if near else "Delete it",
        )


def import_described(
    folder: Path, spec: Mapping[str, Any], *, partial: bool = False, where: str | None = None
) -> Imported:
    """Return the rows and the sidecar that a description makes of a release folder.

    Args:
        folder: The release as it was unpacked, or the folder around it.
        spec: The description, its keys checked.
        partial: Whether less than half of the images is enough.
        where: Rows to take, in place of the description's own; "" takes all.

    Raises:
        ManifestError: A table is missing, a value has no meaning, images are missing.
        LeakError: A patient stands in two official splits.
    """
    sources = spec.get("rows") or [{"table": texts(spec.get("table"), "table")}]
    needed = [
        texts(one[key], key)
        for one in sources
        for key in ("table", "files", "arrays")
        if key in one and not one.get("optional")
    ]
    root = find_release(folder, needed)
    if root is None and "rows" in spec:
        raise ManifestError(
            "the folder is not laid out like that: the table or the files are not there",
            expected=", ".join(names[0] for names in needed),
            where=folder.name,
            fix="Check the folder; `medtl manifest layouts NAME` says what a layout expects",
        )
    release = Release(root or folder)
    builder = _Builder(spec, release, where)
    rows = builder.built(sources)
    raise_together(builder.odd.faults(), folder.name)
    rows = builder.with_images(rows, partial=partial)
    raise_together([*builder.odd.faults(), *_split_faults(rows)], folder.name)
    return builder.imported(rows, folder)


@dataclass(frozen=True)
class _Film:
    """An image of a release: its row in the manifest, where it stands, and what is to be drawn."""

    row: dict[str, str]
    source: ReleasedRow
    wanted: str
    is_there: bool
    mask: Maker | None

    @property
    def split(self) -> str:
        """Its official split, "" for none."""
        return self.row.get("split", "")


class _Builder:
    """Builds the rows of a manifest, counting what is odd on the way."""

    def __init__(self, spec: Mapping[str, Any], release: Release, where: str | None) -> None:
        self.spec = spec
        self.release = release
        self.odd = Oddities()
        self.notes: list[str] = []
        stated = spec.get("where", "") if where is None else where
        self.where = Where.parse(stated) if stated else None
        given = spec.get("findings", [])
        self.findings = [given] if isinstance(given, dict) else given
        for rule in self.findings:
            check_keys(rule, _FINDING_KEYS, " of findings")

    def built(self, sources: Sequence[Mapping[str, Any]]) -> list[_Film]:
        """The films that the tables name, whether their files are there or not."""
        rows: list[ReleasedRow] = []
        for source in sources:
            check_keys(source, SOURCE_KEYS, " of rows")
            if "arrays" in source:
                rows += array_rows(self.release, source)
            elif not source.get("optional") or any(
                map(self.release.has, texts(source["table"], ""))
            ):
                rows += rows_of(self.release, source)
        for join in self.spec.get("join", ()):
            check_keys(join, JOIN_KEYS, " of join")
            rows = joined(rows, self.release, join, self.odd)
        for name, rule in self.spec.get("let", {}).items():
            rows = [
                replace(row, cells={**row.cells, name: cell_of(name, rule, [row], self.odd)})
                for row in rows
            ]
        films = [self._film(group) for group in self._groups(rows)]
        if self.where is None:
            return films
        kept, seen = [], Counter[str]()
        for film in films:
            cell = self._filtered(film)
            if self.where.holds(cell):
                kept.append(film)
            else:
                seen[cell or "(empty)"] += 1
        if seen:
            told = ", ".join(f"{cell} {n}" for cell, n in seen.most_common(8))
            self.notes.append(
                f"{sum(seen.values())} images are left out ({self.where.column}: {told}); "
                "--where '' takes all"
            )
        return kept

    def with_images(self, films: Sequence[_Film], *, partial: bool) -> list[_Film]:
        """The films whose image is there; how many are not is said, or stops the import."""
        there = [film for film in films if film.is_there]
        absent = [film for film in films if not film.is_there]
        if not absent:
            return there
        few_of_few = len(absent) < _FEW and len(there) < len(absent)
        if few_of_few and not partial:
            for film in absent:
                self.odd.fault(film.source, f"no image {film.wanted}")
            return []
        lost, held = ({film.wanted for film in some} for some in (absent, there))
        found = f"{len(lost)} of {len(lost | held)} images are not there (first {absent[0].wanted})"
        if not there or (len(held) < len(lost) and not partial):
            fix = f"--partial takes the {len(held)} that are there" if there else "Check the folder"
            raise ManifestError(found, where=self.release.root.name, fix=fix)
        parts, left = (
            Counter(split for _, split in dict.fromkeys((film.wanted, film.split) for film in some))
            for some in (films, there)
        )
        told = ", ".join(f"{part} {left[part]} of {n}" for part, n in parts.items() if part)
        self.notes.append(
            f"partial download: {found}; {len(held)} are taken{f' ({told})' if told else ''}"
        )
        return there

    def imported(self, films: Sequence[_Film], folder: Path) -> Imported:
        """The films as rows of a manifest whose paths start at the folder that the user named."""
        below = self.release.root.relative_to(folder).as_posix()
        prefix = "" if below == "." else f"{below}/"
        if prefix:
            self.notes.insert(0, f"the release lies in {below}")
        made: dict[str, Maker] = {}
        rows = []
        for film in films:
            row = dict(film.row)
            if film.source.picture is None:
                row["image"] = prefix + film.wanted
            else:
                row["image"] = f"{MADE}images/{film.wanted}"
                made[row["image"]] = film.source.picture
            if film.mask is not None:
                name = film.wanted.replace("/", "__").rsplit(".", 1)[0]
                row["mask"] = f"{MADE}masks/{name}.png"
                made[row["mask"]] = film.mask
            elif row.get("mask"):
                row["mask"] = prefix + row["mask"]
            rows.append(row)
        only = {film.split for film in films}
        if len(only) == 1 and "split" in rows[0]:  # then a run makes the parts
            rows = [{name: row[name] for name in row if name != "split"} for row in rows]
            one = f"all images are of the official {min(only)} part: a run makes the parts"
            self.notes.append(one if min(only) else "there is no official split")
        notes = [f"{n} rows {note}" for note, n in self.odd.noted.items()]
        sidecar = dict(self.spec.get("manifest", {}))
        return Imported(tuple(rows), sidecar, (*self.notes, *notes), made)

    def _has(self, source: Mapping[str, Any]) -> bool:
        """Whether the table of a source is there."""
        return any(map(self.release.has, texts(source.get("table"), "table")))

    def _groups(self, rows: Sequence[ReleasedRow]) -> Iterable[Sequence[ReleasedRow]]:
        """The rows that are about one image, together."""
        keys = self.spec.get("group")
        if not keys:
            return [[row] for row in rows]
        groups: dict[tuple[str, ...], list[ReleasedRow]] = defaultdict(list)
        for row in rows:
            groups[tuple(row.cells[column_of(key, row.cells)] for key in keys)].append(row)
        return groups.values()

    def _film(self, rows: Sequence[ReleasedRow]) -> _Film:
        """The image that some rows are about."""
        row = rows[0]
        wanted, found = row.cells.get("file", ""), row.picture is not None
        if not found:
            templates = texts(self.spec.get("image"), "image")
            named = [(one, _slashed(filled(one, row.cells))) for one in templates]
            files = next((f for t, path in named if (f := self.release.found(t, path))), [])
            if len(files) > 1:
                self.odd.fault(row, f"{len(files)} files are called {named[0][1]}")
            wanted, found = (files[0], True) if files else (named[0][1], False)
        cells = {
            name: cell_of(name, rule, rows, self.odd)
            for name, rule in self.spec.get("columns", {}).items()
        }
        for rule in self.findings:
            cells |= self._findings(rule, rows)
        if "mask" not in self.spec:
            return _Film({"image": "", **cells}, row, wanted, found, None)
        mask = mask_of(self.spec["mask"], rows, self.release, self.odd)
        named_mask, drawn = (mask, None) if isinstance(mask, str) else ("", mask)
        return _Film({"image": "", "mask": named_mask, **cells}, row, wanted, found, drawn)

    def _findings(self, rule: Mapping[str, Any], rows: Sequence[ReleasedRow]) -> dict[str, str]:
        """1 or 0 for each finding that a cell may list; nothing for an empty cell."""
        names = {str(k): str(v) for k, v in rule["names"].items()}
        absent = {str(name) for name in rule.get("none", ())}
        found: set[str] = set()
        for row in rows:
            text = row.cells[column_of(rule["from"], row.cells)]
            try:
                parts = listed(text, rule["separator"])
            except ValueError:
                self.odd.fault(
                    row, f"{rule['from']} is no list", expected="['a', 'b']", seen=text[:40]
                )
                continue
            for part in parts:
                if part not in names and part not in absent and rule.get("others") != "pass":
                    fix = "Name it in the layout's `findings`"
                    self.odd.fault(row, f"an unknown finding in {rule['from']}", fix=fix, seen=part)
            if absent.intersection(parts) and len({*parts} - absent):
                self.odd.noted[f"list a finding beside its absence ({rule['from']})"] += 1
            found |= {*parts}
        return {called: str(int(name in found)) if found else "" for name, called in names.items()}

    def _filtered(self, film: _Film) -> str:
        """The cell that `where` asks about."""
        assert self.where is not None
        if self.where.column not in film.row:
            raise ManifestError(
                f"no column '{self.where.column}' to choose rows by",
                expected=f"one of {', '.join(film.row)}",
                where="where",
            )
        return film.row[self.where.column]


def _split_faults(films: Sequence[_Film]) -> list[MedtlError]:
    """Patients in two official splits, and images in none while others are in one."""
    splits: dict[str, set[str]] = defaultdict(set)
    for film in films:
        if film.split:
            splits[film.row.get("patient_id", "")].add(film.split)
    torn = {patient for patient, parts in splits.items() if len(parts) > 1 and patient}
    faults: list[MedtlError] = []
    if torn:
        lines = [film.source.line for film in films if film.row.get("patient_id") in torn]
        apart = sorted({part for patient in torn for part in splits[patient]})
        faults.append(
            LeakError(
                f"leak: {len(torn)} patients stand in two official splits ({' and '.join(apart)}), "
                f"with {len(lines)} images ({rows_text(lines)})",
                fix="Take the lists of the release as they were published, or write the manifest "
                "without its splits: delete `split` from a copy of the layout",
            )
        )
    bare = [film.source.line for film in films if not film.split]
    if bare and len(bare) < len(films):
        faults.append(
            ManifestError(
                f"{len(bare)} of {len(films)} images are in no official split ({rows_text(bare)})",
                expected=f"a list that names them, as {', '.join(sorted({*SPLIT_NAMES.values()}))}",
            )
        )
    return faults


def write_imported(found: Imported, folder: Path, path: str | PathLike[str]) -> int:
    """Write a manifest, its sidecar and the files that were made for it; return how many of those.

    The manifest may lie anywhere: beside its images, above them, or, where they are read-only,
    elsewhere; the sidecar then says where the paths start.

    Args:
        found: What the release holds.
        folder: The release.
        path: The manifest, which must not exist yet.
    """
    path = Path(path)
    if path.exists():
        raise ManifestError("the manifest exists", where=str(path), fix="Choose another --out")
    here, images = path.resolve().parent, folder.resolve()
    root = here if images.is_relative_to(here) else images
    if found.made:
        root = Path(os.path.commonpath([root, here]))
    own = {name: f"{path.stem}_{name.removeprefix(MADE)}" for name in found.made}
    for name, make in found.made.items():  # the manifest, which comes last, says that all are there
        (here / own[name]).parent.mkdir(exist_ok=True)
        (here / own[name]).write_bytes(make())
    rows = [
        {
            column: _below(root, here / own[cell] if cell in own else images / cell)
            if column in ("image", "mask") and cell
            else cell
            for column, cell in row.items()
        }
        for row in found.rows
    ]
    sidecar = found.sidecar if root == here else {**found.sidecar, "images": str(root)}
    columns = {*rows[0]}
    known = {name: text for name, text in sidecar.get("columns", {}).items() if name in columns}
    units = {name: text for name, text in sidecar.get("units", {}).items() if name in columns}
    stated = {**sidecar, "columns": known, "units": units}
    write_manifest(rows, path, {key: value for key, value in stated.items() if value})
    return len(own)


def _slashed(path: str) -> str:
    """A path as POSIX writes it, without a leading './'."""
    return PurePosixPath(path.replace("\\", "/")).as_posix()


def _below(root: Path, file: Path) -> str:
    """A path from the root of a manifest."""
    return file.relative_to(root).as_posix()

"""The page of the manual about public data sets, made from their YAML files."""

from __future__ import annotations

import re

from medtl.cases.releases.shelf import about, names, shipped


def data_sets_page() -> str:
    """Return the page, a section for each data set."""
    parts = [_HEAD]
    for name in names():
        told = about(name)
        parts.append(
            f"## {told.pop('title')}\n\n`medtl manifest import FOLDER --layout {name}`\n\n"
        )
        parts.append("| | |\n|---|---|\n")
        parts += [f"| {key.replace('_', ' ')} | {_cell(text)} |\n" for key, text in told.items()]
        spec = shipped(name) or {}
        findings = spec.get("findings", {}).get("names", {}).values()
        if columns := [*spec.get("columns", {}), *findings]:
            parts.append(f"| columns | {', '.join(f'`{column}`' for column in columns)} |\n")
        if spec.get("where"):
            parts.append(f"| rows | `{spec['where']}`, unless `--where` says otherwise |\n")
        parts.append("\n")
    return "".join(parts).rstrip("\n") + "\n"


def _cell(text: str) -> str:
    """A text as a cell of a table in Markdown, addresses as links."""
    return re.sub(r"(https?://[^\s),]+)", r"<\1>", text.replace("|", "\\|").replace("*", "\\*"))


_HEAD = """\
# Public data sets

Each is a YAML file, no code: which tables, how they join, what a value means, where the images lie
and which split is official. One command makes a checked manifest of the release as it was unpacked:

```
medtl manifest layouts                 # the data sets
medtl manifest layouts chexpert        # licence, what it allows, where to ask, what is expected
medtl manifest import FOLDER --layout chexpert --out chexpert.csv
```

The manifest may lie anywhere; nothing is written into the release. Masks that a release holds as
run lengths, boxes or pieces, and images that it holds in arrays, are written beside the manifest.
A value that the file does not know, a patient in two official splits and a missing table stop the
import, with counts. Images that are not there are counted, by split, and left out; where less than
half are there, `--partial` is asked for. medtl never downloads; read the terms where they stand.

Another data set is a YAML file of the same kind: `--layout my_set.yaml`. Its keys:

| key | what it says |
|---|---|
| `rows` | where the rows are from: `table` (alternatives), `files` (names with `{PARTS}`) or \
`arrays` (an `.npz`); `header` names the columns of a table without one, `set` adds columns, \
`optional` lets a table be missing |
| `join` | other tables, `on` columns of the same ids, or a `text` beside each image that a \
pattern is read from |
| `let` | columns made before others use them |
| `group` | columns whose cells are equal in all rows about one image |
| `where` | which rows are taken, `view in [AP, PA]` |
| `image`, `mask` | where the files lie, `{COLUMN}` and `*` filled in; a mask may be `rle`, \
`boxes` or `unite` |
| `columns` | a template `{COLUMN}`, or `from` a column with `match` (a pattern), `values` (a \
map), `each` (of a list), `by` (a column that chooses the map), `else`, `note`, `minus`, `range`, \
`one_hot`, `listed`, and `several` (same, any, count, list) for the rows of one image |
| `findings` | a column of 1 and 0 for each finding that a cell lists |
| `manifest` | what the sidecar says: `columns`, `labels`, `units`, `source`, `licence` |

"""
"""Beginning of the page."""
